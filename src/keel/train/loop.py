"""The training loop: one for every algorithm, offline and online.

A source yields raw batches: rows of a data set, or fresh rollouts. An algorithm prepares each batch once and defines a
loss on its rows. The loop yields what happened and the caller decides what to do about it, so logging, stopping,
evaluating and saving are ordinary code around a `for`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from keel.batch.types import TokenBatch
from keel.core.seed import derive
from keel.train.optim import Optimizer
from keel.train.step import LossTerms, Metrics, optimizer_step

Raw = TypeVar("Raw", bound=TokenBatch, contravariant=True)
Ready = TypeVar("Ready", bound=TokenBatch)
RawBatch = TypeVar("RawBatch", bound=TokenBatch)


class Algorithm(Protocol[Raw, Ready]):
    """What tells one algorithm from another."""

    def prepare(self, batch: Raw, /) -> Ready:
        """Work out what the whole batch decides: advantages, whitening, reference terms, baselines."""
        ...

    def loss(self, rows: Ready, /) -> LossTerms:
        """Sum of loss terms, how many terms, and sums to report, for these rows alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How a prepared batch is spent."""

    epochs: int = 1
    """Passes over each prepared batch; with more than one, the later passes are off-policy."""
    minibatches: int = 1
    """Optimiser steps per pass."""
    micro_batch_tokens: int = 2048
    """Tokens per forward pass. Changes memory and speed, never the gradient."""
    seed: int = 0
    """Orders the minibatches; the order of update u depends on (seed, u) alone."""


def never(metrics: Metrics) -> bool:
    """The stopping rule of an algorithm that always spends its epochs."""
    return False


def moved_past(limit: float | None) -> Callable[[Metrics], bool]:
    """The stopping rule of RL: a step found the policy over `limit` nats per token from the one that sampled.

    None sets no limit.
    """
    return never if limit is None else lambda metrics: metrics["approx_kl"] > limit


def fit(
    source: Iterable[RawBatch],
    algorithm: Algorithm[RawBatch, Ready],
    optimizer: Optimizer,
    config: LoopConfig,
    *,
    start: int = 0,
    enough: Callable[[Metrics], bool] = never,
) -> Iterator[Metrics]:
    """Train on every batch of `source`, yielding the mean metrics of each batch's optimiser steps.

    `start` is the number of batches already trained on (the source begins after them). A batch whose step answers
    True to `enough` is not trained on further.
    """
    for update, raw in enumerate(source, start):
        batch = algorithm.prepare(raw)
        steps: list[Metrics] = []
        for epoch in range(config.epochs):
            for index in shuffled(len(batch), config.minibatches, derive(config.seed, "minibatches", update, epoch)):
                steps.append(optimizer_step(batch.rows(index), algorithm.loss, optimizer, config.micro_batch_tokens))
                if enough(steps[-1]):
                    break
            else:
                continue
            break
        yield {**mean_metrics(steps), "optimizer_steps": len(steps)}


def shuffled(rows: int, parts: int, seed: int) -> tuple[torch.Tensor, ...]:
    """A random order of `rows`, cut into `parts` nearly equal pieces."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    return tuple(piece for piece in order.tensor_split(max(1, min(parts, rows))) if len(piece))


def mean_metrics(steps: list[Metrics]) -> Metrics:
    """Mean of each figure over the steps of one batch, and the first step's, which on-policy must be neutral."""
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[-1]}
    return means | {f"first_{name}": steps[0][name] for name in ("log_ratio_max", "clip_fraction") if name in steps[0]}
