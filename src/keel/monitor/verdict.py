"""What a rule says about a run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Level = Literal["ok", "watch", "act", "stop"]
Figure: TypeAlias = float | int | str | bool | None

LEVELS: tuple[Level, ...] = ("ok", "watch", "act", "stop")
"""From best to worst: all is well; look; change something; do not go on like this."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule's view of some figures, in words a person can act on without the code."""

    level: Level
    rule: str
    """Name of the rule, such as kl_per_token."""
    message: str
    """What was found, with figures and units."""
    figures: dict[str, Figure] = field(default_factory=dict)
    remedy: str = ""
    """What to do; empty when nothing needs doing."""
    cause: str = ""
    """What brings such figures about, in plain words; empty where the message says it."""
    confidence: float | None = None
    """How sure the rule is of what it says, in [0, 1]; None where it only reads a line."""


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The gravest of at least one verdict; the first of equals."""
    return max(verdicts, key=lambda verdict: LEVELS.index(verdict.level))


def plainly(figure: object) -> str:
    """A figure or setting in words for people, without the last digits of its arithmetic."""
    return f"{figure:.4g}" if isinstance(figure, float) else str(figure)
