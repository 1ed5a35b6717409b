"""Events as what trackers are sent: scalars, notes, samples, final figures."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keel.core.events import Event
from keel.monitor.verdict import LEVELS
from keel.report.cards import action_text
from keel.report.curves import NOT_FIGURES
from keel.report.stage_log import family
from keel.report.values import number, printable, prompt_as_text, whole
from keel.stages.trackers.base import Note, Sample, Tracker

PREFIXES = {"step": "", "evaluated": "held_out/", "checked": "judges/", "asked": "judges/"}


@dataclass(frozen=True, kw_only=True)
class Series:
    """What an event continues; nothing of a series is sent twice for the same step."""

    stage: str
    kind: str
    of: str = ""


def series_of(event: Event) -> Series | None:
    """None for an event that trackers are not sent."""
    kind, stage = str(event.get("event")), shown_stage(event)
    if kind in PREFIXES:
        return Series(stage=stage, kind=kind)
    if kind == "samples":  # a rollback shows two policies at its step: the one that raised the alarm, and its successor
        return Series(stage=stage, kind=kind, of=slug(event["moment"]) if event.get("moment") else "")
    if kind == "verdict":
        return Series(stage=stage, kind=kind, of=slug(event.get("rule")))
    if kind == "action":
        return Series(stage=stage, kind=kind, of=slug(event.get("action")))
    if kind == "stage_finished" and figures_of(event.get("metrics")):
        return Series(stage=stage, kind=kind)
    return None


def step_of(event: Event) -> int:
    """0 where an event carries none."""
    return int(number(event["step"])) if whole(event.get("step")) else 0


def shown_stage(event: Event) -> str:
    """`ppo` for all rounds of RL, whose updates count on; every other round apart (`reward_2`)."""
    label = str(event.get("stage") or "run")
    return "ppo" if family(label) == "ppo" else slug(label)


def slug(text: object) -> str:
    """Letters, digits, dots, dashes and underscores: what every product takes in a name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", str(text or "")).strip("_") or "none"


def figures_of(values: object, prefix: str = "") -> dict[str, float]:
    """The finite numbers among `values`, those of sections below them included."""
    if not isinstance(values, Mapping):
        return {}
    figures: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            figures |= figures_of(value, f"{prefix}{slug(name)}/")
        elif isinstance(value, (int, float)) and name not in NOT_FIGURES and math.isfinite(value):
            figures[f"{prefix}{slug(name)}"] = float(value)
    return figures


def send(tracker: Tracker, event: Event, news: bool) -> None:
    """Send what `event` holds; `news` says whether a verdict differs from what its rule said last."""
    kind, stage, step = str(event.get("event")), shown_stage(event), step_of(event)
    time = number(event.get("time"))
    if kind in PREFIXES:
        if figures := figures_of(event, PREFIXES[kind]):
            tracker.scalars(stage, step, time, figures)
    elif kind == "verdict":
        level = str(event.get("level") or "ok")
        rule = slug(event.get("rule"))
        grade = float(LEVELS.index(level)) if level in LEVELS else math.nan
        if math.isfinite(grade):
            tracker.scalars(stage, step, time, {f"alarms/{rule}": grade})
        if news:
            tracker.note(stage, step, time, verdict_note(event, rule, level))
    elif kind == "action":
        tracker.note(stage, step, time, action_note(event, step))
    elif kind == "samples":
        if samples := samples_of(event.get("samples")):
            shown = f"{stage}_{slug(event['moment'])}" if event.get("moment") else stage
            tracker.samples(shown, step, time, samples)
    elif kind == "stage_finished":
        tracker.final(stage, time, figures_of(event.get("metrics")))


def verdict_note(event: Event, rule: str, level: str) -> Note:
    parts = [event.get(name) for name in ("message", "cause", "remedy")]
    text = printable("\n".join(str(part) for part in parts if part))
    return Note(rule=rule, level=level, title=f"{shown_stage(event)}: {level}, {rule}", text=text)


def action_note(event: Event, step: int) -> Note:
    taken = "advised" if event.get("taken") is False else "done"
    name = slug(event.get("action"))
    text = printable("\n".join(str(part) for part in (action_text(event, step), event.get("reason")) if part))
    return Note(rule=name, level="done", title=f"{shown_stage(event)}: {taken}, {name}", text=text)


def samples_of(listed: Any) -> list[Sample]:
    return [
        Sample(
            prompt=printable(prompt_as_text(entry.get("prompt"))),
            response=printable(str(entry.get("response") or "")),
            score=number(entry.get("score")),
        )
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, Mapping)
    ]
