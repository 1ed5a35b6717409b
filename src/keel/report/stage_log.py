"""Stages put together from their events, over rounds, interruptions and reuse."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keel.report.curves import curves
from keel.report.records import Stage
from keel.report.values import number

Event = Mapping[str, Any]


def family(label: object) -> str:
    """The kind of stage that a label names: `ppo 3` is the third round of `ppo`."""
    return str(label).partition(" ")[0]


def read_stages(events: Sequence[Event], summarised: Mapping[str, Any]) -> dict[str, Stage]:
    """Stages by kind, in the order in which they first began; those that only left notes or figures come last.

    `summarised` is `stages` of summary.json, whose figures win over those of the events.
    """
    begun = [event for event in events if event.get("event") == "stage_started"]
    names = dict.fromkeys(family(event["stage"]) for event in (*begun, *events) if event.get("stage"))
    names |= dict.fromkeys(name for name, entry in summarised.items() if isinstance(entry, dict))
    seconds = own_seconds(events)
    return {
        name: _stage(
            name,
            [event for event in events if event.get("stage") and family(event["stage"]) == name],
            summarised[name] if isinstance(summarised.get(name), dict) else {},
            seconds.get(name, math.nan),
        )
        for name in names
    }


def _stage(name: str, events: Sequence[Event], summarised: Mapping[str, Any], seconds: float) -> Stage:
    starts = [event for event in events if event.get("event") == "stage_started"]
    ends = [event for event in events if event.get("event") == "stage_finished"]
    steps, evaluations, checks, resumed_at = curves(events)
    if starts or ends:
        latest: dict[str, bool] = {}  # label -> whether the last thing it did was to finish
        for event in events:
            if event.get("event") in ("stage_started", "stage_finished"):
                latest[str(event["stage"])] = event["event"] == "stage_finished"
        finished = all(latest.values())
    else:
        finished = not len(steps)
    return Stage(
        name=name,
        config=next((start["config"] for start in reversed(starts) if isinstance(start.get("config"), dict)), {}),
        finished=finished,
        reused=bool(ends) and all(end.get("reused") is True for end in ends),
        seconds=seconds if math.isfinite(seconds) else number(summarised.get("seconds")),
        metrics=_metrics(name, events, summarised if finished else {}),
        steps=steps,
        evaluations=evaluations,
        checks=checks,
        resumed_at=resumed_at,
    )


def _metrics(name: str, events: Sequence[Event], summarised: Mapping[str, Any]) -> dict[str, Any]:
    """Final figures: of the first reward model, whose card the report shows; of the last policy, compared with the
    start of the first round; of an evaluation as soon as it was logged. Where `summarised` knows a figure, it wins.
    """
    measured = [event["metrics"] for event in events if isinstance(event.get("metrics"), dict)]
    if name == "evaluate":
        measured += [dict(event) for event in events if event.get("event") == "evaluated"]
    chosen: dict[str, Any] = {}
    if measured:
        chosen = dict(measured[0] if name == "reward" else measured[-1])
        chosen |= {key: value for key, value in measured[0].items() if key.endswith("_before")}
    return chosen | {key: value for key, value in summarised.items() if value is not None}


def own_seconds(events: Sequence[Event]) -> dict[str, float]:
    """Seconds that each kind of stage took itself. Stages may nest; what ran inside is not counted twice.

    The seconds that a finished stage logged include its interrupted attempts. A stage that never finished counts, over
    all its attempts, from a start to the last thing heard of it.
    """
    clock = _Clock()
    for event in events:
        label, time, kind = event.get("stage"), number(event.get("time")), event.get("event")
        if not label:
            continue
        if kind == "stage_started":
            clock.start(str(label), time)
        elif kind == "stage_finished" and clock.is_open(str(label)):
            clock.finish(str(label), time, number(event.get("seconds")))
        clock.heard(time)
    clock.interrupt_all()
    return clock.totals()


class _Clock:
    """Adds up the time of nested stages."""

    def __init__(self) -> None:
        self.finished: dict[str, float] = {}
        self.interrupted: dict[str, float] = {}
        self.open: list[dict[str, Any]] = []  # outermost first: label, begun, inside (seconds of stages within)
        self.latest = math.nan

    def is_open(self, label: str) -> bool:
        return any(entry["label"] == label for entry in self.open)

    def heard(self, time: float) -> None:
        self.latest = time if math.isfinite(time) else self.latest

    def start(self, label: str, time: float) -> None:
        if self.is_open(label):  # the whole run was interrupted, and with it every stage that was open
            self.interrupt_all()
        self.open.append({"label": label, "begun": time, "inside": 0.0})

    def finish(self, label: str, time: float, logged: float) -> None:
        while self.open[-1]["label"] != label:
            self._interrupt()
        entry = self.open.pop()
        before = self.interrupted.pop(label, 0.0)
        spent = logged if math.isfinite(logged) else before + max(0.0, time - entry["begun"])
        self._book(self.finished, label, spent, entry["inside"])

    def interrupt_all(self) -> None:
        while self.open:
            self._interrupt()

    def _interrupt(self) -> None:
        entry = self.open.pop()
        self._book(self.interrupted, entry["label"], max(0.0, self.latest - entry["begun"]), entry["inside"])

    def _book(self, account: dict[str, float], label: str, spent: float, inside: float) -> None:
        if not math.isfinite(spent):
            return
        account[label] = account.get(label, 0.0) + max(0.0, spent - inside)
        if self.open:
            self.open[-1]["inside"] += spent

    def totals(self) -> dict[str, float]:
        totals: dict[str, float] = {}
        for account in (self.finished, self.interrupted):
            for label, seconds in account.items():
                totals[family(label)] = totals.get(family(label), 0.0) + seconds
        return totals
