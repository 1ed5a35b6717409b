"""Settings of `keel sample`: prompts, the models that answer them, and which answers are put side by side. No torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from keel.core.config import Config
from keel.data.formats import DataConfig
from keel.models.settings import ModelConfig
from keel.stages.endpoint import EndpointConfig


class SourceConfig(Config):
    """One model that answers the prompts: a checkpoint here, or one served elsewhere."""

    name: str = Field(min_length=1)
    """Under which its answers are known; raters never see it."""
    checkpoint: ModelConfig | None = None
    """A model to load here. Its path may also be a run folder (its last policy) or an artifact of one."""
    endpoint: EndpointConfig | None = None
    """A model behind an OpenAI-compatible address."""
    temperature: float | None = Field(None, ge=0)
    """Sampling temperature of this model; null takes the common one."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.checkpoint is None) == (self.endpoint is None):
            raise ValueError("give exactly one of `checkpoint` and `endpoint`")
        return self


class SampleConfig(Config):
    """Candidate pairs for raters: prompts answered by one or several models, answers put side by side."""

    prompts: DataConfig
    """Where the prompts come from; anything that has prompts will do."""
    models: tuple[SourceConfig, ...] = Field(min_length=1)
    """Who answers."""
    side: Literal["all", "train", "held_out"] = "all"
    """Which prompts are answered, by the hash that also splits them for training (prompts.holdout): held_out for golden
    items and evaluation, train for what a reward model learns from."""
    samples: int = Field(2, ge=1)
    """Answers of each model to each prompt."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer, in tokens of the model that gives it."""
    max_tokens: int = Field(2048, ge=8)
    """Longest prompt plus answer of a checkpoint; longer prompts lose their left."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature. 0 gives the same answer each time."""
    within: int = Field(1, ge=0)
    """Pairs a prompt of two answers of the same model."""
    across: int = Field(1, ge=0)
    """Pairs a prompt for each two models, one answer of each."""
    too_similar: float = Field(0.9, gt=0, le=1)
    """Pairs whose answers share at least this part of their neighbouring words are dropped: nobody can tell them apart.
    1 drops only answers that differ in case and white space."""
    seed: int = 0
    """Every draw follows from it; served models are asked for a seed, which some ignore."""
    budget_usd: float | None = Field(None, gt=0)
    """Most that all endpoints together may cost, earlier runs into the same folder included. Needs their prices."""

    @model_validator(mode="after")
    def _makes_pairs(self) -> Self:
        names = [source.name for source in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"two models share a name: {', '.join(names)}. Give each its own")
        if not ((self.within and self.samples > 1) or (self.across and len(self.models) > 1)):
            raise ValueError(
                f"samples={self.samples}, within={self.within}, across={self.across} and {len(self.models)} model(s) "
                "make no pair: pairs within a model need samples of 2 or more, pairs across need two models"
            )
        unpriced = [s.name for s in self.models if s.endpoint is not None and not s.endpoint.priced]
        if self.budget_usd is not None and unpriced:
            raise ValueError(
                f"budget_usd needs usd_per_million_input_tokens and usd_per_million_output_tokens of {unpriced[0]}; "
                "0 is a price too"
            )
        return self

    def temperature_of(self, source: SourceConfig) -> float:
        return self.temperature if source.temperature is None else source.temperature
