"""What a run has shown so far: figures by name, update after update."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import numpy as np

from keel.stats.arrays import Floats

ABSURD = 1e100
"""Figures of this size are no measurements, and their squares overflow."""


@dataclass
class Series:
    """Rows of figures, each with the step that it belongs to. A figure that is missing, or no number, is nan."""

    rows: list[Mapping[str, Any]] = field(default_factory=list)
    columns: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Figures already read, so that a long run is not read anew at every update."""

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, step: int, figures: Mapping[str, Any]) -> None:
        self.rows.append({**figures, "step": step})

    def values(self, name: str) -> Floats:
        """[len] float64 of one figure."""
        column = self.columns.setdefault(name, [])
        column.extend(number(row.get(name)) for row in self.rows[len(column) :])
        return np.array(column, dtype=np.float64)

    def known(self, name: str) -> Floats:
        """The figure's finite values only, in order."""
        values = self.values(name)
        return values[np.isfinite(values)]

    def last(self, name: str) -> float:
        """The newest row's figure; nan without rows."""
        return number(self.rows[-1].get(name)) if self.rows else nan

    def first(self, name: str) -> float:
        """The oldest row's figure; nan without rows."""
        return number(self.rows[0].get(name)) if self.rows else nan

    def lost(self, name: str) -> bool:
        """Whether the newest row's figure is nan or infinite. Logs write null for both, and for what was not measured:
        it counts where earlier rows have a number.
        """
        row = self.rows[-1] if self.rows else {}
        value = row.get(name)
        if isinstance(value, float | np.floating):
            return not isfinite(value)
        return name in row and value is None and bool(self.known(name).size)

    @property
    def step(self) -> int:
        """The newest row's step; 0 without rows."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    def until(self, step: int) -> "Series":
        """The rows up to and including `step`."""
        return Series([row for row in self.rows if row["step"] <= step])

    def since(self, step: int) -> "Series":
        """The rows after `step`."""
        return Series([row for row in self.rows if row["step"] > step])


@dataclass
class History:
    """One RL stage as its rules see it. Nothing in it knows the truth: only what any run can measure."""

    steps: Series = field(default_factory=Series)
    """One row an update: figures of its rollout and of its optimiser steps."""
    evaluations: Series = field(default_factory=Series)
    """One row an evaluation on the fixed held-out prompts; the first is of the policy before any update."""
    checks: Series = field(default_factory=Series)
    """One row a batch of judges' verdicts on policy against SFT: wins, ties, losses, proxy_win_rate."""

    @classmethod
    def of(
        cls,
        steps: Iterable[Mapping[str, Any]],
        evaluations: Iterable[Mapping[str, Any]] = (),
        checks: Iterable[Mapping[str, Any]] = (),
    ) -> "History":
        """From rows that carry their own `step`; rows without one are numbered from 1."""
        return cls(numbered(steps), numbered(evaluations), numbered(checks))

    def until(self, step: int) -> "History":
        """What was known at `step`."""
        return History(self.steps.until(step), self.evaluations.until(step), self.checks.until(step))


def numbered(rows: Iterable[Mapping[str, Any]]) -> Series:
    """The rows as a series; those without a step get the one that follows."""
    series = Series()
    for row in rows:
        step = number(row.get("step"))
        series.add(int(step) if isfinite(step) else series.step + 1, row)
    return series


def number(value: Any) -> float:
    """`value` as a float; nan for what is no finite number, or absurd."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return nan
    return float(value) if abs(value) < ABSURD else nan


def tail(values: Floats | Sequence[float], window: int) -> Floats:
    """The last `window` finite values."""
    known = np.asarray(values, dtype=np.float64)
    return known[np.isfinite(known)][-window:]
