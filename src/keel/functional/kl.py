"""How far a policy is from its reference, in nats.

Estimators look at sampled tokens only: `logprobs` under the policy that drew them, `ref_logprobs` under the reference,
at the same temperature. All are element by element and never clamped: k3 clamped at 10 reports 4.9 nats where there are
5.3.

As a *report*, k1 and k3 are unbiased and k2 is not. As a *penalty*, what decides is where the estimator stands, because
the gradient of an estimate is not an estimate of the gradient ("A Comedy of Estimators", arXiv 2512.21852):

    k1 in the reward    gradient of KL(policy || ref)    optimum ref * exp(reward / coef)
    k2 in the loss      gradient of KL(policy || ref)    the same for one token; it does not look beyond its own
    k3 in the loss      gradient of KL(ref || policy)    another one: coef * ref / (lambda - reward)
    k1 in the loss      zero on average                  none: there is no penalty
"""

import torch
from torch import Tensor

from keel.functional.checks import same_shape


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """The log-ratio log(policy / ref): unbiased, of either sign (Schulman, "Approximating KL divergence", 2020)."""
    same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    return logprobs - ref_logprobs


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Half the squared log-ratio: never negative, biased, with the gradient of KL(policy || ref) (Schulman 2020)."""
    return kl_k1(logprobs, ref_logprobs).square() / 2


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """The ratio ref / policy, minus 1, minus its log: unbiased and never negative (Schulman 2020).

    Its variance is below k1's only while KL is under about 1 nat. Its gradient is that of KL(ref || policy).
    """
    log_ratio = -kl_k1(logprobs, ref_logprobs)
    return torch.expm1(log_ratio) - log_ratio


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL(policy || ref) of whole distributions, [..., V] -> [...]. Logits need not be normalised."""
    same_shape(logits=logits, ref_logits=ref_logits)
    logprobs, ref_logprobs = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    return (logprobs.exp() * (logprobs - ref_logprobs)).sum(-1)


def adaptive_coefficient(
    coef: float,
    kl: float,
    target: float,
    horizon: float,
    num_episodes: int,
    low: float = 0.0,
    high: float = float("inf"),
) -> float:
    """The KL coefficient after `num_episodes` more responses, kept within [low, high].

    coef * (1 + e * num_episodes / horizon) with e = clip(kl / target - 1, -0.2, 0.2) (Ziegler et al. 2019,
    arXiv 1909.08593, section 2.2, and `AdaptiveKLController` in their code). `kl` and `target` are nats per sequence,
    `horizon` counts episodes, that is responses: neither tokens nor optimiser steps.
    """
    if target <= 0 or horizon <= 0:
        raise ValueError(
            f"target and horizon must be positive, found target {target} nats and horizon {horizon} episodes"
        )
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return min(max(coef * (1.0 + error * num_episodes / horizon), low), high)
