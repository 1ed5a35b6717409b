"""Laws of online DPO: what its pairs are, where it starts, and what moves it."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.benches import BENCHES, KL_COEF, ONLINE_PAIRS, Bench, policy, rollout

from keel.algorithms.online_dpo import best_and_worst, pairs_within
from keel.batch.types import Rollout
from keel.functional.preference_losses import dpo

every_form = pytest.mark.parametrize("name", ONLINE_PAIRS)


def at_the_reference(name: str, **changes: object) -> Bench:
    """A bench whose policy is still its reference and has just sampled."""
    bench = BENCHES[name](entropy_coef=0.0, **changes)
    raw = rollout(bench.trained, distance=0.0)
    return replace(bench, raw=replace(raw, ref_logprobs=raw.logprobs))


def test_each_two_responses_of_a_prompt_are_a_pair():
    raw = BENCHES["online_dpo"]().raw  # fanout 2, 3, 2, 2, 4
    a, b = pairs_within(raw)
    found = list(zip(a.tolist(), b.tolist(), strict=True))
    assert found == [(0, 1), (2, 3), (2, 4), (3, 4), (5, 6), (7, 8), (9, 10), (9, 11), (9, 12), (10, 11), (10, 12), (11, 12)]  # fmt: skip
    assert len(found) == sum(math.comb(k, 2) for k in raw.fanout.tolist())


def test_the_best_is_paired_with_the_worst_and_equal_scores_still_make_a_pair():
    scores = torch.tensor([0.0, 2.0, -1.0, 3.0, 3.0, 3.0, 5.0, 4.0])
    assert best_and_worst(scores, torch.tensor([3, 3, 2])).tolist() == [1, 2, 3, 5, 6, 7]
    bench = BENCHES["online_dpo"](pairs="best_worst")
    kept = bench.algorithm.prepare(bench.raw)
    assert kept.fanout.tolist() == [2] * 5
    pieces = bench.raw.scores.split(bench.raw.fanout.tolist())
    for mine, all_of_them in zip(kept.scores.view(-1, 2), pieces, strict=True):
        assert sorted(mine.tolist()) == [float(all_of_them.min()), float(all_of_them.max())]


@pytest.mark.parametrize("name", ["online_dpo", "online_dpo hard"])
def test_the_first_loss_is_that_of_a_coin(name):
    metrics = at_the_reference(name).gradient().metrics
    assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["accuracy"] == pytest.approx(0.5, abs=0.5)
    assert metrics["reward_margin"] == pytest.approx(0, abs=1e-5)


@every_form
def test_equal_scores_leave_a_policy_that_is_its_reference_where_it_is(name):
    bench = at_the_reference(name)
    raw = replace(bench.raw, scores=torch.ones_like(bench.raw.scores))
    step = replace(bench, raw=raw).gradient()
    assert max(g.abs().max() for g in step.gradients.values()) < 1e-5


def with_responses(raw: Rollout, order: list[int]) -> Rollout:
    """The same responses in another order within their prompts."""
    one_by_one = [raw.only(torch.tensor([i])).response_tokens for i in order]
    pieces = {name: getattr(raw, name).split(raw.response_lengths.tolist()) for name in ("logprobs", "ref_logprobs", "response_mask")}  # fmt: skip
    return replace(
        raw,
        response_tokens=torch.cat(one_by_one),
        response_lengths=raw.response_lengths[order],
        scores=raw.scores[order],
        **{name: torch.cat([parts[i] for i in order]) for name, parts in pieces.items()},
    )


@every_form
def test_which_response_comes_first_does_not_matter(name):
    bench = BENCHES[name]()
    other = with_responses(bench.raw, [1, 0, 4, 2, 3, 6, 5, 8, 7, 12, 11, 9, 10])
    bench.gradient(bench.algorithm.prepare(other)).assert_close(bench.gradient(), 1e-5)


def test_a_prompt_that_the_judge_finds_as_the_policy_implies_does_not_move_it():
    """The gradient of soft labels is zero where beta · log-ratios are the scores, up to a constant of the prompt."""
    bench = BENCHES["online_dpo"](entropy_coef=0.0)
    raw = rollout(bench.trained, distance=0.0)
    implied = KL_COEF * raw.sum_per_response(raw.logprobs - raw.ref_logprobs) + raw.prompt_of_response
    step = replace(bench, raw=replace(raw, scores=implied)).gradient()
    assert max(g.abs().max() for g in step.gradients.values()) < 1e-4
    assert step.metrics["accuracy"] == pytest.approx(1)


def test_the_coefficient_is_beta_whatever_it_has_become():
    bench = BENCHES["online_dpo"](entropy_coef=0.0)
    bench.algorithm.kl.coefficient = 0.7  # a controller or the guardian has raised it
    raw, owner = bench.raw, pairs_within(bench.raw)
    with torch.no_grad():
        at = rollout(policy(), distance=0.0).logprobs  # what the policy says of the same tokens
    h = raw.sum_per_response(at) - raw.sum_per_response(raw.ref_logprobs)
    a, b = owner
    expected = dpo(h[a], h[b], torch.sigmoid(raw.scores[a] - raw.scores[b]), 0.7).mean()
    assert bench.gradient().metrics["loss"] == pytest.approx(float(expected), rel=1e-5)
