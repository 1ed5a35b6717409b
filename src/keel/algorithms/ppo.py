"""Proximal policy optimisation for language models (Schulman et al. 2017; Ziegler et al. 2019).

prepare   reward_t = -kl_coef · k(pi, ref)_t + [t is the last token] · score
          advantages, returns = GAE(reward, values; gamma, lam);  whiten the advantages
loss      max(-A · ratio, -A · clip(ratio))  +  value_coef · ½ max((v - R)², (v_clipped - R)²)  -  entropy_coef · H
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keel.algorithms.settings import KLConfig, PPOConfig
from keel.batch.pack import pack
from keel.batch.types import CriticExperience, CriticRollout, Rollout, widen
from keel.functional.advantages import gae
from keel.functional.kl import adaptive_coefficient, kl_k1, kl_k2, kl_k3
from keel.functional.masking import whiten
from keel.functional.policy_losses import clipped_surrogate, clipped_value_loss
from keel.models.critic import Critic
from keel.models.packed import hidden_before, logprobs_and_entropy
from keel.train.step import LossTerms

ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


@dataclass
class KLPenalty:
    """The KL coefficient as it is now, and where its penalty acts."""

    config: KLConfig
    coefficient: float

    def in_reward(self, rollout: Rollout) -> Tensor:
        """[R] penalty per response token of the reward; 0 when the penalty acts in the loss."""
        if self.config.placement == "loss":
            return torch.zeros_like(rollout.logprobs)
        penalty = ESTIMATORS[self.config.estimator](rollout.logprobs, rollout.ref_logprobs)
        return -self.coefficient * penalty.masked_fill(~rollout.response_mask, 0)

    def in_loss(self, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
        """[R] penalty per response token of the loss; 0 when the penalty acts in the reward."""
        if self.config.placement == "reward":
            return torch.zeros_like(logprobs)
        return self.coefficient * ESTIMATORS[self.config.estimator](logprobs, ref_logprobs)

    def observe(self, kl_nats_per_sequence: float, episodes: int) -> None:
        """Steer the coefficient after a rollout of `episodes` responses."""
        c = self.config
        if c.controller == "adaptive":
            self.coefficient = adaptive_coefficient(
                self.coefficient, kl_nats_per_sequence, c.target, c.horizon, episodes, c.low, c.high
            )


@dataclass
class PPO:
    """A policy, a critic, clipped updates."""

    policy: nn.Module
    critic: Critic
    config: PPOConfig
    kl: KLPenalty
    temperature: float = 1.0

    def prepare(self, rollout: CriticRollout) -> CriticExperience:
        c = self.config
        mask = rollout.padded(rollout.response_mask.float()).bool()
        rewards = rollout.padded(self.kl.in_reward(rollout)) + at_last_token(rollout, rollout.scores)
        if c.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = gae(rewards, rollout.padded(rollout.values), mask, c.gamma, c.lam)
        if c.whiten_advantages:
            advantages = whiten(advantages, mask)
        return widen(rollout, CriticExperience, advantages=rollout.flat(advantages), returns=rollout.flat(returns))

    def loss(self, rows: CriticExperience) -> LossTerms:
        c, kept, packed = self.config, rows.response_mask, pack(rows)
        hidden = hidden_before(self.policy, packed)
        logprobs, entropy = logprobs_and_entropy(self.policy, packed, temperature=self.temperature, hidden=hidden)
        # Only tokens that count go on, so that nothing elsewhere, not even nan, can reach a gradient.
        logprobs, entropy, values = logprobs[kept], entropy[kept], self.critic.values(packed, hidden)[kept]
        old, returns = rows.logprobs[kept], rows.returns[kept]
        surrogate = clipped_surrogate(logprobs, old, rows.advantages[kept], c.clip_low, c.clip_high)
        value_loss = clipped_value_loss(values, rows.values[kept], returns, c.value_clip)
        penalty = self.kl.in_loss(logprobs, rows.ref_logprobs[kept])
        return LossTerms(
            total=(surrogate + c.value_coef * value_loss + penalty - c.entropy_coef * entropy).sum(),
            count=kept.sum(),
            sums={
                **policy_figures(logprobs, old, entropy, surrogate, c.clip_low, c.clip_high),
                "value_loss": value_loss.detach().sum(),
                "value_error": (values.detach() - returns).square().sum(),
                "return": returns.sum(),
                "return_squared": returns.square().sum(),
            },
            maxima={"log_ratio_max": (logprobs.detach() - old).abs().max()},
        )


def at_last_token(rollout: Rollout, scores: Tensor) -> Tensor:
    """[S, T] zero but for each response's score [S] at its last token."""
    index, _ = rollout.padded_index()
    return torch.where(index == rollout.response_lengths[:, None] - 1, scores[:, None], 0.0)


def policy_figures(
    logprobs: Tensor, old: Tensor, entropy: Tensor, surrogate: Tensor, clip_low: float, clip_high: float
) -> dict[str, Tensor]:
    """What every clipped policy update reports, as sums over the tokens given; all are [K]."""
    log_ratio = logprobs.detach() - old
    ratio = log_ratio.exp()
    return {
        "policy_loss": surrogate.detach().sum(),
        "entropy_nats": entropy.detach().sum(),
        # k2: k3's exponential lets a single token end an update.
        "approx_kl": kl_k2(log_ratio, torch.zeros_like(log_ratio)).sum(),
        "clip_fraction": ((ratio > 1 + clip_high) | (ratio < 1 - clip_low)).sum(),
    }
