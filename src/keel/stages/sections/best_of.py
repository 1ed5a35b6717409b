"""Settings of best-of-n sampling and of fine-tuning on what it picks. No torch here: the command line reads it."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config
from keel.stages.sections.rewards import RewardPart, RewardParts
from keel.stages.sections.sft import SFTConfig, SFTOptimConfig


class BestOfOptimConfig(SFTOptimConfig):
    """The optimiser of fine-tuning on the best responses. Customary rates: those of SFT, or a little lower."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate of adamw."""


class BestOfTrainConfig(SFTConfig):
    """Fine-tuning on the best responses, each round; sft's own settings with fewer epochs."""

    epochs: int = Field(1, ge=1)
    """Passes over the demonstrations, at most."""
    optim: BestOfOptimConfig = BestOfOptimConfig()
    """Optimiser. Customary rates: 1e-5 full, 1e-4 with LoRA; small models need far higher ones."""


class BestOfConfig(Config):
    """Sample n responses a prompt and take the one that the rewards like best."""

    algorithm: Literal["best_of_n", "rejection"] = "best_of_n"
    """best_of_n trains nothing: it compares best-of-n sampling of the SFT policy with the SFT policy. rejection
    fine-tunes the policy on the best responses (rejection sampling, RAFT)."""
    n: int = Field(8, ge=2)
    """Responses sampled for each prompt."""
    rewards: RewardParts = (RewardPart(name="reward_model", model="stage"),)
    """Who says which is best; a weighted sum. Left out: ppo.rewards, where there is such a section."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of rejection; best_of_n is compared at evaluate.temperature."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    prompts: int = Field(512, ge=1)
    """Prompts sampled in a round of rejection."""
    rounds: int = Field(1, ge=1)
    """Rounds of rejection: sample from the policy as it is, keep the best, fine-tune on them."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the prompts whose best response is trained on: those with the highest scores."""
    threshold: float | None = None
    """Lowest score, in the rewards' own unit, of a response that is trained on; null keeps whatever is best."""
    unfinished: Literal["drop", "keep"] = "drop"
    """A response cut off by max_new_tokens would teach to stop there, so none is trained on; keep trains on them."""
    train: BestOfTrainConfig = BestOfTrainConfig()
    """How the policy is fine-tuned on the best responses."""
