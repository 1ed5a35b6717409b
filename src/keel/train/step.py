"""One optimiser step over a batch: split by tokens, accumulate, divide once, clip, step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from keel.batch.types import TokenBatch
from keel.core.errors import NotFiniteError
from keel.train.optim import Optimizer

Rows = TypeVar("Rows", bound=TokenBatch)
Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossTerms:
    """What a loss says of some rows."""

    total: Tensor  # scalar, sum of the loss terms, carries the gradient
    count: Tensor  # scalar, number of terms in the sum
    sums: dict[str, Tensor] = field(default_factory=dict)  # reported divided by the batch's figure_count
    figure_count: Tensor | None = None  # scalar, what the sums count over; None when it is `count`
    maxima: dict[str, Tensor] = field(default_factory=dict)  # reported as the largest over the batch


def micro_batches(batch: Rows, max_tokens: int) -> Iterator[Rows]:
    """Runs of prompts whose tokens fit into `max_tokens` together; a prompt that is longer goes alone."""
    sizes = batch.tokens_per_prompt().tolist()
    start, used = 0, 0
    for i, size in enumerate(sizes):
        if i > start and used + size > max_tokens:
            yield batch.rows(slice(start, i))
            start, used = i, 0
        used += size
    if start < len(sizes):
        yield batch.rows(slice(start, len(sizes)))


def optimizer_step(
    batch: Rows, loss: Callable[[Rows], LossTerms], optimizer: Optimizer, micro_batch_tokens: int
) -> Metrics:
    """Minimise the batch's mean loss once and report.

    The mean is over all terms of the whole batch however it is split, so the gradient does not depend on
    `micro_batch_tokens`. Raises NotFiniteError when the loss or the gradient is not a finite number; the weights are
    then as they were before the step.
    """
    total, count, figure_count = torch.zeros(3, dtype=torch.float64).unbind()
    sums: dict[str, Tensor] = {}
    maxima: dict[str, float] = {}
    for micro in micro_batches(batch, micro_batch_tokens):
        terms = loss(micro.to(optimizer.device))
        if terms.total.requires_grad:
            terms.total.backward()
        total += terms.total.detach().cpu()
        count += terms.count.cpu()
        figure_count += (terms.count if terms.figure_count is None else terms.figure_count).cpu()
        for name, value in terms.sums.items():
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.detach().double().cpu()
        for name, value in terms.maxima.items():
            maxima[name] = max(maxima.get(name, float("-inf")), float(value.detach()))
    denominator = float(torch.where(count > 0, count, 1.0))
    grad_norm = optimizer.divide_and_clip(denominator)
    mean = float(total / denominator)
    if not (torch.isfinite(total) and torch.isfinite(torch.tensor(grad_norm))):
        optimizer.drop_gradients()
        raise NotFiniteError(
            f"The loss became {mean} with gradient norm {grad_norm} at optimiser step {optimizer.step_number + 1}. "
            f"That step was not taken; finished stages and the last checkpoint are kept. Lower optim.learning_rate "
            f"(now {optimizer.learning_rate:.2g}), or look for empty or extreme records with `keel data show`."
        )
    learning_rate = optimizer.learning_rate
    optimizer.step()
    return {
        "loss": mean,
        "grad_norm": grad_norm,
        "learning_rate": learning_rate,
        "tokens": float(batch.tokens_per_prompt().sum()),
        **{name: float(value / figure_count.clamp(min=1)) for name, value in sums.items()},
        **maxima,
    }
