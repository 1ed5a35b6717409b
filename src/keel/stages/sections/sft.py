"""Settings of supervised fine-tuning. No torch here: the command line reads it."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config
from keel.models.settings import LoraConfig
from keel.train.settings import OptimConfig


class SFTOptimConfig(OptimConfig):
    """The optimiser of SFT. Customary rates: 2e-5 full, 2e-4 with LoRA."""

    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate of adamw."""
    eps: float = Field(1e-8, gt=0)
    """Adam's epsilon; 1e-5 is the value that PPO was tuned with (Huang et al. 2022)."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Shape of the decline after the warm-up."""


class SFTConfig(Config):
    """Supervised fine-tuning on demonstrations, loss on the response only."""

    epochs: int = Field(3, ge=1)
    """Passes over the demonstrations, at most."""
    batch: int = Field(32, ge=1)
    """Demonstrations per optimiser step."""
    patience: int = Field(1, ge=1)
    """Training stops after this many epochs without a lower held-out perplexity; the best weights are kept."""
    min_improvement: float = Field(0.002, ge=0)
    """A fall in perplexity counts from this share on."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning."""
    optim: SFTOptimConfig = SFTOptimConfig()
    """Optimiser. Customary rates: 2e-5 full, 2e-4 with LoRA."""
