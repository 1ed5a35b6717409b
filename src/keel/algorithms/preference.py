"""Comparisons move the policy itself: DPO and IPO from a reference, SimPO and ORPO without one.

logp  = log pi of whole responses, summed over their tokens;  p = the probability that a is better (a tie is 0.5)
h     = log pi/ref of a - log pi/ref of b;  m = logp / tokens of the response

DPO   cross-entropy of sigmoid(beta · h - margin) against p                                    Rafailov et al. 2023
IPO   p · (h - 1/2beta)² + (1 - p) · (h + 1/2beta)²                                            Azar et al. 2023
SimPO cross-entropy of sigmoid(beta · (m_a - m_b) - gamma · (2p - 1)) against p                Meng et al. 2024
ORPO  - p · m_a - (1 - p) · m_b + odds_weight · cross-entropy of sigmoid(log odds_a - log odds_b) against p
      with odds = exp(m) / (1 - exp(m))                                                        Hong et al. 2024
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keel.algorithms.settings import DPOConfig, IPOConfig, ORPOConfig, PairConfig, SimPOConfig
from keel.batch.pack import pack
from keel.batch.types import PairBatch, PreferenceBatch
from keel.functional import preference_losses
from keel.models.packed import token_logprobs
from keel.train.step import LossTerms


@dataclass
class PairPreference:
    """Both responses of a pair share their prompt in one forward pass; a reference has spoken before training."""

    policy: nn.Module
    config: PairConfig

    def prepare(self, batch: PairBatch) -> PairBatch:
        return batch

    def loss(self, rows: PairBatch) -> LossTerms:
        return self.terms(rows.sum_per_response(token_logprobs(self.policy, pack(rows))[0]), rows)

    def terms(self, logprobs: Tensor, rows: PairBatch) -> LossTerms:
        """The loss of pairs whose responses have these log-probabilities [S]."""
        compared = what_is_compared(self.config, logprobs, rows)
        losses = pair_losses(self.config, compared, rows)
        return LossTerms(
            total=(rows.weight * losses).sum(),
            count=rows.weight.sum(),
            figure_count=(rows.preference != 0.5).sum(),
            sums=pair_figures(implied_rewards(self.config, compared.detach()), logprobs.detach(), rows),
        )

    def rewards(self, logprobs: Tensor, rows: PairBatch) -> Tensor:
        """[S] the rewards that the policy implies."""
        return implied_rewards(self.config, what_is_compared(self.config, logprobs, rows))


def what_is_compared(config: PairConfig, logprobs: Tensor, rows: PairBatch) -> Tensor:
    """[S] log-ratios to the reference; means over the tokens where the method has none."""
    if isinstance(config, DPOConfig | IPOConfig):
        assert isinstance(rows, PreferenceBatch)
        return logprobs - rows.sequence_ref_logprobs
    return logprobs / rows.sum_per_response(torch.ones_like(rows.response_tokens, dtype=logprobs.dtype)).clamp(min=1)


def pair_losses(config: PairConfig, compared: Tensor, rows: PairBatch) -> Tensor:
    """[P] unweighted losses. `compared` [S]: log-ratios of whole responses (DPO, IPO), means over tokens (the others).

    The margins of the data count in DPO and SimPO, whose losses have a place for them.
    """
    a, b = compared[0::2], compared[1::2]
    if isinstance(config, ORPOConfig):
        return preference_losses.orpo(a, b, rows.preference, config.odds_weight)

    def losses(target: Tensor) -> Tensor:
        c = config
        if isinstance(c, IPOConfig):
            smoothed = target * (1 - 2 * c.label_smoothing) + c.label_smoothing
            return preference_losses.ipo(a, b, smoothed, c.beta)
        if isinstance(c, SimPOConfig):
            return preference_losses.simpo(a, b, target, c.beta, c.gamma, rows.margin, c.label_smoothing)
        return preference_losses.dpo(a, b, target, c.beta, rows.margin, c.label_smoothing)

    return preference_losses.without_noise(losses, rows.preference, config.label_noise)


def implied_rewards(config: PairConfig, compared: Tensor) -> Tensor:
    """[S] the reward that the policy implies: beta times what is compared; of ORPO the log-odds."""
    return preference_losses.log_odds(compared) if isinstance(config, ORPOConfig) else config.beta * compared


def pair_figures(rewards: Tensor, logprobs: Tensor, rows: PairBatch) -> dict[str, Tensor]:
    """What every update on comparisons reports, as sums over the decided pairs; `rewards` and `logprobs` are [S].

    The preferred side of a pair is `chosen`, whichever came first.
    """
    sign = torch.sign(rows.preference - 0.5)

    def side(values: Tensor, chosen: bool) -> Tensor:
        return torch.where((sign > 0) == chosen, values[0::2], values[1::2])[sign != 0].sum()

    lead = (sign * (rewards[0::2] - rewards[1::2]))[sign != 0]
    figures = {
        "accuracy": (torch.sign(lead) + 1).sum() / 2,  # a pair without a lead is half right
        "reward_margin": lead.sum(),
        "chosen_logprob": side(logprobs, True),
        "rejected_logprob": side(logprobs, False),
    }
    if isinstance(rows, PreferenceBatch):
        log_ratios = logprobs - rows.sequence_ref_logprobs
        figures["chosen_log_ratio"] = side(log_ratios, True)
        figures["rejected_log_ratio"] = side(log_ratios, False)
    return figures
