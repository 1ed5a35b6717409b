"""Comparisons in the world that is small enough to enumerate (helpers.exact), and training on them.

Raters judge by the world's rewards, so that DPO's optimum is that of RL: ref(y|x) · exp(reward(x, y) / beta) / Z(x).
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from helpers.exact import PROMPTS, RESPONSES, REWARDS, Outcome, Settings, outcome, token_table
from torch import Tensor, nn

from keel.algorithms.preference import DPO
from keel.algorithms.settings import DPOConfig, KLConfig
from keel.batch.collate import EncodedPair, pair_batch
from keel.batch.types import PreferenceBatch, widen
from keel.train.loop import LoopConfig, fit
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig

BETA = 0.5


def preferred_chance(a: Tensor, b: Tensor) -> Tensor:
    """[3, N] how likely a rater of this world prefers response a [N] to b [N], by its rewards (Bradley-Terry)."""
    return torch.sigmoid(REWARDS[:, a] - REWARDS[:, b])


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


def prefer(
    policy: nn.Module, optim: OptimConfig, *, steps: int, pairs: int = 96, flipped: float = 0.0, **changes: Any
) -> Outcome:
    """Train `policy` on comparisons with the product's loop and measure; `changes` are settings of DPO."""
    reference = copy.deepcopy(policy)
    dpo = DPO(policy, DPOConfig(beta=BETA, **changes))
    optimizer = Optimizer([ParameterGroup(parameters=trainable(policy))], optim, steps)
    batches = preference_batches(reference, steps, pairs, flipped)
    history = list(fit(batches, dpo, optimizer, LoopConfig(micro_batch_tokens=100_000)))
    settings = Settings(updates=steps, optim=optim, kl=KLConfig(controller="fixed", initial=BETA))
    return outcome(policy, reference, settings, history)


def ipo_best(reference: Tensor) -> Tensor:
    """[3, 85] IPO's optimum over uniform pairs: ref · exp(mean over b of P(a better than b) / beta), normalised."""
    everyone = torch.arange(len(RESPONSES))
    a, b = torch.meshgrid(everyone, everyone, indexing="ij")
    mean_chance = preferred_chance(a.flatten(), b.flatten()).view(len(PROMPTS), len(RESPONSES), -1).mean(-1)
    return (reference + mean_chance.double() / BETA).log_softmax(-1)
