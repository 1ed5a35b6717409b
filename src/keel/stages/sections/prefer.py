"""Settings of training on judgments without a reward model. No torch here: the command line reads it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from keel.algorithms.settings import DPOConfig, IPOConfig, KTOConfig, ORPOConfig, PairConfig, SimPOConfig
from keel.core.config import Config
from keel.models.settings import LoraConfig
from keel.stages.sections.data import DataSection
from keel.stages.sections.labels import Labels
from keel.train.settings import OptimConfig


class PreferOptimConfig(OptimConfig):
    """The optimiser of prefer. Customary rates: 5e-7 to 1e-6 full, 5e-6 to 5e-5 with LoRA."""

    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate of adamw."""


ALGORITHMS = ("dpo", "ipo", "simpo", "orpo", "kto")
WITHOUT_REFERENCE = ("simpo", "orpo")


class PreferConfig(Config):
    """Train the policy on judgments directly, without a reward model."""

    algorithm: Literal["dpo", "ipo", "simpo", "orpo", "kto"] = "dpo"
    """dpo and ipo learn from comparisons beside a reference, simpo and orpo without one, kto from thumbs up and down
    (data.ratings, or comparisons taken apart)."""
    pairs: Literal["data", "fresh"] = "data"
    """What it learns from first: data takes the comparisons of the data section, or rounds.first_comparisons; fresh
    samples rounds.comparisons pairs from the policy as it is then, after ppo where there is one, and asks
    rounds.judge."""
    epochs: int = Field(1, ge=1)
    """Passes over the comparisons or ratings."""
    batch: int = Field(32, ge=1)
    """Comparisons or ratings per optimiser step."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass."""
    labels: Labels = "given"
    """Where a comparison has votes: keep its preference, or derive it from the votes (share gives soft targets)."""
    dpo: DPOConfig = DPOConfig()
    """Used when algorithm is dpo."""
    ipo: IPOConfig = IPOConfig()
    """Used when algorithm is ipo."""
    simpo: SimPOConfig = SimPOConfig()
    """Used when algorithm is simpo."""
    orpo: ORPOConfig = ORPOConfig()
    """Used when algorithm is orpo."""
    kto: KTOConfig = KTOConfig()
    """Used when algorithm is kto."""
    lora: LoraConfig | None = None
    """Adapters instead of full fine-tuning."""
    evaluate_every: int = Field(50, ge=1)
    """Steps between evaluations on held-out comparisons; one follows the last step."""
    patience: int | None = Field(None, ge=1)
    """Stops after this many evaluations without a lower held-out loss; null takes all steps."""
    keep: Literal["best", "last"] = "best"
    """Which weights become the policy: those of the lowest held-out loss, or the last."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest response, of fresh pairs and when the policy is compared with SFT."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of fresh pairs."""
    optim: PreferOptimConfig = PreferOptimConfig()
    """Optimiser. Customary rates: 5e-7 to 1e-6 full, 5e-6 to 5e-5 with LoRA; small models need far higher ones."""

    @model_validator(mode="after")
    def _enough_for_z0(self) -> Self:
        if self.algorithm == "kto" and self.batch < 2:
            raise ValueError(
                f"batch={self.batch}: kto measures every rating from the mean KL of its batch, and one response is no "
                "mean. Take 8 or more"
            )
        return self

    @property
    def method(self) -> PairConfig | KTOConfig:
        """The settings of the algorithm."""
        return getattr(self, self.algorithm)

    @property
    def has_reference(self) -> bool:
        """Whether the method measures the policy from where it began."""
        return self.algorithm not in WITHOUT_REFERENCE


def learns_from_ratings(prefer: PreferConfig | None, data: DataSection) -> bool:
    """Whether data.ratings is what is learned from: by KTO, where they are there."""
    reads = prefer is not None and prefer.algorithm == "kto" and prefer.pairs == "data"
    return reads and data.ratings is not None


def wanting(algorithm: str, *, rated: bool) -> str:
    """What to say to a recipe whose prefer section has nothing to learn from."""
    if algorithm == "kto":
        return "prefer with algorithm kto needs data.ratings (thumbs up or down) or data.comparisons"
    if rated:
        return (
            f"prefer with algorithm {algorithm} learns from data.comparisons, and there are only data.ratings (thumbs "
            "up or down), which kto learns from. Set prefer.algorithm: kto, or give data.comparisons"
        )
    return (
        "prefer needs data.comparisons (or rounds.first_comparisons, feedback.comparisons for an AI judge, or "
        "prefer.pairs: fresh)"
    )
