"""Settings of reinforcement learning. No torch here: the command line reads it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from keel.algorithms.settings import (
    CriticFreeConfig,
    GRPOConfig,
    KLConfig,
    OnlineDPOConfig,
    PPOConfig,
    ReinforcePPConfig,
    RLOOConfig,
)
from keel.core.config import Config
from keel.models.settings import LoraConfig
from keel.stages.sections.rewards import RewardPart, RewardParts
from keel.train.settings import OptimConfig, ShapingConfig


class RLOptimConfig(OptimConfig):
    """The optimiser of RL."""

    warmup_share: float = Field(0.03, ge=0, le=1)
    """Share of all steps over which the rate climbs from zero."""


class RLConfig(Config):
    """Reinforcement learning on the reward."""

    algorithm: Literal["ppo", "rloo", "grpo", "reinforce_pp", "online_dpo"] = "ppo"
    """ppo has a critic and spends each rollout several times; rloo and grpo compare the samples of a prompt;
    reinforce_pp compares all samples of a rollout; online_dpo takes DPO's step on pairs of a prompt's samples."""
    updates: int = Field(100, ge=1)
    """Rollouts, each followed by its optimiser steps (per round, when there are rounds)."""
    prompts: int = Field(32, ge=1)
    """Prompts per rollout."""
    samples: int = Field(4, ge=1)
    """Responses per prompt."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature; log-probabilities are taken at the same one."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    kl: KLConfig = KLConfig()
    """Penalty towards the reference (the SFT policy). With algorithm grpo its preset is grpo where none is named; with
    online_dpo the coefficient is DPO's beta, and there is no other penalty."""
    shaping: ShapingConfig = ShapingConfig()
    """From scores to rewards."""
    rewards: RewardParts = (RewardPart(name="reward_model", model="stage"),)
    """What is maximised: a weighted sum."""
    ppo: PPOConfig = PPOConfig()
    """Used when algorithm is ppo."""
    rloo: RLOOConfig = RLOOConfig()
    """Used when algorithm is rloo."""
    grpo: GRPOConfig = GRPOConfig()
    """Used when algorithm is grpo."""
    reinforce_pp: ReinforcePPConfig = ReinforcePPConfig()
    """Used when algorithm is reinforce_pp."""
    online_dpo: OnlineDPOConfig = OnlineDPOConfig()
    """Used when algorithm is online_dpo."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning; the reference is then the same network with adapters off."""
    layout: Literal["separate", "one_trunk"] = "separate"
    """one_trunk holds the weights once for policy, reference, reward model and critic: an adapter for the policy, none
    for the reference, the reward model's own adapter, and a value head. It needs lora here and in reward; what
    lora.last_layers leaves untouched runs once a rollout. separate gives the roles networks of their own."""
    evaluate_every: int = Field(10, ge=1)
    """Updates between held-out evaluations."""
    evaluate_prompts: int = Field(128, ge=1)
    """Held-out prompts per evaluation."""
    patience: int | None = Field(None, ge=1)
    """Stops after this many evaluations without a better held-out reward; null runs all updates."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the policy: best held-out reward (score less KL cost), or the last."""
    optim: RLOptimConfig = RLOptimConfig()
    """Optimiser."""

    @model_validator(mode="before")
    @classmethod
    def _penalty_of_grpo(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("algorithm") != "grpo":
            return values
        kl = values.get("kl", {})
        return {**values, "kl": {"preset": "grpo", **kl}} if isinstance(kl, dict) else values

    @model_validator(mode="after")
    def _groups(self) -> Self:
        if self.compares_samples and self.samples < 2:
            raise ValueError(
                f"{self.algorithm} compares the samples of a prompt: samples={self.samples} must be 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _beta(self) -> Self:
        if self.algorithm != "online_dpo":
            return self
        if self.kl.initial == 0:
            raise ValueError("the beta of online_dpo is kl.initial, and it is 0. Set it above 0")
        if (self.kl.estimator, self.kl.placement) != ("k1", "reward"):
            raise ValueError(
                f"online_dpo holds the policy by its beta, kl.initial; there is no penalty that kl.estimator "
                f"{self.kl.estimator} in kl.placement {self.kl.placement} could be of. Leave both out"
            )
        return self

    @model_validator(mode="after")
    def _buffer(self) -> Self:
        if self.shaping.overlong_buffer > self.max_new_tokens:
            raise ValueError(
                f"shaping.overlong_buffer={self.shaping.overlong_buffer} is longer than a response may be, "
                f"max_new_tokens={self.max_new_tokens}"
            )
        return self

    @model_validator(mode="after")
    def _one_trunk(self) -> Self:
        if self.layout == "one_trunk" and self.lora is None:
            raise ValueError(
                "layout: one_trunk keeps the weights as they are and trains adapters on them. Set lora (`lora: {}` "
                "takes the defaults), or layout: separate"
            )
        if self.layout == "one_trunk" and "critic" in self.ppo.model_fields_set and self.ppo.critic == "separate":
            raise ValueError(
                "ppo.critic: separate and layout: one_trunk contradict each other: there the critic is a head on the "
                "policy. Leave ppo.critic out, or set layout: separate"
            )
        return self

    @property
    def critic_on_trunk(self) -> bool:
        """Whether the critic reads the policy's hidden states."""
        return self.layout == "one_trunk" or self.ppo.critic == "trunk"

    @property
    def method(self) -> PPOConfig | CriticFreeConfig:
        """The settings of the algorithm that is used."""
        return getattr(self, self.algorithm)

    @property
    def resample_tries(self) -> int:
        """How often an update may sample other prompts in place of those that teach nothing."""
        method = self.method
        return 0 if isinstance(method, PPOConfig) else method.resample_tries

    @property
    def compares_samples(self) -> bool:
        """Whether a response is worth what it is worth beside the others of its prompt."""
        return self.algorithm != "ppo" and not (
            self.algorithm == "reinforce_pp" and self.reinforce_pp.baseline == "rollout"
        )
