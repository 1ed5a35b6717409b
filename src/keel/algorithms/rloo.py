"""REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024).

prepare   return of a response = score - kl_coef · sum of k(pi, ref) over its tokens
          advantage = that minus the mean of the prompt's other responses
loss      max(-A · ratio, -A · clip(ratio)) summed over a response's tokens, mean over responses
"""

from dataclasses import dataclass

import torch
from torch import nn

from keel.algorithms.grouped import clipped_terms, returns
from keel.algorithms.ppo import KLPenalty
from keel.algorithms.settings import RLOOConfig
from keel.batch.types import Experience, Rollout, widen
from keel.functional.advantages import leave_one_out
from keel.train.step import LossTerms


@dataclass
class RLOO:
    """A policy and its own samples as baseline."""

    policy: nn.Module
    config: RLOOConfig
    kl: KLPenalty
    temperature: float = 1.0

    def prepare(self, rollout: Rollout) -> Experience:
        advantages = leave_one_out(returns(rollout, self.kl), rollout.fanout)
        return widen(rollout, Experience, advantages=advantages[rollout.response_of_token])

    def loss(self, rows: Experience) -> LossTerms:
        responses = rows.response_lengths.new_tensor(rows.num_responses, dtype=torch.int64)
        return clipped_terms(self.policy, rows, self.config, self.kl, self.temperature, count=responses)
