"""Group-relative policy optimisation (Shao et al. 2024) with the corrections of Dr. GRPO (Liu et al. 2025) and DAPO
(Yu et al. 2025).

prepare   return of a response = score (less the KL penalty of its tokens where that acts in the reward)
          advantage = (that - mean of the prompt's responses) / their deviation;    Dr. GRPO: without the deviation
loss      per token max(-A · ratio, -A · clip(ratio)) + kl_coef · k(pi, ref) where the penalty acts in the loss
          mean over a response's tokens, then over responses
          DAPO: mean over all tokens;    Dr. GRPO: sum over a response's tokens / longest response, mean over responses
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keel.algorithms.grouped import clipped_terms, returns
from keel.algorithms.ppo import KLPenalty
from keel.algorithms.settings import GRPOConfig
from keel.batch.types import Experience, Rollout, widen
from keel.functional.advantages import group_centred, group_normalised
from keel.train.step import LossTerms


@dataclass
class GRPO:
    """A policy whose samples are compared with the others of their prompt."""

    policy: nn.Module
    config: GRPOConfig
    kl: KLPenalty
    max_new_tokens: int
    """What `average: constant` divides by."""
    temperature: float = 1.0

    def prepare(self, rollout: Rollout) -> Experience:
        compare = group_normalised if self.config.scale == "std" else group_centred
        advantages = compare(returns(rollout, self.kl), rollout.fanout)
        return widen(rollout, Experience, advantages=advantages[rollout.response_of_token])

    def loss(self, rows: Experience) -> LossTerms:
        count = rows.response_lengths.new_tensor(rows.num_responses, dtype=torch.int64)
        if self.config.average == "tokens":
            count = rows.response_mask.sum()
        return clipped_terms(
            self.policy, rows, self.config, self.kl, self.temperature, count=count, weights=self._weights(rows)
        )

    def _weights(self, rows: Experience) -> Tensor | None:
        """[R] what a token counts beside those of other responses; None for all alike."""
        if self.config.average == "tokens":
            return None
        if self.config.average == "constant":
            return torch.full_like(rows.logprobs, 1 / self.max_new_tokens)
        lengths = rows.sum_per_response(torch.ones_like(rows.logprobs))
        return (1 / lengths.clamp(min=1))[rows.response_of_token]
