"""Losses on response tokens, element by element; the caller masks, sums and divides.

All tensors of a call have one shape, [B, T] or flat [R].
"""

import torch
from torch import Tensor

from keel.functional.checks import same_shape


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float = 0.2, clip_high: float = 0.2
) -> Tensor:
    """PPO's clipped objective, negated: max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), r = policy / old policy.

    Schulman et al. 2017, arXiv 1707.06347, eq. 7; a separate upper bound is DAPO's clip-higher (arXiv 2503.14476). The
    gradient is 0 where A > 0 and r > 1 + clip_high, and where A < 0 and r < 1 - clip_low. On the first pass r is 1 and
    the gradient is that of REINFORCE, -A grad log policy.
    """
    same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    ratio = torch.exp(logprobs - old_logprobs)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1.0 - clip_low, 1.0 + clip_high))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None = 0.2) -> Tensor:
    """Half the larger of the squared errors of the value and of the value kept within `clip` of its old self.

    Schulman's PPO code; "The 37 Implementation Details of PPO" (Huang et al. 2022), detail 9. `clip` is in units of
    reward; without one it is half the squared error.
    """
    same_shape(values=values, old_values=old_values, returns=returns)
    if clip is None:
        return (values - returns).square() / 2
    kept = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum((values - returns).square(), (kept - returns).square()) / 2
