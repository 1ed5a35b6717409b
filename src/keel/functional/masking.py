"""Sums, means and variances over the positions that count.

Values are [B, T] or flat [R], with a bool mask of the same shape, True where a position counts. What lies under a False
mask never reaches a result or a gradient, so nan or inf there is harmless.
"""

import torch
from torch import Tensor

from keel.functional.checks import boolean, same_shape


def zero_outside(values: Tensor, mask: Tensor) -> Tensor:
    """`values` where `mask` is True, 0 elsewhere, whatever stood there.

    Apply it to inputs, not to results: the gradient of `exp(nan)` is nan even when it is multiplied by 0.
    """
    same_shape(values=values, mask=mask)
    boolean(mask=mask)
    return values.masked_fill(~mask, 0.0)


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of `values` where `mask` is True, a scalar."""
    return zero_outside(values, mask).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask` is True, a scalar. An empty mask gives 0."""
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance (divided by n - 1) of `values` where `mask` is True, a scalar. Fewer than two values give 0."""
    values = zero_outside(values, mask)
    return masked_sum((values - masked_mean(values, mask)).square(), mask) / (mask.sum() - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """`values` scaled to variance 1, and to mean 0 if `shift_mean`, both over the mask; 0 outside it.

    Without `shift_mean` the mean stays what it was, as in `whiten` of Ziegler et al. (2019, arXiv 1909.08593), who use
    it so for rewards. A constant input has no scale: it gives 0, or its mean.
    """
    values = zero_outside(values, mask)
    mean = masked_mean(values, mask)
    white = (values - mean) * torch.rsqrt(masked_var(values, mask) + 1e-8)
    return zero_outside(white if shift_mean else white + mean, mask)
