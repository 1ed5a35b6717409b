"""What a rule of the doctor says, as plain records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["ok", "warn", "error"]
SEVERITIES: tuple[Severity, ...] = ("ok", "warn", "error")
"""All is well; look at it before training; do not train on it like this."""
MOST_EXAMPLES = 5
EXAMPLE_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Example:
    """A record that shows what is meant."""

    source: str  # "file:line"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule's view of a set, in words a person can act on."""

    rule: str
    severity: Severity
    message: str
    """What was found, with figures and units."""
    remedy: str = ""
    """What to do; empty where nothing needs doing."""
    figures: dict[str, Any] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    drops: tuple[int, ...] = ()
    """Positions of the records that can safely be left out because of it."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "severity": self.severity,
            "message": self.message,
            "remedy": self.remedy,
            "figures": self.figures,
            "examples": [{"source": example.source, "text": example.text} for example in self.examples],
            "removable": len(self.drops),
        }


def graded(value: float, warn: float, error: float) -> Severity:
    """The severity of a figure that is bad when high."""
    return "error" if value >= error else "warn" if value >= warn else "ok"


def percent(share: float) -> str:
    """A share in [0, 1] for people: under 0.1 %, 0.4 %, 27 %."""
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def counted(count: int, singular: str, plural: str = "") -> str:
    """A count with its noun: 1 record, 12,306 records."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def said(count: int, noun: str, one: str, several: str) -> str:
    """A count, its noun and the verb that agrees: 1 pair is, 3 pairs are."""
    return f"{counted(count, noun)} {one if count == 1 else several}"


def excerpt(text: str) -> str:
    """The start of a text on one line."""
    line = " ".join(text[: 4 * EXAMPLE_WIDTH].split())
    return line if len(line) <= EXAMPLE_WIDTH else line[: EXAMPLE_WIDTH - 1] + "…"


def shown(examples: Iterable[tuple[str, str]] | Sequence[tuple[str, str]]) -> tuple[Example, ...]:
    """The first few (source, text) as examples."""
    kept = []
    for source, text in examples:
        kept.append(Example(source, excerpt(text)))
        if len(kept) == MOST_EXAMPLES:
            break
    return tuple(kept)
