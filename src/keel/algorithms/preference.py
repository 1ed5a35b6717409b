"""Direct preference optimisation: comparisons move the policy itself (Rafailov et al. 2023; Azar et al. 2023).

h     = log pi/ref of response a - log pi/ref of response b, each summed over the response's tokens
loss  sigmoid: cross-entropy of sigmoid(beta · h - margin) against the probability that a is better (a tie is 0.5)
      ipo:     p · (h - 1/2beta)² + (1 - p) · (h + 1/2beta)²
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keel.algorithms.settings import DPOConfig
from keel.batch.pack import pack
from keel.batch.types import PreferenceBatch
from keel.functional import preference_losses
from keel.models.packed import token_logprobs
from keel.train.step import LossTerms


@dataclass
class DPO:
    """Both responses of a pair share their prompt in one forward pass; the reference has spoken before training."""

    policy: nn.Module
    config: DPOConfig

    def prepare(self, batch: PreferenceBatch) -> PreferenceBatch:
        return batch

    def loss(self, rows: PreferenceBatch) -> LossTerms:
        logprobs = rows.sum_per_response(token_logprobs(self.policy, pack(rows))[0])
        losses = pair_losses(self.config, logprobs - rows.sequence_ref_logprobs, rows)
        return LossTerms(
            total=(rows.weight * losses).sum(),
            count=rows.weight.sum(),
            figure_count=(rows.preference != 0.5).sum(),
            sums=pair_figures(self.config.beta, logprobs.detach(), rows),
        )


def pair_losses(config: DPOConfig, log_ratios: Tensor, rows: PreferenceBatch) -> Tensor:
    """[P] unweighted losses, from the log-ratios [S] of whole responses."""
    a, b = log_ratios[0::2], log_ratios[1::2]

    def losses(target: Tensor) -> Tensor:
        if config.loss == "ipo":
            smoothed = target * (1 - 2 * config.label_smoothing) + config.label_smoothing
            return preference_losses.ipo(a, b, smoothed, config.beta)
        return preference_losses.dpo(a, b, target, config.beta, rows.margin, config.label_smoothing)

    return preference_losses.without_noise(losses, rows.preference, config.label_noise)


def pair_figures(beta: float, logprobs: Tensor, rows: PreferenceBatch) -> dict[str, Tensor]:
    """What every update on comparisons reports, as sums over the decided pairs; `logprobs` [S] are of responses.

    The implied reward of a response is beta · log pi/ref. Its preferred side is `chosen`, whichever came first.
    """
    sign = torch.sign(rows.preference - 0.5)

    def lead(values: Tensor) -> Tensor:
        return sign * (values[0::2] - values[1::2])

    def side(values: Tensor, chosen: int) -> Tensor:
        return torch.where((sign > 0) == bool(chosen), values[0::2], values[1::2])[sign != 0].sum()

    log_ratios = logprobs - rows.sequence_ref_logprobs
    return {
        "accuracy": (torch.sign(lead(log_ratios)[sign != 0]) + 1).sum() / 2,  # a pair without a lead is half right
        "reward_margin": beta * lead(log_ratios).sum(),
        "chosen_logprob": side(logprobs, 1),
        "rejected_logprob": side(logprobs, 0),
        "chosen_log_ratio": side(log_ratios, 1),
        "rejected_log_ratio": side(log_ratios, 0),
    }
