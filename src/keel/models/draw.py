"""From logits to tokens: one uniform number each, by the inverse CDF, from streams that depend on nothing but names."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 64  # tokens whose probabilities are summed at once


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """One token a row of logits [rows, V], and its log-probability in float32; overwrites `logits`.

    The inverse CDF in two steps, a block of the vocabulary and then a token of it, both in float64: only sums of blocks
    are wide, so that the table is read three times and never copied.
    """
    z = logits if temperature in (0.0, 1.0) else logits.div_(temperature)
    peak, likeliest = z.max(-1, keepdim=True)
    weights = z.sub_(peak).exp_()
    whole = weights.shape[1] // BLOCK * BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, BLOCK)).sum(2, dtype=torch.float64)
    mass = torch.cat([sums, weights[:, whole:].sum(1, keepdim=True, dtype=torch.float64)], 1).cumsum_(1)
    total = mass[:, -1:].clone()
    if temperature == 0:
        drawn = likeliest
    else:
        at = uniforms[:, None] * total
        # The first whose cumulated mass exceeds `at`; with nan there is none, which the caller tells apart.
        block = torch.searchsorted(mass, at, right=True).clamp(max=mass.shape[1] - 1)
        before = torch.where(block > 0, mass.gather(1, (block - 1).clamp(min=0)), 0.0)
        index = block * BLOCK + torch.arange(BLOCK, device=z.device)
        inside = weights.gather(1, index.clamp(max=z.shape[1] - 1)).double().masked_fill_(index >= z.shape[1], 0.0)
        place = torch.searchsorted(inside.cumsum_(1), at - before, right=True).clamp(max=BLOCK - 1)
        drawn = index.gather(1, place).clamp(max=z.shape[1] - 1)
    return drawn.squeeze(1), (weights.gather(1, drawn).double().log() - total.log()).squeeze(1).float()


def uniform_numbers(seed: int, keys: Sequence[int], samples: int, positions: int) -> Tensor:
    """[rows, positions] float64 in [0, 1): a hash of (seed, key, sample index, position), 53 bits each."""
    rows = [(key, index) for key in keys for index in range(samples)]
    state = np.full(len(rows), seed & _MASK, dtype=np.uint64)
    for part in zip(*rows, strict=True):
        state = _mix(state ^ _mix(np.array([number & _MASK for number in part], dtype=np.uint64) + _STEP))
    counters = np.arange(1, positions + 1, dtype=np.uint64) * _STEP
    return torch.from_numpy((_mix(state[:, None] + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


_MASK = 2**64 - 1
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every input bit sways every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
