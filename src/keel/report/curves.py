"""Figures logged along a stage, as arrays on one continuous axis of steps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keel.report.values import number, whole

Array = NDArray[np.float64]
NOT_FIGURES = {"time", "event", "stage", "step", "of", "round"}


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Figures by name, each [N], logged at the steps `at` [N].

    Steps count on through rounds and restarts of a stage; `boundaries` are where a new round began. A figure is nan
    where it was not logged; `broken` names the steps at which it was logged but not finite: as nan, or as the null that
    keel.core.events writes for nan and infinity. A figure that is null at every step counts as not logged.
    """

    at: Array
    rounds: Array
    """The round that each step belongs to, [N]; nan where rounds were not logged."""
    columns: Mapping[str, Array]
    broken: Mapping[str, Array]
    boundaries: tuple[float, ...] = ()
    of: float = math.nan
    """Planned number of steps of the latest round; nan when unknown."""
    rollbacks: tuple[tuple[float, float], ...] = ()
    """Each as (the step gone back to, the step at which it happened)."""

    def __len__(self) -> int:
        return len(self.at)

    def has(self, name: str) -> bool:
        """Whether anything was logged under `name`, be it only nan."""
        return name in self.columns

    def get(self, name: str) -> Array:
        """The figure at every step, [N]; all nan when it was never logged."""
        return self.columns[name] if name in self.columns else np.full(len(self.at), np.nan)

    def last(self, name: str) -> float:
        """The latest finite value; nan when there is none."""
        finite = self.get(name)[np.isfinite(self.get(name))]
        return float(finite[-1]) if len(finite) else math.nan

    def first(self, name: str) -> float:
        """The earliest finite value; nan when there is none."""
        finite = self.get(name)[np.isfinite(self.get(name))]
        return float(finite[0]) if len(finite) else math.nan

    def extremes(self, name: str) -> tuple[float, float]:
        """The lowest and the highest finite value; (0, 0) when there is none."""
        finite = self.get(name)[np.isfinite(self.get(name))]
        return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)

    @property
    def abandoned(self) -> NDArray[np.bool_]:
        """Which steps a rollback undid, [N]."""
        undone = np.zeros(len(self), dtype=bool)
        for back_to, at in self.rollbacks:
            undone |= (self.at > back_to) & (self.at <= at)
        return undone

    def latest_round(self) -> "Curves":
        """The part that belongs to the latest round; all of it when rounds were not logged."""
        if not len(self) or not math.isfinite(self.rounds[-1]):
            return self
        chosen = self.rounds == self.rounds[-1]
        return Curves(
            at=self.at[chosen],
            rounds=self.rounds[chosen],
            columns={name: values[chosen] for name, values in self.columns.items()},
            broken={name: at[at >= self.at[chosen][0]] for name, at in self.broken.items()},
            of=self.of,
            rollbacks=tuple(pair for pair in self.rollbacks if pair[1] >= self.at[chosen][0]),
        )

    def by_round(self, chosen: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
        """Positions of the `chosen` [N] steps, a part for each round; one part when rounds were not logged."""
        at = np.flatnonzero(chosen)
        rounds = np.nan_to_num(self.rounds[at], nan=-1)
        return [part for part in np.split(at, np.flatnonzero(np.diff(rounds)) + 1) if len(part)]

    def sum(self, name: str) -> float:
        """Sum of the finite values; nan when there is none."""
        finite = self.get(name)[np.isfinite(self.get(name))]
        return float(finite.sum()) if len(finite) else math.nan


def curves(events: Sequence[Mapping[str, Any]]) -> tuple[Curves, Curves, Curves, tuple[float, ...]]:
    """Training steps, evaluations, judges' checks, and the steps at which the stage was resumed, of one stage's events
    in order.
    """
    axis = _Axis()
    rows: dict[str, list[tuple[float, Mapping[str, Any]]]] = {"step": [], "evaluated": [], "checked": []}
    resumed: list[float] = []
    rollbacks: list[tuple[float, float]] = []
    for event in events:
        kind = event.get("event")
        if kind == "stage_finished":
            axis.finished = True
        elif kind == "resumed" and whole(event.get("step")):
            resumed.append(axis.offset + number(event["step"]))
        elif kind == "action" and event.get("taken") and whole(event.get("step")) and whole(event.get("to_step")):
            rollbacks.append((axis.offset + number(event["to_step"]), axis.offset + number(event["step"])))
        elif kind in rows and whole(event.get("step")):
            at = axis.place(event)
            while rows[kind] and rows[kind][-1][0] >= at and rows[kind][-1][1].get("round") == event.get("round"):
                rows[kind].pop()  # the same step of the same round again: an attempt that was repeated
            rows[kind].append((at, event))
    steps = _table(rows["step"], tuple(axis.boundaries), rollbacks)
    # An evaluation at the step of a rollback is of the policy that was gone back to; a check there came before it.
    evaluations = _table(
        rows["evaluated"], tuple(axis.boundaries), [(to, math.nextafter(at, to)) for to, at in rollbacks]
    )
    return steps, evaluations, _table(rows["checked"], tuple(axis.boundaries), rollbacks), tuple(resumed)


class _Axis:
    """Where an event's step lies when rounds that each count from one are laid end to end."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.last = 0.0
        self.round: object = None
        self.finished = False
        self.boundaries: list[float] = []

    def place(self, event: Mapping[str, Any]) -> float:
        step, new_round = number(event["step"]), event.get("round")
        other_round = new_round is not None and self.round is not None and new_round != self.round
        restarts = step <= self.last if event["event"] == "step" else step < self.last
        if restarts and (other_round or self.finished):
            self.offset += self.last
            self.boundaries.append(self.offset)
        elif other_round:
            self.boundaries.append(self.offset + self.last)
        self.finished = False
        self.last = step
        self.round = new_round if new_round is not None else self.round
        return self.offset + step


def _table(
    rows: Sequence[tuple[float, Mapping[str, Any]]],
    boundaries: tuple[float, ...],
    rollbacks: Sequence[tuple[float, float]],
) -> Curves:
    names = dict.fromkeys(
        name
        for _, event in rows
        for name, value in event.items()
        if name not in NOT_FIGURES and (_is_nan(value) or not math.isnan(number(value)))
    )
    at = np.array([step for step, _ in rows], dtype=np.float64)
    columns: dict[str, Array] = {}
    broken: dict[str, Array] = {}
    for name in names:
        values = np.array([number(event.get(name)) for _, event in rows], dtype=np.float64)
        logged = np.array([name in event for _, event in rows], dtype=bool)
        wrong = logged & ~np.isfinite(values)
        columns[name] = np.where(np.isfinite(values), values, np.nan)
        if wrong.any():
            broken[name] = at[wrong]
    of = next((number(event.get("of")) for _, event in reversed(rows) if whole(event.get("of"))), math.nan)
    rounds = np.array([number(event.get("round")) for _, event in rows], dtype=np.float64)
    return Curves(
        at=at,
        rounds=rounds,
        columns=columns,
        broken=broken,
        boundaries=boundaries,
        of=of,
        rollbacks=tuple(rollbacks),
    )


def _is_nan(value: object) -> bool:
    return (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and value.lower() == "nan")
