"""REINFORCE++ (Hu et al. 2025, arXiv 2501.03262): PPO's update with the rollout itself in the place of a critic.

prepare   reward_t = -kl_coef · k(pi, ref)_t + [t is the last token] · score
          baseline prompt: the score less the mean of its prompt's scores
          advantage_t = sum of the rewards from t on, whitened over all tokens of the rollout
loss      max(-A · ratio, -A · clip(ratio)) + penalty where it acts in the loss, mean over tokens
"""

from dataclasses import dataclass

from torch import nn

from keel.algorithms.grouped import clipped_terms
from keel.algorithms.ppo import KLPenalty, at_last_token
from keel.algorithms.settings import ReinforcePPConfig
from keel.batch.types import Experience, Rollout, widen
from keel.functional.advantages import group_centred, reward_to_go
from keel.functional.masking import whiten
from keel.train.step import LossTerms


@dataclass
class ReinforcePP:
    """A policy whose samples are compared with all others of the rollout."""

    policy: nn.Module
    config: ReinforcePPConfig
    kl: KLPenalty
    temperature: float = 1.0

    def prepare(self, rollout: Rollout) -> Experience:
        scores, mask = rollout.scores, rollout.padded(rollout.response_mask.float()).bool()
        if self.config.baseline == "prompt":
            scores = group_centred(scores, rollout.fanout)
        rewards = rollout.padded(self.kl.in_reward(rollout)) + at_last_token(rollout, scores)
        advantages = whiten(reward_to_go(rewards, mask), mask)
        return widen(rollout, Experience, advantages=rollout.flat(advantages))

    def loss(self, rows: Experience) -> LossTerms:
        return clipped_terms(self.policy, rows, self.config, self.kl, self.temperature, count=rows.response_mask.sum())
