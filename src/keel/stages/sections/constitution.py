"""Settings of Constitutional AI and the file of its principles. No torch here: the command line reads it."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from keel.core.config import Config, digest, load_config, to_dict
from keel.core.errors import ConfigError
from keel.core.yaml_text import parse
from keel.stages.sections.feedback import ModelSource
from keel.stages.sections.sft import SFTConfig

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Principle(Config):
    """One rule, in the words of three requests."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    """Short name; with the version it says which rule caused a revision or a verdict."""
    version: int = Field(1, ge=1)
    """Raised by whoever changes the words."""
    critique: Text
    """Asks what is wrong with an answer."""
    revise: Text
    """Asks for a better one."""
    prefer: Text
    """Says which of two answers is better."""

    @property
    def name(self) -> str:
        return f"{self.id}@{self.version}"


class Constitution(Config):
    """Principles, in a file of their own."""

    name: Text = "constitution"
    """Shown in reports."""
    version: int = Field(1, ge=1)
    """Of the whole."""
    principles: tuple[Principle, ...]
    """At least one, each with an id of its own."""

    @property
    def identity(self) -> str:
        """Hash of every word."""
        return digest(to_dict(self))


def read_constitution(path: Path) -> Constitution:
    """The principles of a YAML or JSON file. ConfigError with file and line for whatever is wrong in it."""
    constitution = load_config(Constitution, path)
    lines = parse(path.read_text(encoding="utf-8-sig"), str(path)).lines
    if not constitution.principles:
        raise ConfigError(
            f"{path}, line {lines['principles',]}: a constitution without principles asks for nothing. Give at least "
            "one, with id, critique, revise and prefer."
        )
    first: dict[str, int] = {}
    for number, principle in enumerate(constitution.principles):
        line = lines["principles", number, "id"]
        if principle.id in first:
            raise ConfigError(
                f"{path}, line {line}: there is a principle {principle.id} already, on line {first[principle.id]}. "
                "Give each an id of its own; a changed principle keeps its id and gets a higher version."
            )
        first[principle.id] = line
    return constitution


class ConstitutionConfig(Config):
    """Answers are criticised and revised by principles, and the policy learns the revisions."""

    path: str
    """The file of principles."""
    critic: ModelSource | None = None
    """Who criticises and revises; null lets the policy do it itself. A function takes a list of
    `keel.stages.feedback.critics.Draft` and returns a critique and a revision for each."""
    prompts: int = Field(1000, ge=1)
    """Prompts that the policy answers and whose answers are revised."""
    rounds: int = Field(1, ge=1)
    """Critiques and revisions of each answer, one after the other; each by a principle that the seed draws."""
    preferences: Literal["one", "all"] = "one"
    """Principles that feedback judges a pair by: one that the seed draws, or all, whose probabilities are averaged."""
    replay: float = Field(0.0, ge=0)
    """Demonstrations of data.demonstrations mixed into the revisions, as a share of these."""
    holdout: float = Field(0.1, ge=0, lt=1)
    """Share of the revised prompts kept back to measure what is learned."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest draft, and longest response when the policy is compared with the one before."""
    critic_tokens: int = Field(256, ge=1)
    """Longest critique, and longest revision, of a model."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature of drafts, and of critiques and revisions by a model."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens per forward pass when the policy is compared with the one before."""
    sft: SFTConfig | None = None
    """How the policy learns the revisions; null takes the recipe's sft, or the defaults."""
    budget_usd: float | None = Field(None, gt=0)
    """Most that an endpoint may cost for critiques and revisions."""
    cache: str | None = None
    """File that keeps every critique and revision by the hash of what was asked; null keeps it in the run folder."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.critic is not None:
            self.critic.refuse_unpriced(self.budget_usd)
        return self
