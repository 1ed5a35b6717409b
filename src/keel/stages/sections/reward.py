"""Settings of a reward model's training, and how votes become labels. No torch here: the command line reads it."""

from typing import Literal

from pydantic import Field

from keel.algorithms.settings import PairLossConfig
from keel.core.config import Config
from keel.models.settings import LoraConfig
from keel.stages.sections.labels import Labels
from keel.train.settings import OptimConfig


class RewardConfig(Config):
    """Reward model: Bradley-Terry on comparisons."""

    form: Literal["head", "implicit", "hybrid"] = "head"
    """head reads one score off the last token; implicit sums beta·log pi/ref over the response; hybrid adds both."""
    beta: float = Field(0.1, gt=0)
    """Weight of the implicit part."""
    epochs: int = Field(1, ge=1)
    """Passes over the comparisons."""
    batch: int = Field(32, ge=1)
    """Comparisons per optimiser step."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    members: int = Field(1, ge=1)
    """Models in the ensemble: own head, own data order."""
    aggregate: Literal["mean", "min", "mean_minus_std"] = "mean"
    """How an ensemble's normalised scores become one."""
    std_weight: float = Field(1.0, ge=0)
    """lambda of mean_minus_std."""
    freeze_embeddings: bool = True
    """Embeddings stay as the policy's."""
    base: str | None = None
    """Another model to start from; null starts from the SFT policy."""
    labels: Labels = "given"
    """Where a comparison has votes: keep its preference, or derive it from the votes (share gives soft targets)."""
    loss: PairLossConfig = PairLossConfig()
    """The pair loss."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning; merged when saved."""
    best_of: int = Field(16, ge=0)
    """Size n of the best-of-n check on held-out prompts before any RL; 0 skips it."""
    best_of_prompts: int = Field(64, ge=1)
    """Prompts of the best-of-n check."""
    optim: OptimConfig = OptimConfig()
    """Optimiser. Customary rates: 1e-5 full, 1e-4 with LoRA."""
