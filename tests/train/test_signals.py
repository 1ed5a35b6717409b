import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.bleu import ngrams, sentence_bleu

from keel.batch.collate import EncodedResponse, token_batch
from keel.batch.types import Rollout, widen
from keel.stats.coverage import Coverage
from keel.train.judge import EnsembleScorer, Judge, Responses, Scores
from keel.train.rollout import Judged
from keel.train.settings import ShapingConfig
from keel.train.signals import common_phrase, signals

THANKS = [7, 8, 9, 4]


def judged(groups, *, raw=None, rewards=None, logprobs=None, ref_logprobs=None, masks=None, parts=None, **scores):
    """A judged rollout with these token ids: one list a prompt of its answers."""
    flat = [answer for group in groups for answer in group]
    masks = masks or [None] * len(flat)
    answers = iter(EncodedResponse(tokens=t, mask=m) for t, m in zip(flat, masks, strict=True))
    batch = token_batch([[1, 2]] * len(groups), [[next(answers) for _ in group] for group in groups])
    tokens = len(batch.response_tokens)
    raw = torch.arange(len(flat)).float() if raw is None else torch.tensor(raw)
    rollout = widen(
        batch,
        Rollout,
        logprobs=torch.full((tokens,), -1.0) if logprobs is None else torch.tensor(logprobs),
        ref_logprobs=torch.full((tokens,), -2.0) if ref_logprobs is None else torch.tensor(ref_logprobs),
        scores=raw if rewards is None else torch.tensor(rewards),
        finished=torch.ones(len(flat), dtype=torch.bool),
    )
    return Judged(
        rollout=rollout,
        responses=Responses(
            batch=batch,
            prompt_texts=["ask"] * len(flat),
            response_texts=[str(answer) for answer in flat],
            finished=rollout.finished,
        ),
        scores=Scores(raw=raw, normalised=raw, parts=parts or {"rm": raw}, **scores),
        seconds_rollout=1.0,
        seconds_score=1.0,
    )


def test_kl_by_k3_is_the_mean_of_ratio_less_one_less_log():
    # Log-ratios of the reference to the policy: ln 2 for the first token, 0, and -ln 2.
    two = math.log(2)
    found = signals(judged([[[5, 6], [7]]], logprobs=[-1.0, -1.0, -1.0], ref_logprobs=[-1 + two, -1.0, -1 - two]), None)
    first, third = 2 - 1 - two, 0.5 - 1 + two
    assert found["kl_k3_nats_per_sequence"] == pytest.approx((first + third) / 2, abs=1e-6)
    assert found["kl_k3_nats_per_token"] == pytest.approx((first + third) / 3, abs=1e-6)
    assert found["ref_perplexity"] == pytest.approx(math.e, abs=1e-5)
    assert found["entropy_nats_sampled"] == 1.0


def test_a_token_that_only_the_reference_likes_overflows_nothing():
    found = signals(judged([[[5]]], logprobs=[-200.0], ref_logprobs=[0.0]), None)
    assert found["kl_k3_nats_per_token"] == pytest.approx(math.exp(200) - 201)


def test_tails_and_spread_of_scores_and_rewards():
    raw = [float(i) for i in range(-20, 81)]
    found = signals(
        judged([[[5]]] * 101, raw=raw, rewards=[1.0, -1.0] * 50 + [0.0], parts={"a": torch.tensor([2.0, 4.0])}), None
    )
    assert (found["score_p05"], found["score_p95"], found["score_abs_max"]) == (-15, 75, 80)
    assert found["reward_std"] == pytest.approx((100 / 101) ** 0.5)
    assert found["score_a_std"] == 1


def test_correlations_are_of_rewards_as_paid_and_of_raw_scores():
    answers = [[[5] * length] for length in (1, 2, 3, 4)]
    found = signals(judged(answers, raw=[1.0, 2.0, 3.0, 4.0], rewards=[4.0, 3.0, 2.0, 1.0]), None)
    assert found["length_score_correlation"] == pytest.approx(1)
    assert found["length_reward_correlation"] == pytest.approx(-1)
    assert found["response_tokens_p95"] == pytest.approx(3.85)


@pytest.mark.parametrize(("raw", "lengths"), [([0.1, 0.1, 0.1], [1, 2, 3]), ([1.0, 2.0, 3.0], [2, 2, 2])])
def test_a_correlation_with_what_does_not_vary_is_missing(raw, lengths):
    found = signals(judged([[[5] * length] for length in lengths], raw=raw), None)
    assert math.isnan(found["length_reward_correlation"])
    assert math.isnan(found["length_score_correlation"])


def test_texts_are_compared_across_prompts_and_within_a_prompt():
    thanks, other, third = [*THANKS, 5], [10, 11, 12, 13], [20, 21, 22, 23]
    within = signals(judged([[thanks, thanks], [other, other], [third, third]]), None)
    assert within["self_bleu_per_prompt"] == pytest.approx(1)
    assert within["self_bleu"] == 0
    across = signals(judged([[thanks, other], [thanks, other], [thanks, other]]), None)
    assert across["self_bleu_per_prompt"] == 0
    assert across["self_bleu"] == pytest.approx(1)


def test_self_bleu_equals_brute_force_on_random_rollouts():
    rng = np.random.default_rng(0)
    groups = [[rng.integers(5, size=rng.integers(1, 12)).tolist() for _ in range(3)] for _ in range(6)]

    def mean(texts):
        return np.mean([sentence_bleu(t, texts[:i] + texts[i + 1 :]) for i, t in enumerate(texts)])

    found = signals(judged(groups), None)
    assert found["self_bleu_per_prompt"] == pytest.approx(np.mean([mean(group) for group in groups]))
    columns = [[group[slot] for group in groups] for slot in range(3)]
    assert found["self_bleu"] == pytest.approx(np.mean([mean(column) for column in columns]))
    flat = [answer for group in groups for answer in group]
    grams = [gram for answer in flat for gram in ngrams(answer, 2)]
    assert found["distinct_2"] == len(set(grams)) / len(grams)
    assert found["unique_share"] == len({tuple(answer) for answer in flat}) / len(flat)


def test_one_sample_a_prompt_says_nothing_of_samples_of_a_prompt():
    found = signals(judged([[THANKS], [THANKS]]), None)
    assert math.isnan(found["self_bleu_per_prompt"])
    assert found["self_bleu"] == pytest.approx(1)


def test_the_common_phrase_is_named():
    rollout = judged([[[3, *THANKS], [*THANKS, *THANKS]], [[*THANKS, 5], [1, 2, 3, 5]]])
    assert signals(rollout, None)["common_phrase_share"] == 0.75
    assert common_phrase(rollout) == tuple(THANKS)
    assert common_phrase(judged([[[1, 2, 3]]])) == ()


def test_repeated_trigrams_and_unseen_ones():
    rollout = judged([[[1, 2, 3, 1, 2, 3], [4, 5, 6, 7]]])
    found = signals(rollout, Coverage.of([[1, 2, 3, 1], [4, 5, 6]]))
    assert found["repeated_trigram_share"] == pytest.approx((1 / 4 + 0) / 2)
    # 123 231 312 123 and 456 567: 312 and 567 are new.
    assert found["unseen_trigram_share"] == pytest.approx(2 / 6)
    assert math.isnan(signals(rollout, None)["unseen_trigram_share"])


def test_one_token_answers_and_constant_rewards_leave_figures_missing_and_break_nothing():
    found = signals(judged([[[5], [5]], [[5], [5]]], raw=[1.0] * 4), Coverage.of([[1, 2, 3]]))
    missing = {name for name, value in found.items() if math.isnan(value)}
    assert missing == {
        "length_reward_correlation",
        "length_score_correlation",
        "score_disagreement",
        "repeated_trigram_share",
        "common_phrase_share",
        "unseen_trigram_share",
    }
    assert found["reward_std"] == 0
    assert found["unique_share"] == 0.25


def test_tokens_outside_the_mask_change_no_figure():
    plain = judged([[THANKS, [5, 6, 7]]], raw=[1.0, 2.0])
    kept = [True] * 4 + [False] * 2
    inside = judged([[[*THANKS, 99, 98], [5, 6, 7]]], raw=[1.0, 2.0], masks=[kept, [True] * 3])
    nan = torch.tensor([0.0] * 4 + [math.nan] * 2 + [0.0] * 3)
    inside = replace(
        inside,
        rollout=replace(
            inside.rollout, logprobs=inside.rollout.logprobs + nan, ref_logprobs=inside.rollout.ref_logprobs + nan
        ),
    )
    coverage = Coverage.of([THANKS])
    wanted, found = signals(plain, coverage), signals(inside, coverage)
    of_length = {"length_reward_correlation", "length_score_correlation", "response_tokens_p95"}
    for name in wanted.keys() - of_length:
        assert found[name] == pytest.approx(wanted[name], nan_ok=True), name


def test_looking_changes_neither_the_rollout_nor_the_random_numbers():
    rollout = judged([[THANKS, [5, 6, 7]], [[1], [2, 3]]])
    before = [tensor.clone() for _, tensor in rollout.rollout._tensors()]
    state = torch.get_rng_state()
    first, second = (signals(rollout, Coverage.of([THANKS])) for _ in range(2))
    assert first == pytest.approx(second, nan_ok=True)
    assert all(map(torch.equal, before, [tensor for _, tensor in rollout.rollout._tensors()]))
    assert torch.equal(state, torch.get_rng_state())


class Fixed:
    mean, std = 0.0, 1.0

    def __init__(self, *values):
        self.values = torch.tensor(values)

    def score(self, responses):
        return self.values


def test_the_disagreement_of_an_ensemble_goes_with_the_scores():
    ensemble = EnsembleScorer([Fixed(1.0, 3.0), Fixed(3.0, 3.0)])
    responses = judged([[[5], [6]]]).responses
    shaping = ShapingConfig(normalise="none")

    def scores(**scorers):
        judge = Judge(scorers={n: (1.0, s) for n, s in scorers.items()}, shaping=shaping, max_new_tokens=4)
        return judge.scores(responses)

    assert scores(rm=ensemble, plain=Fixed(0.0, 0.0)).disagreement == 0.5
    assert math.isnan(scores(plain=Fixed(0.0, 0.0)).disagreement)
    assert signals(judged([[[5], [6]]], disagreement=0.5), None)["score_disagreement"] == 0.5
