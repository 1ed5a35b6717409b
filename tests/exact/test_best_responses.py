"""Rejection sampling against the distribution that best-of-n has, enumerated."""

from collections.abc import Sequence

import pytest
import torch
from helpers.exact import (
    LONGEST,
    PROMPTS,
    REWARDS,
    ExactSampler,
    adam,
    kl,
    reward_function,
    table_policy,
    token_table,
    total_variation,
)

from keel.algorithms.sft import SFT
from keel.stages.best_of import Drawn, picked
from keel.stats.best_of import best_of_kl_bound, expected_best
from keel.train.judge import FunctionScorer
from keel.train.loop import LoopConfig, fit
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.rollout import EncodedPrompt, as_responses, sample_batch

GROUPS = 512
"""Groups of n samples for each prompt and step."""


def best_of(n: int) -> torch.Tensor:
    """[3, 85] log-probabilities of best-of-n from the reference: F(y)^n - F(just below y)^n, by reward."""
    ref = token_table(table_policy()).double().sum(-1).exp()
    order = REWARDS.argsort(dim=1)
    below = ref.gather(1, order).cumsum(1).clamp(max=1)
    chances = torch.diff(below**n, prepend=torch.zeros(len(PROMPTS), 1))
    return torch.empty_like(ref).scatter_(1, order, chances.double()).clamp(min=1e-300).log()


def drawn(sampler: ExactSampler, n: int, seed: int) -> Drawn:
    """n samples for each of GROUPS copies of the prompts, scored by the product's scorer."""
    prompts = [EncodedPrompt(prompt=str(x), tokens=(x,), key=x) for x in PROMPTS * GROUPS]
    batch, samples = sample_batch(sampler, prompts, samples=n, max_new_tokens=LONGEST, temperature=1.0, seed=seed)
    responses = as_responses(batch, samples.finished, [p.text for p in prompts], joined)
    scores = FunctionScorer(function=reward_function, name="table").score(responses)
    return Drawn(responses=responses, logprobs=samples.logprobs, scores=scores.view(-1, n))


def joined(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def test_fine_tuning_on_the_best_of_n_leads_to_the_distribution_of_best_of_n():
    n, policy, reference = 4, table_policy(), ExactSampler(table_policy())
    steps = 60

    def batches():
        for step in range(steps):
            samples = drawn(reference, n, seed=step)
            yield picked(samples.responses, samples.places(samples.best())).batch

    optimizer = Optimizer([ParameterGroup(parameters=trainable(policy))], adam(0.2), steps)
    for _ in fit(batches(), SFT(policy), optimizer, LoopConfig(micro_batch_tokens=100_000)):
        pass
    found, target = token_table(policy).double().sum(-1), best_of(n)
    start = token_table(table_policy()).double().sum(-1)
    assert total_variation(start, target) > 0.2
    assert total_variation(found, target) < 0.05
    assert kl(target, start) <= best_of_kl_bound(n)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_the_expected_best_of_n_is_what_enumeration_says(n):
    """From eight samples a prompt, unbiased for each n."""
    samples = drawn(ExactSampler(table_policy()), 8, seed=1)
    exact = float((best_of(n).exp() * REWARDS).sum(-1).mean())
    found = expected_best(samples.scores.double().numpy(), n)
    assert found.mean() == pytest.approx(exact, abs=4 * found.std() / len(found) ** 0.5)
