"""Settings of models and adapters. No torch here: the command line reads them."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config


class ModelConfig(Config):
    """The causal language model that a recipe starts from."""

    path: str
    """A local folder in transformers' format, or a name on the Hugging Face hub."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations. float32 is exact and suits small models; bfloat16 halves memory and
    needs LoRA in every stage that trains, since its 8 bits lose small updates."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models live: auto takes the GPU when there is one."""
    chat_template: str | None = None
    """Jinja template for tokenizers that bring none: the text itself, or the path of a file that holds it."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run. Only for sources you trust."""


class LoraConfig(Config):
    """Low-rank adapters (Hu et al. 2021): a chosen weight W becomes W + alpha/rank · B A, with only A and B trained."""

    rank: int = Field(16, ge=1)
    """Rank of the update. More can learn more and costs memory in proportion."""
    alpha: float = Field(32.0, gt=0)
    """Scale of the update; alpha/rank multiplies it."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapters' inputs that is dropped in training. Keep 0 for RL, whose first ratio must be 1."""
    targets: Literal["all-linear", "attention"] | tuple[str, ...] = "all-linear"
    """Which layers are adapted: all linear layers but the output layer, those of the attention, or names of modules."""
