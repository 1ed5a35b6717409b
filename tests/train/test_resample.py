"""Dynamic sampling: prompts whose samples are all paid alike make way for others."""

import pytest
import torch
from helpers.tiny import tiny_model, tiny_tokenizer

from keel.data.chat import decode_response
from keel.functional.advantages import all_alike
from keel.models.generate import InProcessSampler
from keel.train.judge import FunctionScorer, Judge
from keel.train.resample import compared_batches
from keel.train.rollout import EncodedPrompt, Reference, RolloutConfig, RolloutSource
from keel.train.settings import ShapingConfig

EOS = 2
PROMPTS = [EncodedPrompt(prompt=f"ask {i}", tokens=(1, 10 + i, 11 + i), key=100 + i) for i in range(20)]


def source_of(*, teaching: int, tries: int, normalise: str = "none", prompts=PROMPTS) -> RolloutSource:
    """Answers to the first `teaching` prompts are paid by what they say, all others alike."""

    def pay(asked, answers):
        return [
            sum(map(ord, answer)) % 97 / 10 if int(prompt.split()[1]) < teaching else 1.0
            for prompt, answer in zip(asked, answers, strict=True)
        ]

    policy, tokenizer = tiny_model(), tiny_tokenizer()
    return RolloutSource(
        policy=policy,
        sampler=InProcessSampler(policy, {EOS}),
        reference=Reference(model=policy),
        judge=Judge(
            scorers={"pay": (1.0, FunctionScorer(function=pay, name="pay"))},
            shaping=ShapingConfig(normalise=normalise, clip=None, missing_eos_ceiling=None),
            max_new_tokens=6,
        ),
        prompts=prompts,
        decode=lambda tokens: decode_response(tokenizer, tokens),
        config=RolloutConfig(
            prompts=6, samples=3, max_new_tokens=6, temperature=1.0, micro_batch_tokens=60, seed=7, resample_tries=tries
        ),
    )


def silent(batch) -> int:
    return int(all_alike(batch.scores, batch.fanout).sum())


def counts(source: RolloutSource) -> tuple[float, float, float]:
    figures = source.last.figures()
    return (
        figures["prompts_without_signal"],
        figures["extra_prompts"],
        figures["prompts_left_without_signal"],
    )


def test_a_batch_is_filled_with_prompts_that_teach():
    source = source_of(teaching=12, tries=10)
    found = []
    for batch in compared_batches(source, 0, 3):
        assert len(batch) == 6
        assert batch.fanout.tolist() == [3] * 6
        assert silent(batch) == 0
        assert len(batch.logprobs) == len(batch.ref_logprobs) == int(batch.response_lengths.sum())
        found.append(counts(source))
    assert any(extra for _, extra, _ in found)
    # of all that were sampled, 6 are trained on and the others were without signal
    assert all(6 + extra == 6 + without and left == 0 for without, extra, left in found)


def test_it_asks_for_as_many_as_are_missing_and_never_for_a_prompt_that_the_update_has():
    source = source_of(teaching=12, tries=10)
    asked, rollout = [], source.rollout

    def watched(prompts, seed, **named):
        asked.append([prompt.key for prompt in prompts])
        return rollout(prompts, seed, **named)

    source.rollout = watched
    next(compared_batches(source, 0, 1))
    keys = [key for call in asked for key in call]
    assert len(keys) == len(set(keys))
    assert len(asked) > 1
    missing = 6 - sum(key < 112 for key in asked[0])
    assert len(asked[1]) == missing


def test_at_its_limit_it_stops_and_fills_up_with_the_first_that_came():
    source = source_of(teaching=1, tries=2)
    for update, batch in enumerate(compared_batches(source, 0, 4)):
        assert len(batch) == 6
        without, extra, left = counts(source)
        assert silent(batch) == left >= 5
        assert 10 <= extra <= 12
        assert without == 6 + extra - (6 - left), update


def test_a_set_without_other_prompts_ends_the_search():
    source = source_of(teaching=0, tries=50, prompts=PROMPTS[:8])
    next(compared_batches(source, 0, 1))
    assert counts(source) == (8, 2, 6)


def test_without_tries_the_batch_is_the_one_that_came_and_is_only_counted():
    plain, counted = source_of(teaching=10, tries=0), source_of(teaching=10, tries=0)
    (expected,) = plain.batches(0, 1)
    (found,) = compared_batches(counted, 0, 1)
    assert torch.equal(found.response_tokens, expected.response_tokens)
    assert counts(counted) == (silent(expected), 0, silent(expected))
    assert "prompts_without_signal" not in plain.last.figures()


def test_figures_tell_of_the_prompts_as_they_came():
    plain, other = source_of(teaching=10, tries=0), source_of(teaching=10, tries=3)
    next(plain.batches(0, 1))
    next(compared_batches(other, 0, 1))
    for name, value in plain.last.figures().items():
        if not name.startswith("seconds"):
            assert other.last.figures()[name] == value
    assert counts(other)[1] > 0


@pytest.mark.parametrize("normalise", ["none", "running"])
def test_a_resumed_source_asks_the_same_prompts_for_the_same_samples(normalise):
    whole = source_of(teaching=8, tries=2, normalise=normalise)
    batches, states = [], []
    for batch in compared_batches(whole, 0, 3):
        batches.append(batch)
        states.append(whole.judge.state())
    resumed = source_of(teaching=8, tries=2, normalise=normalise)
    resumed.judge.load_state(states[1])
    (found,) = compared_batches(resumed, 2, 3)
    for name, values in found._tensors():
        assert torch.equal(values, dict(batches[2]._tensors())[name]), name
    assert counts(resumed) == counts(whole)
    assert resumed.judge.state() == states[2]
