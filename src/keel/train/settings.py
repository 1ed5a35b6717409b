"""Settings of the optimiser and the loop. No torch here: the command line reads them."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config


class OptimConfig(Config):
    """How one optimiser step moves the weights."""

    name: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    """adamw everywhere; adamw8bit, the same with a quarter of the state (needs bitsandbytes); or muon for hidden
    matrices with adamw for the rest (best for small models from scratch)."""
    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate of adamw."""
    muon_learning_rate: float = Field(0.02, gt=0)
    """Peak learning rate of muon, for hidden matrices; ignored by adamw."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the mean of gradients."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of the mean of squared gradients."""
    eps: float = Field(1e-5, gt=0)
    """Adam's epsilon; 1e-5 is the value that PPO was tuned with (Huang et al. 2022)."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    warmup_share: float = Field(0.05, ge=0, le=1)
    """Share of all steps over which the rate climbs from zero."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Shape of the decline after the warm-up."""
    final_share: float = Field(0.1, ge=0, le=1)
    """What the rate has fallen to after the last step, as a share of the peak."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""


class CheckpointConfig(Config):
    """When a run saves what it needs to go on after an interruption."""

    every_seconds: float = Field(120.0, ge=0)
    """A resumable checkpoint is written when this long has passed since the last one; 0 writes one after every step."""


class ShapingConfig(Config):
    """From raw scores to what the policy is paid on its last token."""

    normalise: Literal["model", "running", "none"] = "model"
    """model uses the mean and spread stored with the reward model, running the statistics of this run so far."""
    clip: float | None = Field(5.0, gt=0)
    """Normalised scores are clipped to ± this; none with null."""
    length_penalty: float = Field(0.0, ge=0)
    """Subtracts length_penalty x tokens / max_new_tokens (source A uses 0.1)."""
    overlong_buffer: int = Field(0, ge=0)
    """Tokens before max_new_tokens over which a response is charged for its length: nothing at the first of them, the
    whole overlong_penalty at the last, in a straight line between (DAPO, arXiv 2503.14476); 0 charges nothing."""
    overlong_penalty: float = Field(1.0, ge=0)
    """Subtracted from a response as long as max_new_tokens, where there is an overlong_buffer."""
    missing_eos_penalty: float = Field(0.0, ge=0)
    """Subtracted when a response did not end by itself."""
    missing_eos_ceiling: float | None = -1.0
    """A response that did not end by itself earns at most this (before the subtraction); none with null."""
