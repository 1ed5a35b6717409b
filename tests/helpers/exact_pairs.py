"""Judgments in the world that is small enough to enumerate (helpers.exact), and training on them.

Raters compare by the world's rewards, so that DPO's optimum is that of RL: ref(y|x) · exp(reward(x, y) / beta) / Z(x).
Where a method has another optimum it is worked out here, per prompt, from the probabilities of 85 responses; none of it
shares code with what trains.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from helpers.exact import PROMPTS, RESPONSES, REWARDS, Outcome, Settings, outcome, token_table
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from keel.algorithms.kto import KTO
from keel.algorithms.preference import PairPreference
from keel.algorithms.settings import DPOConfig, KLConfig, KTOConfig, PairConfig
from keel.batch.collate import EncodedPair, EncodedRating, pair_batch, rating_batch
from keel.batch.types import PreferenceBatch, RatingBatch, widen
from keel.train.loop import LoopConfig, fit
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig

BETA = 0.5
DPO = DPOConfig(beta=BETA)
LENGTHS = torch.tensor([len(response) for response in RESPONSES], dtype=torch.float64)
EVERYTHING = 100_000  # tokens: a whole batch in one forward pass


def preferred_chance(a: Tensor, b: Tensor) -> Tensor:
    """[3, N] how likely a rater of this world prefers response a [N] to b [N], by its rewards (Bradley-Terry)."""
    return torch.sigmoid(REWARDS[:, a] - REWARDS[:, b])


def every_chance() -> Tensor:
    """[3, 85, 85] how likely each response is preferred to each other."""
    return torch.sigmoid((REWARDS[:, :, None] - REWARDS[:, None, :]).double())


def thumbs_up_chance() -> Tensor:
    """[3, 85] how likely a rater of this world calls a response good: by its reward, against an answer worth 0."""
    return torch.sigmoid(REWARDS)


def preference_batches(reference: nn.Module, steps: int, pairs: int, flipped: float) -> Iterator[PreferenceBatch]:
    """Random pairs of responses to each prompt, labelled by the chances; `flipped` of the labels are wrong."""
    generator, ref = torch.Generator().manual_seed(2), token_table(reference).sum(-1)
    for _ in range(steps):
        a, b = torch.randint(len(RESPONSES), (2, pairs), generator=generator)
        chances = preferred_chance(a, b)
        chances = chances * (1 - 2 * flipped) + flipped
        records = [
            EncodedPair(prompt=[prompt], a=RESPONSES[i], b=RESPONSES[j], preference=float(chances[k, n]))
            for k, prompt in enumerate(PROMPTS)
            for n, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True))
        ]
        said = torch.stack([ref[:, a], ref[:, b]], dim=-1).flatten()
        yield widen(pair_batch(records), PreferenceBatch, sequence_ref_logprobs=said)


def rating_batches(reference: nn.Module, steps: int) -> Iterator[RatingBatch]:
    """All responses to all prompts, rated by the chances, each beside one that was drawn for another prompt."""
    ref, good = token_table(reference).sum(-1), thumbs_up_chance()
    others = [(i + 31) % len(RESPONSES) for i in range(len(RESPONSES))]
    records = [
        EncodedRating(prompt=[prompt], response=RESPONSES[i], unrelated=RESPONSES[j], desirable=float(good[k, i]))
        for k, prompt in enumerate(PROMPTS)
        for i, j in enumerate(others)
    ]
    batch = rating_batch(records, torch.stack([ref, ref[:, others]], dim=-1).flatten())
    for _ in range(steps):
        yield batch


def trained(policy: nn.Module, algorithm: Any, batches: Iterator[Any], optim: OptimConfig, steps: int) -> Outcome:
    """Where the product's loop takes `policy`."""
    reference = copy.deepcopy(policy)
    optimizer = Optimizer([ParameterGroup(parameters=trainable(policy))], optim, steps)
    history = list(fit(batches, algorithm, optimizer, LoopConfig(micro_batch_tokens=EVERYTHING)))
    settings = Settings(updates=steps, optim=optim, kl=KLConfig(controller="fixed", initial=BETA))
    return outcome(policy, reference, settings, history)


def prefer(
    policy: nn.Module,
    optim: OptimConfig,
    config: PairConfig = DPO,
    *,
    steps: int,
    pairs: int = 96,
    flipped: float = 0.0,
) -> Outcome:
    """Train `policy` on comparisons and measure."""
    batches = preference_batches(copy.deepcopy(policy), steps, pairs, flipped)
    return trained(policy, PairPreference(policy, config), batches, optim, steps)


def rate(policy: nn.Module, optim: OptimConfig, config: KTOConfig, *, steps: int) -> Outcome:
    """Train `policy` on ratings and measure."""
    return trained(policy, KTO(policy, config, EVERYTHING), rating_batches(copy.deepcopy(policy), steps), optim, steps)


def ipo_best(reference: Tensor, beta: float = BETA) -> Tensor:
    """[3, 85] IPO's optimum over uniform pairs: ref · exp(mean over b of P(a better than b) / beta), normalised."""
    return (reference + every_chance().mean(-1) / beta).log_softmax(-1)


def simpo_best(beta: float, gamma: float) -> Tensor:
    """[3, 85] SimPO's optimum over uniform pairs.

    The loss knows only differences of mean log-probabilities m, and any m are those of one policy after adding the
    number that makes exp(length · m) sum to 1. Without gamma m = reward / beta; with it the convex sum over all pairs
    is minimised by Newton's method, from there.
    """
    chance, mean = every_chance(), REWARDS.double() / beta
    for _ in range(50):
        lead = beta * (mean[:, :, None] - mean[:, None, :]) - gamma * (2 * chance - 1)
        gradient = beta * (torch.sigmoid(lead) - chance).sum(-1)
        steep = beta**2 * torch.sigmoid(lead) * torch.sigmoid(-lead)
        curvature = torch.diag_embed(steep.sum(-1)) - steep + 1e-3  # the constant direction is free
        mean = mean - torch.linalg.solve(curvature, gradient)
    assert float(gradient.abs().max()) < 1e-9
    return LENGTHS * (mean + root(lambda c: (LENGTHS * (mean + c)).logsumexp(-1, keepdim=True)))


def orpo_best(odds_weight: float) -> Tensor:
    """[3, 85] where ORPO's loss over uniform pairs has no gradient.

    Without the odds only imitation is left, and the optimum is (how often a response is the better one) / its length,
    normalised. With them the loss of 85 probabilities is minimised from there.
    """
    chance = every_chance()
    logits = (chance.mean(-1) / LENGTHS).log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=2000, history_size=50, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )  # fmt: skip

    def loss() -> Tensor:
        optimizer.zero_grad()
        mean = logits.log_softmax(-1) / LENGTHS
        odds = mean - torch.log1p(-mean.exp())
        imitation = -2 * (chance.mean(-1) * mean).mean(-1)
        penalty = cross_entropy(odds[:, :, None] - odds[:, None, :], chance, reduction="none").mean((-2, -1))
        total = (imitation + odds_weight * penalty).sum()
        total.backward()
        return total

    optimizer.step(loss)
    loss()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-6
    return logits.detach().log_softmax(-1)


def kto_best(reference: Tensor, config: KTOConfig) -> Tensor:
    """[3, 85] where KTO leads, over uniform ratings: the limit that it nears, for what is unwanted sinks without end.

    With s = w_D · P(good) - w_U · P(bad), the loss is a constant less the mean of s · sigmoid(beta · (r - z0)). Where s
    < 0 a lower r = log pi/ref is always better, so those responses go, the mean of r falls, and z0 stays at 0. Of the
    others s · beta · sigmoid'(beta · r) = nu · pi, the multiplier nu so that pi sums to 1. For beta < 1 the left side
    over pi falls in r, so that there is one solution.
    """
    good = thumbs_up_chance().double()
    worth = config.desirable_weight * good - config.undesirable_weight * (1 - good)

    def log_ratio(log_nu: Tensor) -> Tensor:
        """Solves log s + log sigmoid'(beta r) - r - log ref = log nu for r."""

        def excess(r: Tensor) -> Tensor:
            slope = -torch.nn.functional.softplus(config.beta * r) - torch.nn.functional.softplus(-config.beta * r)
            return log_nu + r + reference - slope - worth.clamp(min=1e-300).log()

        return root(excess, torch.zeros_like(reference))

    def total(log_nu: Tensor) -> Tensor:
        share = (reference + log_ratio(log_nu)).masked_fill(worth <= 0, -torch.inf)
        return -share.logsumexp(-1, keepdim=True)

    found = root(total)
    return (reference + log_ratio(found)).masked_fill(worth <= 0, -60.0)


def root(rising: Callable[[Tensor], Tensor], start: Tensor | None = None) -> Tensor:
    """Where each of these rising functions is 0, by halving from -400 to 400; [3, 1] unless `start` has a shape."""
    shape = torch.zeros(len(PROMPTS), 1, dtype=torch.float64) if start is None else start.double()
    low, high = torch.full_like(shape, -400.0), torch.full_like(shape, 400.0)
    for _ in range(80):
        middle = (low + high) / 2
        above = rising(middle) > 0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2
