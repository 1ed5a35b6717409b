"""Losses on judged responses, in pairs or one by one, element by element; the caller weighs, sums and divides."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

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


def dpo(
    log_ratio_a: Tensor,
    log_ratio_b: Tensor,
    preference: Tensor,
    beta: float,
    margin: Tensor | float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Bradley-Terry on the rewards that a policy implies, beta · log policy / ref of the whole response, [P].

    Rafailov et al. 2023, arXiv 2305.18290, eq. 7, with soft targets. log_ratio_a and log_ratio_b [P] are *sums* over a
    response's tokens: means are another loss with another optimum. `preference`, `margin` (as the offset of Amini et
    al. 2024, arXiv 2402.10571) and `label_smoothing` (cDPO, Mitchell 2023) are those of `bradley_terry`. The gradient
    by log_ratio_a is beta · (sigmoid(beta · lead) - preference).
    """
    return bradley_terry(beta * log_ratio_a, beta * log_ratio_b, preference, margin, label_smoothing)


def ipo(log_ratio_a: Tensor, log_ratio_b: Tensor, preference: Tensor, beta: float) -> Tensor:
    """Squared distance of the lead log_ratio_a - log_ratio_b from ± 1 / (2 beta), [P] in float32 or wider.

    Azar et al. 2023, arXiv 2310.12036, eq. 17 with tau = beta; soft targets weigh the two signs, so that the minimum of
    a pair lies at (2 preference - 1) / (2 beta), finite however sure the raters are. Log-ratios are sums over tokens,
    as in the paper.
    """
    same_shape(log_ratio_a=log_ratio_a, log_ratio_b=log_ratio_b, preference=preference)
    dtype = torch.promote_types(log_ratio_a.dtype, torch.float32)
    preference, lead = preference.to(dtype), log_ratio_a.to(dtype) - log_ratio_b.to(dtype)
    wanted = 1.0 / (2.0 * beta)
    return preference * (lead - wanted).square() + (1.0 - preference) * (lead + wanted).square()


def without_noise(loss: Callable[[Tensor], Tensor], preference: Tensor, flipped: float) -> Tensor:
    """An unbiased estimate of the clean `loss` [P] of targets [P] when a share `flipped` of the labels is wrong.

    Robust DPO (Chowdhury et al. 2024, arXiv 2403.00409, eq. 12): ((1 - e) loss(p) - e loss(1 - p)) / (1 - 2e), margins
    turned round with the label. It may be negative.
    """
    if not 0.0 <= flipped < 0.5:
        raise ValueError(f"flipped must be in [0, 0.5), found {flipped}")
    if flipped == 0.0:
        return loss(preference)
    return ((1.0 - flipped) * loss(preference) - flipped * loss(1.0 - preference)) / (1.0 - 2.0 * flipped)


def simpo(
    mean_a: Tensor,
    mean_b: Tensor,
    preference: Tensor,
    beta: float,
    gamma: float,
    margin: Tensor | float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Bradley-Terry on the rewards beta · mean log-probability of a response's tokens, without a reference, [P].

    Meng et al. 2024, arXiv 2405.14734, eq. 6: the better reward should lead by gamma. With soft targets it should lead
    by gamma · |2 preference - 1| (a tie by nothing), added to `margin`, the data's own. mean_a and mean_b [P] are means
    over the tokens of a response. The rest as in `bradley_terry`.
    """
    wanted = gamma * (2.0 * preference - 1.0).abs() + margin
    return bradley_terry(beta * mean_a, beta * mean_b, preference, wanted, label_smoothing)


CERTAIN = -1e-9
"""Mean log-probabilities nearer to 0 than this count as this: their odds are finite and have no gradient."""


def log_odds(mean: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean), in float32 or wider; `mean` <= 0 is a mean log-probability of any shape.

    Hong et al. 2024, arXiv 2403.07691, eq. 4. 1 - p comes from expm1, so that nothing is lost as p nears 1.
    """
    mean = mean.to(torch.promote_types(mean.dtype, torch.float32)).clamp(max=CERTAIN)
    return mean - torch.log(-torch.expm1(mean))


def orpo(mean_a: Tensor, mean_b: Tensor, preference: Tensor, odds_weight: float) -> Tensor:
    """Negative mean log-probability of the better response + odds_weight · -log sigmoid(log odds ratio), [P].

    Hong et al. 2024, arXiv 2403.07691, eq. 6 and 7, linear in `preference`: both responses are imitated by the
    probability that they are better, so a tie imitates both by half and draws their odds together. mean_a and mean_b
    [P] are means over the tokens of a response.
    """
    same_shape(mean_a=mean_a, mean_b=mean_b, preference=preference)
    opposite = 1.0 - preference
    imitation = -(preference * mean_a + opposite * mean_b)
    ratio = log_odds(mean_a) - log_odds(mean_b)
    # Near certainty the odds are steep and the sigmoid is flat: their product is only right from exact factors.
    return imitation - odds_weight * (preference * logsigmoid(ratio) + opposite * logsigmoid(-ratio))


def kto(
    log_ratio: Tensor,
    desirable: Tensor,
    reference_point: Tensor | float,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """What is missing of the value of one rated response, [N] in float32 or wider.

    Ethayarajh et al. 2024, arXiv 2402.01306, sec. 4.1: w_D (1 - sigmoid(beta (log_ratio - z0))) for a desirable
    response, w_U (1 - sigmoid(beta (z0 - log_ratio))) for another, z0 the `reference_point`, which gets no gradient.

    log_ratio  [N] log policy / ref, *summed* over the response's tokens.
    desirable  [N] in [0, 1], the probability that the response is a good one; the loss is linear in it. At 0.5 and
               equal weights it is constant: who cannot say has no say.
    """
    same_shape(log_ratio=log_ratio, desirable=desirable)
    dtype = torch.promote_types(log_ratio.dtype, torch.float32)
    reference_point = torch.as_tensor(reference_point, dtype=dtype, device=log_ratio.device).detach()
    above = beta * (log_ratio.to(dtype) - reference_point)
    missing = desirable_weight * desirable * torch.sigmoid(-above)
    return missing + undesirable_weight * (1.0 - desirable) * torch.sigmoid(above)
