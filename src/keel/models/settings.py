"""Settings of models and adapters. No torch here: the command line reads them."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config


class ModelConfig(Config):
    """The causal language model that a recipe starts from."""

    path: str
    """A local folder in transformers' format, or a name on the Hugging Face hub."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations. float32 is exact and suits small models; bfloat16 halves the memory of
    weights that do not train and of activations. Weights that train keep their lower 16 bits in the optimiser."""
    quantise: Literal["4bit", "4bit-double"] | None = None
    """Holds the weights of linear layers in 4 bits (NF4, QLoRA, Dettmers et al. 2023) and computes in dtype; only
    adapters are trained, so every stage needs lora, and bitsandbytes must be installed. 4bit-double quantises the
    scales too: 4.13 instead of 4.5 bits a weight."""
    gradient_checkpointing: bool = False
    """Keeps only the input of each layer and computes the rest again in the backward pass: the same gradients from far
    less memory, for about a quarter more time."""
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
    """Share of the adapters' inputs that is dropped in training, by sft and reward. prefer and ppo refuse it: their
    first step must be neutral."""
    last_layers: int | None = Field(None, ge=1)
    """How many of the last layers are adapted; null adapts all. In RL the layers below then run once a rollout, for all
    roles and epochs (ppo.layout: one_trunk)."""
    targets: Literal["all-linear", "attention"] | tuple[str, ...] = "all-linear"
    """Which layers are adapted: all linear layers but the output layer, those of the attention, or names of modules.
    Experts of a mixture that are held in one tensor are no linear layers and stay as they are."""
