"""Settings of training on comparisons without a reward model. No torch here: the command line reads it."""

from typing import Literal

from pydantic import Field

from keel.algorithms.settings import DPOConfig
from keel.core.config import Config
from keel.models.settings import LoraConfig
from keel.stages.sections.labels import Labels
from keel.train.settings import OptimConfig


class PreferOptimConfig(OptimConfig):
    """The optimiser of prefer. Customary rates: 5e-7 to 1e-6 full, 5e-6 to 5e-5 with LoRA."""

    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate of adamw."""


class PreferConfig(Config):
    """Train the policy on comparisons directly, without a reward model."""

    algorithm: Literal["dpo"] = "dpo"
    """dpo is direct preference optimisation; its own settings choose between its forms."""
    epochs: int = Field(1, ge=1)
    """Passes over the comparisons."""
    batch: int = Field(32, ge=1)
    """Comparisons per optimiser step."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    labels: Labels = "given"
    """Where a comparison has votes: keep its preference, or derive it from the votes (share gives soft targets)."""
    dpo: DPOConfig = DPOConfig()
    """Used when algorithm is dpo."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning."""
    evaluate_every: int = Field(50, ge=1)
    """Steps between evaluations on held-out comparisons; one follows the last step."""
    patience: int | None = Field(None, ge=1)
    """Stops after this many evaluations without a lower held-out loss; null takes all steps."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the policy: those of the lowest held-out loss, or the last."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response when the policy is compared with SFT."""
    optim: PreferOptimConfig = PreferOptimConfig()
    """Optimiser. Customary rates: 5e-7 to 1e-6 full, 5e-6 to 5e-5 with LoRA; small models need far higher ones."""
