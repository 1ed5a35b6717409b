"""A finished run as its log tells it: which tool made it, and a history for each thing that was trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keel.diagnose.dialect import Kind
from keel.monitor.history import History
from keel.monitor.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a rule said while the run went on: its last word, and when."""

    verdict: Verdict
    since: int | None = None
    """The first update at which it said this or worse, without a long silence since; None outside of updates."""
    last: int | None = None
    """The last one."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One thing that was trained, in keel's words."""

    name: str
    kind: Kind
    settings: str
    """Key of the vocabulary that its settings are in."""
    history: History
    set_to: Mapping[str, Any] = field(default_factory=dict)
    """Settings with the values that they had, where the log says so."""
    told: tuple[Told, ...] = ()
    """What rules said during the run itself."""
    actions: tuple[str, ...] = ()
    """What was done about it while it ran, in words."""
    over: bool = False
    """Whether a later stage took its place, as a later round of RL does."""

    @property
    def by_keel(self) -> bool:
        return self.settings.startswith("keel-")


@dataclass(frozen=True, kw_only=True)
class Log:
    """What was read, and how it was understood."""

    path: Path
    tool: str
    trainer: str
    recognised_by: str
    stages: tuple[Stage, ...]
    own_names: Mapping[str, str] = field(default_factory=dict)
    """The tool's name of each figure that was understood, and keel's."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Figures that look useful and were left out, with the reason."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """How figures of the tool differ from keel's."""
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    """Lines that the run itself drew."""
