"""keel's own run folder as a log: every round of RL a stage, and what the rules said while it ran."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from keel.core.errors import ArtifactError
from keel.core.events import Event, read_events
from keel.diagnose.dialect import Kind
from keel.diagnose.log import Log, Stage, Told
from keel.monitor.history import History, number
from keel.monitor.verdict import LEVELS, Verdict, plainly

KINDS: dict[str, Kind] = {"sft": "sft", "reward": "reward", "prefer": "preference", "ppo": "rl"}
SETTINGS = {"sft": "keel-sft", "reward": "keel-reward", "prefer": "keel-prefer", "ppo": "keel-ppo"}
EVENTS = "events.jsonl"
SILENCE = 5
"""Updates that a rule may keep silent, or a tenth of the run, and still speak of the same thing."""
STEERED = {
    "kl_coef": "kl.initial",
    "length_penalty": "shaping.length_penalty",
    "missing_eos_ceiling": "shaping.missing_eos_ceiling",
    "entropy_coef": "{algorithm}.entropy_coef",
}
"""What an action may change, and the setting of the stage that it began as."""
SHARED_BY = {"data": "reward", "best of": "reward"}
"""Stages without figures of their own whose verdicts belong to another: labels and best-of-n judge the reward model."""


def keel_run_at(path: Path) -> Path | None:
    """The run folder, if `path` is one or is its events.jsonl."""
    if path.is_file() and path.name == EVENTS:
        return path.parent
    return path if (path / EVENTS).is_file() else None


def read_keel_run(folder: Path) -> Log:
    events = read_events(folder / EVENTS)
    if not events:
        raise ArtifactError(f"{folder / EVENTS} is empty: the run has logged nothing yet.")
    trained = list(dict.fromkeys(e["stage"] for e in events if e.get("event") == "step" and _kind(e.get("stage"))))
    if not trained:
        seen = ", ".join(dict.fromkeys(str(event.get("stage")) for event in events if event.get("stage")))
        raise ArtifactError(f"{folder / EVENTS} holds no step of a training stage yet, only events of: {seen}.")
    return Log(
        path=folder,
        tool="keel",
        trainer=", ".join(trained),
        recognised_by=f"{EVENTS}, {len(events)} events",
        stages=tuple(_stage(name, events, trained) for name in trained),
        thresholds=_thresholds(folder / "recipe.yaml"),
    )


def _kind(name: object) -> Kind | None:
    return KINDS.get(_family(name))


def _family(name: object) -> str:
    return str(name).partition(" ")[0]


def _stage(name: str, events: Sequence[Event], trained: Sequence[str]) -> Stage:
    own = [event for event in events if event.get("stage") == name]
    family = _family(name)
    later = trained[trained.index(name) + 1 :]

    def rows(kind: str) -> list[Event]:
        return [event for event in own if event.get("event") == kind]

    history = History.of(_kept("step", own), _kept("evaluated", own), _kept("checked", own))
    starts = [event["config"] for event in rows("stage_started") if isinstance(event.get("config"), Mapping)]
    ends = [event["metrics"] for event in rows("stage_finished") if isinstance(event.get("metrics"), Mapping)]
    if family == "reward" and ends:  # measured once, on held-out pairs, when it was done
        history.evaluations.add(history.steps.step, ends[-1])
    return Stage(
        name=name,
        kind=KINDS[family],
        settings=SETTINGS[family],
        history=history,
        set_to=_set_to(starts[-1] if starts else {}, rows("action")) | _agreement(events),
        told=_told(events, name, [int(row["step"]) for row in history.steps.rows]),
        actions=tuple(_in_words(event) for event in rows("action")),
        over=any(_family(other) == family for other in later),
    )


def _told(events: Sequence[Event], name: str, steps: Sequence[int]) -> tuple[Told, ...]:
    """The last word of each rule about the stage, ok ones too."""
    told: dict[str, Told] = {}
    silence = max(SILENCE, len(steps) // 10)
    first_reward = next((e["stage"] for e in events if _family(e.get("stage")) == "reward"), "")
    for event in events:
        stage = str(event.get("stage"))
        shared = name == first_reward and any(stage.startswith(other) for other in SHARED_BY)
        if event.get("event") != "verdict" or event.get("level") not in LEVELS or not (stage == name or shared):
            continue
        rule, at = str(event.get("rule")), event.get("step")
        at = at if isinstance(at, int) else None
        before = told.get(rule)
        since = at
        if at is not None and before is not None and before.last is not None and at - before.last <= silence:
            since = before.since if before.verdict.level != "ok" else at
        told[rule] = Told(verdict=_verdict(event), since=since, last=at)
    return tuple(told.values())


def _verdict(event: Event) -> Verdict:
    return Verdict(
        event["level"],
        str(event.get("rule")),
        str(event.get("message") or ""),
        dict(event.get("figures") or {}),
        str(event.get("remedy") or ""),
        str(event.get("cause") or ""),
        event.get("confidence"),
    )


def _set_to(config: Mapping[str, Any], actions: Sequence[Event]) -> dict[str, Any]:
    """The settings at the end: those of the recipe, and over them what was changed while the run went on."""
    found = dict(_flat(config))
    algorithm = found.get("algorithm") or "ppo"
    rate = number(found.get("optim.learning_rate"))
    for event in actions:
        if not event.get("taken") or not isinstance(after := event.get("after"), Mapping):
            continue
        for name, value in after.items():
            if not isfinite(number(value)):
                continue
            if name == "learning_rate_factor" and isfinite(rate):
                found["optim.learning_rate"] = rate * value
            elif name in STEERED:
                found[STEERED[name].format(algorithm=algorithm)] = value
    return found


def _agreement(events: Sequence[Event]) -> dict[str, Any]:
    """Krippendorff's alpha of the labels that the run began with, in [-1, 1], where raters shared items."""
    first = [event for event in events if event.get("event") == "agreement" and event.get("stage") != "rounds"]
    alphas = [event.get("krippendorff_alpha") for event in first]
    return {"krippendorff_alpha": alphas[0]} if alphas else {}


def _kept(kind: str, events: Sequence[Event]) -> list[Event]:
    """Events of a kind that the final policy descends from, without those that a rollback went back behind.

    An evaluation at the step of a rollback, after it, is of the policy that was gone back to.
    """
    kept: list[Event] = []
    left: set[int] = set()
    for event in events:
        at, to = event.get("step"), event.get("to_step")
        if event.get("event") == kind and isinstance(at, int):
            kept.append(event)
        elif event.get("event") == "action" and event.get("taken") and isinstance(at, int) and isinstance(to, int):
            left |= set(range(to + 1, at + 1))
            if kind == "evaluated":
                kept = [row for row in kept if row["step"] not in left]
                left.clear()  # what is evaluated from here on is of the policy that was gone back to
    return [event for event in kept if event["step"] not in left]


def _in_words(event: Event) -> str:
    what = str(event.get("action")).replace("_", " ")
    if event.get("to_step") is not None:
        what += f" to update {event['to_step']}"
    before, after = event.get("before") or {}, event.get("after") or {}
    changed = [
        f"{name} {plainly(before.get(name))} → {plainly(value)}"
        for name, value in after.items()
        if value != before.get(name)
    ]
    if changed:
        what += f" ({', '.join(changed)})"
    if not event.get("taken"):
        what += ", advised only"
    return f"update {event.get('step')}: {what}. {event.get('reason') or ''}".strip()


def _flat(config: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """A stage's settings by their dotted names."""
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        found += _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else [(f"{above}{name}", value)]
    return found


def _thresholds(recipe: Path) -> dict[str, Any]:
    """The lines that the recipe draws itself."""
    try:
        document = yaml.safe_load(recipe.read_text(encoding="utf-8", errors="replace")) if recipe.is_file() else None
    except yaml.YAMLError:
        return {}
    drawn = document.get("thresholds") if isinstance(document, dict) else None
    return dict(drawn) if isinstance(drawn, dict) else {}
