"""What a run that is still going has shown so far, kept up to date event by event."""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keel.core.events import Event
from keel.report.cards import Cards
from keel.report.curves import NOT_FIGURES, Array
from keel.report.records import STAGE_TITLES
from keel.report.stage_log import family
from keel.report.values import number, whole


@dataclass
class Track:
    """Figures logged step by step; nan where one was not logged or not finite."""

    label: str = ""
    at: "array[float]" = field(default_factory=lambda: array("d"))
    columns: "dict[str, array[float]]" = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """One more row: every number of `event` that is a figure."""
        self.at.append(number(event.get("step")))
        for name, value in event.items():
            if name not in NOT_FIGURES and (name in self.columns or math.isfinite(number(value))):
                column = self.columns.setdefault(name, array("d"))
                column.extend([math.nan] * (len(self.at) - 1 - len(column)))
                column.append(number(value))

    def forget_after(self, step: float) -> None:
        """Drop the newest rows as far back as `step`; rows of an earlier round, whose steps were larger, stay."""
        kept, before = len(self.at), math.inf
        while kept and step < self.at[kept - 1] <= before:
            kept -= 1
            before = self.at[kept]
        for column in (self.at, *self.columns.values()):
            del column[kept:]

    def get(self, name: str) -> Array:
        """The figure at every step, [N]."""
        known = np.array(self.columns.get(name, array("d")), dtype=np.float64)
        return np.concatenate([known, np.full(len(self.at) - len(known), np.nan)])

    def known(self, name: str) -> Array:
        """The figure's finite values, in order."""
        values = self.get(name)
        return values[np.isfinite(values)]

    def first(self, name: str) -> float:
        known = self.known(name)
        return float(known[0]) if len(known) else math.nan

    def last(self, name: str) -> float:
        """The newest finite value; nan when there is none."""
        known = self.known(name)
        return float(known[-1]) if len(known) else math.nan


@dataclass
class Work:
    """One stage as its clock sees it."""

    label: str
    begun: float
    """Unix seconds of its latest start."""
    finished: bool = False
    done: float = 0.0
    of: float = math.nan
    pace_from: tuple[float, float] | None = None
    """Step and time from which the pace of this attempt is taken."""
    last_step_time: float = math.nan

    @property
    def title(self) -> str:
        kind, _, rest = self.label.partition(" ")
        title = STAGE_TITLES.get(kind, kind)
        return f"{title}, round {rest}" if rest.isdigit() else f"{title} ({rest})" if rest else title

    @property
    def unit(self) -> str:
        return "update" if family(self.label) == "ppo" else "step"

    @property
    def seconds_left(self) -> float:
        """At the pace so far; nan while nobody can know."""
        if self.pace_from is None or not self.done > self.pace_from[0] or not math.isfinite(self.of):
            return math.nan
        per_step = (self.last_step_time - self.pace_from[1]) / (self.done - self.pace_from[0])
        return max(self.of - self.done, 0.0) * per_step


class Live:
    """The state of a run after the events given to `add`."""

    def __init__(self) -> None:
        self.began = math.nan
        """Unix seconds of the first event."""
        self.latest = math.nan
        """Unix seconds of the newest event."""
        self.worked = 0.0
        """Seconds between events, breaks between attempts left out."""
        self.stages: dict[str, Work] = {}
        self.steps: dict[str, Track] = {}
        """By kind of stage; rounds of RL count on in one track."""
        self.evaluations: dict[str, Track] = {}
        self.checks = Track()
        """What judges said of policy against SFT."""
        self.asked_at = math.nan
        """Step at which judges were last asked."""
        self.labels_spent = math.nan
        self.cards = Cards()
        self.samples: Sequence[Mapping[str, Any]] = ()
        self.samples_step = math.nan
        self.final: dict[str, Mapping[str, Any]] = {}
        """Final figures by kind of stage."""

    def add(self, event: Event) -> None:
        time, label, kind = number(event.get("time")), str(event.get("stage") or ""), event.get("event")
        self._clock(time, label, event)
        if kind == "step":
            self._step(label, event, time)
        elif kind == "evaluated":
            self._track(self.evaluations, label).add(event)
            if family(label) == "evaluate":
                self.final["evaluate"] = event
        elif kind == "action":
            self._undo(label, event)
        elif kind == "resumed":
            work = self.stages.setdefault(label, Work(label, time))
            work.done = number(event.get("step")) if whole(event.get("step")) else 0.0
            work.pace_from = (work.done, time)
        elif kind == "samples" and isinstance(event.get("samples"), list):
            self.samples = [sample for sample in event["samples"] if isinstance(sample, dict)]
            self.samples_step = number(event.get("step"))
        elif kind == "asked":
            self.asked_at = number(event.get("step"))
            self._spend(event)
        elif kind == "checked":
            self.checks.add(event)
            self._spend(event)
        if kind in ("verdict", "action"):
            work = self.stages.get(label)
            self.cards.add(event, work.done if work is not None and family(label) == "ppo" and work.done else math.nan)

    def _clock(self, time: float, label: str, event: Event) -> None:
        kind = event.get("event")
        again = (kind == "stage_started" and label in self.stages and not self.stages[label].finished) or (
            kind == "stage_finished" and event.get("reused") is True and self.current is not None
        )
        if math.isfinite(time):
            self.began = time if math.isnan(self.began) else self.began
            if math.isfinite(self.latest) and not again:
                self.worked += max(0.0, time - self.latest)
            self.latest = time
        if kind == "stage_started":
            earlier = self.stages.pop(label, None)  # the newest start stands last
            if earlier is not None and earlier.finished:
                self._forget(family(label))
            self.stages[label] = Work(label, time)
        elif kind == "stage_finished":
            self.stages.setdefault(label, Work(label, time)).finished = True
            if isinstance(event.get("metrics"), dict):
                self.final[family(label)] = event["metrics"]

    def _step(self, label: str, event: Event, time: float) -> None:
        self._track(self.steps, label).add(event)
        work = self.stages.setdefault(label, Work(label, time))
        work.done = number(event.get("step")) if whole(event.get("step")) else work.done + 1
        work.of, work.last_step_time = number(event.get("of")), time
        if work.pace_from is None:
            work.pace_from = (work.done, time)

    def _track(self, tracks: dict[str, Track], label: str) -> Track:
        """RL counts its updates on over rounds; of any other kind of stage the newest round is kept."""
        kind = family(label)
        if kind not in tracks or (kind != "ppo" and tracks[kind].label != label):
            tracks[kind] = Track(label)
        return tracks[kind]

    def _forget(self, kind: str) -> None:
        """A stage that had ended is made anew, with other settings."""
        self.steps.pop(kind, None)
        self.evaluations.pop(kind, None)
        self.cards.forget(kind)
        if kind == "ppo":
            self.checks = Track()

    def _undo(self, label: str, event: Event) -> None:
        """After a rollback, what was measured since the step gone back to is of a policy that is no more."""
        to_step = number(event.get("to_step"))
        if event.get("taken") is False or not math.isfinite(to_step):
            return
        tracks = [self.steps.get(family(label)), self.evaluations.get(family(label))]
        for track in (*tracks, self.checks if family(label) == "ppo" else None):
            if track is not None:
                track.forget_after(to_step)
        if self.asked_at > to_step:
            self.asked_at = math.nan

    def _spend(self, event: Event) -> None:
        if math.isfinite(number(event.get("labels_spent"))):
            self.labels_spent = number(event["labels_spent"])

    @property
    def current(self) -> Work | None:
        """The stage that is going on: the newest that began and did not end."""
        return next((work for work in reversed(self.stages.values()) if not work.finished), None)

    @property
    def focus(self) -> str:
        """The kind of stage whose figures matter most now: RL once it has begun, else the one that is going on."""
        if "ppo" in self.steps or "ppo" in self.evaluations:
            return "ppo"
        work = self.current
        if work is not None and family(work.label) in self.steps:
            return family(work.label)
        return next(reversed(self.steps), "")
