"""REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024).

prepare   return of a response = score - kl_coef · sum of k(pi, ref) over its tokens
          advantage = that minus the mean of the prompt's other responses
loss      max(-A · ratio, -A · clip(ratio)) summed over a response's tokens, mean over responses
"""

from dataclasses import dataclass

import torch
from torch import nn

from keel.algorithms.ppo import KLPenalty, policy_figures
from keel.algorithms.settings import RLOOConfig
from keel.batch.pack import pack
from keel.batch.types import Experience, Rollout, widen
from keel.functional.advantages import leave_one_out
from keel.functional.policy_losses import clipped_surrogate
from keel.models.packed import logprobs_and_entropy
from keel.train.step import LossTerms, Metrics


@dataclass
class RLOO:
    """A policy and its own samples as baseline."""

    policy: nn.Module
    config: RLOOConfig
    kl: KLPenalty
    temperature: float = 1.0

    def prepare(self, rollout: Rollout) -> Experience:
        totals = rollout.scores + rollout.sum_per_response(self.kl.in_reward(rollout))
        advantages = leave_one_out(totals, rollout.fanout)
        return widen(rollout, Experience, advantages=advantages[rollout.response_of_token])

    def loss(self, rows: Experience) -> LossTerms:
        c, kept = self.config, rows.response_mask
        logprobs, entropy = logprobs_and_entropy(self.policy, pack(rows), temperature=self.temperature)
        # Only tokens that count go on, so that nothing elsewhere, not even nan, can reach a gradient.
        logprobs, entropy, old = logprobs[kept], entropy[kept], rows.logprobs[kept]
        surrogate = clipped_surrogate(logprobs, old, rows.advantages[kept], c.clip_low, c.clip_high)
        penalty = self.kl.in_loss(logprobs, rows.ref_logprobs[kept])
        return LossTerms(
            total=(surrogate + penalty - c.entropy_coef * entropy).sum(),
            count=kept.new_tensor(rows.num_responses, dtype=torch.int64),
            sums=policy_figures(logprobs, old, entropy, surrogate, c.clip_low, c.clip_high),
            figure_count=kept.sum(),
            maxima={"log_ratio_max": (logprobs.detach() - old).abs().max()},
        )

    def enough(self, metrics: Metrics) -> bool:
        """True when this update has moved the policy far enough from the one that sampled."""
        return self.config.stop_at_kl is not None and metrics["approx_kl"] > self.config.stop_at_kl
