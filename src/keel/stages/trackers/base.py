"""What a tracker is: somebody who is sent a run's figures while it goes on. Nothing here knows a product."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "keel"
"""Where a product sorts runs into projects or experiments and its user named none."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The run that a tracker is opened for."""

    directory: Path
    """The run folder."""
    name: str
    """What people call the run."""
    key: str
    """The same for every attempt at the same recipe, another one for another recipe."""
    config: Mapping[str, Any]
    """The resolved recipe."""
    known: str | None
    """Identity of the tracker's run of an earlier attempt, to be continued; None for a new one."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """A verdict or an action in words."""

    rule: str
    level: str
    """watch, act, stop, ok, or done for an action."""
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One prompt and its answer."""

    prompt: str
    response: str
    score: float
    """nan where there is none."""


class Tracker(Protocol):
    """One run of one product. Every call may raise whatever the product raises; the caller then stops calling."""

    identity: str
    """With which a later attempt finds the same run."""
    where: str
    """For people: where it writes, and how to look at it."""
    durable: bool
    """Whether what it was sent is still there when the run is killed a moment later."""

    def scalars(self, stage: str, step: int, time: float, figures: Mapping[str, float]) -> None:
        """Finite figures at a step, to be shown as `stage/figure`; `time` in unix seconds."""

    def note(self, stage: str, step: int, time: float, note: Note) -> None:
        """A verdict or an action."""

    def samples(self, stage: str, step: int, time: float, samples: Sequence[Sample]) -> None:
        """Prompts and answers."""

    def final(self, stage: str, time: float, figures: Mapping[str, float]) -> None:
        """Figures of a finished stage."""

    def close(self, *, succeeded: bool) -> None:
        """Write out what is left."""


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings by dotted name, as text; what is absent (None) is left out, lists of sections count from 0."""
    named: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            named |= flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(i, Mapping) for i in value):
            named |= flat({str(at): item for at, item in enumerate(value)}, f"{name}.")
        elif value is not None:
            named[name] = str(value)
    return named


def table(samples: Sequence[Sample]) -> str:
    """Samples as Markdown in which nothing that a model wrote has a meaning: every line is indented as code."""
    parts = []
    for sample in samples:
        score = f" (score {sample.score:.3g})" if math.isfinite(sample.score) else ""
        parts += ["Prompt:", indented(sample.prompt), f"Response{score}:", indented(sample.response)]
    return "\n\n".join(parts) + "\n"


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
