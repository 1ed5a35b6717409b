"""Losses on judged pairs, element by element; the caller weighs, sums and divides."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from keel.functional.checks import same_shape


def bradley_terry(
    score_a: Tensor, score_b: Tensor, preference: Tensor, margin: Tensor | float = 0.0, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of sigmoid(score_a - score_b) against the probability that a is better, [P] in float32 or wider.

    Bradley and Terry 1952; as a reward model's loss Stiennon et al. 2020, arXiv 2009.01325, sec. 3.4, here with soft
    targets.

    preference       [P] in [0, 1]: 1 a is better, 0 b is, 0.5 a tie, vote shares between. A tie's gradient is zero at
                     equal scores, and pulls unequal ones together.
    margin           [P] or a number >= 0: by how much the preferred score should lead (Llama 2, arXiv 2307.09288,
                     eq. 2). Ties have none.
    label_smoothing  in [0, 0.5): the target moves by this share of the way to its opposite. It shrinks scores; it does
                     not correct for wrong labels.

    Scores may be float16 or bfloat16 of any size: the loss is linear in a lost pair's difference and never overflows.
    """
    same_shape(score_a=score_a, score_b=score_b, preference=preference)
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), found {label_smoothing}")
    dtype = torch.promote_types(score_a.dtype, torch.float32)
    preference = preference.to(dtype)
    lead = score_a.to(dtype) - score_b.to(dtype) - margin * torch.sign(2.0 * preference - 1.0)
    target = preference * (1.0 - 2.0 * label_smoothing) + label_smoothing
    return binary_cross_entropy_with_logits(lead, target, reduction="none")
