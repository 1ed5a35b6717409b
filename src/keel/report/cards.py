"""Alarm cards: what a rule says, since when, why, what was done about it, and what a person can do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keel.report.records import GRAVITY
from keel.report.stage_log import Event, family
from keel.report.values import number

ACTIONS = {
    # what was done, what was only advised
    "tighten": ("tightened the settings", "tighten the settings"),
    "lower_kl": ("lowered the KL weight", "lower the KL weight"),
    "ask_humans": ("asked the judges", "ask the judges"),
    "correct_reward": ("corrected the reward", "correct the reward"),
    "roll_back": ("went back to earlier weights", "go back to earlier weights"),
    "stop": ("stopped the stage", "stop the stage"),
}


@dataclass
class Card:
    """One rule of one stage from the time it spoke up until it says ok or what it spoke of is rolled back."""

    stage: str
    rule: str
    level: str
    since_step: float
    """Step at which it spoke first; nan where verdicts carry none."""
    since: float
    """Unix seconds of the same."""
    last_step: float = math.nan
    count: int = 0
    message: str = ""
    cause: str = ""
    confidence: float = math.nan
    remedy: str = ""
    done: list[str] = field(default_factory=list)
    """What the run did about it, oldest first."""
    over: bool = False
    """Whether the rule has said ok since."""
    undone: bool = False
    """Whether what it spoke of was rolled back, and it has not spoken since."""

    @property
    def past(self) -> bool:
        """Whether it no longer holds: the rule has said ok, or a rollback undid what it spoke of."""
        return self.over or self.undone


class Cards:
    """All cards of a run, one a stage and rule; a rule that speaks again after an ok or a rollback gets a new one."""

    def __init__(self) -> None:
        self._cards: dict[tuple[str, str], Card] = {}

    def add(self, event: Event, at: float) -> None:
        """A `verdict` or an `action`; `at` is the step of its stage where it carries none."""
        step = number(event.get("step")) if math.isfinite(number(event.get("step"))) else at
        stage = str(event.get("stage") or "")
        if event.get("event") == "verdict":
            self._verdict(stage, step, event, number(event.get("time")))
        else:
            self._action(stage, step, event)

    def forget(self, kind: str) -> None:
        """Drop the cards of one kind of stage."""
        self._cards = {key: card for key, card in self._cards.items() if key[0] != kind}

    def _verdict(self, stage: str, step: float, said: Mapping[str, Any], time: float) -> None:
        key = (family(stage), str(said.get("rule") or ""))
        level = str(said.get("level") or "ok")
        card = self._cards.get(key)
        if level == "ok":
            if card is not None:
                card.over = True
            return
        if card is None or card.past:
            card = self._cards[key] = Card(stage=stage, rule=key[1], level=level, since_step=step, since=time)
        card.stage, card.level, card.last_step, card.count = stage, level, step, card.count + 1
        card.message = str(said.get("message") or "")
        card.cause, card.remedy = str(said.get("cause") or ""), str(said.get("remedy") or "")
        card.confidence = number(said.get("confidence"))

    def _action(self, stage: str, step: float, event: Event) -> None:
        evidence = event.get("evidence")
        named = event.get("rules")
        rules = [str(rule) for rule in named] if isinstance(named, list) else []
        records = [record for record in evidence if isinstance(record, dict)] if isinstance(evidence, list) else []
        rules += [str(record["rule"]) for record in records if record.get("rule") and str(record["rule"]) not in rules]
        for record in records:
            if (family(stage), str(record.get("rule") or "")) not in self._cards:
                self._verdict(stage, step, record, number(event.get("time")))
        for rule in rules or [str(event.get("action") or "action")]:
            key = (family(stage), rule)
            if key not in self._cards:
                self._verdict(
                    stage,
                    step,
                    {"rule": rule, "level": "act", "message": event.get("reason"), "remedy": event.get("remedy")},
                    number(event.get("time")),
                )
            self._cards[key].done.append(action_text(event, step))
        if event.get("taken") is not False and math.isfinite(number(event.get("to_step"))):
            for (kind, _), card in self._cards.items():
                card.undone |= kind == family(stage)

    def sorted(self) -> list[Card]:
        """Those that still hold before those that are past, the gravest first, then the newest."""

        def order(card: Card) -> tuple[bool, int, float]:
            newest = card.last_step if math.isfinite(card.last_step) else -1.0
            return (card.past, -GRAVITY.get(card.level, 1), -newest)

        return sorted(self._cards.values(), key=order)

    @property
    def gravest(self) -> Card | None:
        """The worst card that still holds."""
        return next((card for card in self.sorted() if not card.past), None)


def action_text(event: Event, step: float) -> str:
    """What was done, at which update, and which settings changed: one sentence without a full stop."""
    name = str(event.get("action") or "")
    done, advised = ACTIONS.get(name, (name, name))
    to_step = number(event.get("to_step"))
    if name in ("roll_back", "stop") and math.isfinite(to_step):
        weights = f"the weights of update {to_step:.0f}"
        joined = {"roll_back": ("went back to", "go back to"), "stop": ("stopped, keeping", "stop, and keep")}[name]
        done, advised = (f"{words} {weights}" for words in joined)
    when = f"update {step:.0f}: " if math.isfinite(step) else ""
    changed = _changes(event.get("before"), event.get("after"))
    changed = f" ({changed})" if changed else ""
    if event.get("taken") is False:
        return f"{when}advised only: {advised}{changed}"
    return f"{when}{done}{changed}"


def _changes(before: object, after: object) -> str:
    """`ppo.kl.initial 0.05 to 0.1`, for every setting that changed."""
    old = before if isinstance(before, Mapping) else {}
    new = after if isinstance(after, Mapping) else {}
    parts = [
        f"{name} {_short(old[name])} to {_short(value)}" if name in old else f"{name} {_short(value)}"
        for name, value in new.items()
        if name not in old or old[name] != value
    ]
    return ", ".join(parts)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
