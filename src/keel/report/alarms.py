"""What rules said of a run and what the guardian did about it, read back from the events."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keel.report.cards import Cards, action_text
from keel.report.records import GRAVITY, Action, Alarm, SamplePair
from keel.report.stage_log import Event
from keel.report.values import number, prompt_as_text, whole


def read_alarms(events: Sequence[Event]) -> tuple[Alarm, ...]:
    """Rules that spoke up, gravest first, one entry for each stage, rule and level.

    A verdict without a step of its own belongs to the step last logged by its stage.
    """
    groups: dict[tuple[str, str, str], list[tuple[float, Event]]] = {}
    at: dict[object, float] = {}
    for event in events:
        stage = event.get("stage")
        if event.get("event") == "step":
            at[stage] = number(event.get("step"))
        elif event.get("event") == "verdict" and event.get("level") not in (None, "ok"):
            step = number(event.get("step")) if whole(event.get("step")) else at.get(stage, math.nan)
            key = (str(stage or ""), str(event.get("rule", "")), str(event["level"]))
            groups.setdefault(key, []).append((step, event))
    alarms = [
        Alarm(
            stage=stage,
            level=level,
            rule=rule,
            message=str(group[-1][1].get("message") or ""),
            remedy=str(group[-1][1].get("remedy") or ""),
            count=len(group),
            first_step=group[0][0],
            last_step=group[-1][0],
        )
        for (stage, rule, level), group in groups.items()
    ]
    return tuple(sorted(alarms, key=lambda alarm: -GRAVITY.get(alarm.level, 1)))


def read_actions(events: Sequence[Event]) -> tuple[Action, ...]:
    """What the guardian did or advised, oldest first, each with what its rules said by then."""
    actions: list[Action] = []
    said: dict[tuple[str, str], Event] = {}
    for at, event in enumerate(events):
        if event.get("event") == "verdict":
            said[str(event.get("stage") or ""), str(event.get("rule") or "")] = event
        elif event.get("event") == "action":
            actions.append(_action(event, said, _answer(events[:at], event), _at_alarm(events, at)))
    return tuple(actions)


def _answer(earlier: Sequence[Event], asked: Event) -> str:
    """What judges said of the policy of this step, if they were asked about it and have answered."""
    if asked.get("action") != "ask_humans":
        return ""
    for event in reversed(earlier):
        if event.get("stage") == asked.get("stage") and event.get("step") != asked.get("step"):
            return ""
        if event.get("event") == "checked":
            won, pairs, ties = (number(event.get(name)) for name in ("wins", "verdicts", "ties"))
            even = f" (ties: {ties:.0f})" if ties > 0 else ""
            return f"They preferred the policy to SFT in {won:.0f} of {pairs:.0f} pairs{even}."
    return ""


def _action(
    event: Event, said: Mapping[tuple[str, str], Event], answer: str, samples: tuple[SamplePair, ...]
) -> Action:
    stage, step = str(event.get("stage") or ""), number(event.get("step"))
    listed = event.get("evidence")
    evidence = [record for record in listed if isinstance(record, dict)] if isinstance(listed, list) else []
    heard = [said[stage, str(r.get("rule"))] for r in evidence if (stage, str(r.get("rule"))) in said]
    named = event.get("rules")
    since = [number(figures.get("since")) for r in evidence if isinstance(figures := r.get("figures"), dict)]
    sentences = _distinct(record.get("message") for record in evidence)
    return Action(
        stage=stage,
        step=step,
        since=min((value for value in since if math.isfinite(value)), default=math.nan),
        taken=event.get("taken") is not False,
        name=str(event.get("action") or ""),
        text=action_text(event, math.nan),
        rules=_distinct(named if isinstance(named, list) else []),
        evidence=sentences or _distinct([event.get("reason")]),
        causes=_distinct(verdict.get("cause") for verdict in heard),
        remedies=_distinct([event.get("remedy"), *(verdict.get("remedy") for verdict in heard)]),
        confidence=number(event.get("confidence")),
        answer=answer,
        to_step=number(event.get("to_step")),
        samples=samples,
    )


def _distinct(texts: Any) -> tuple[str, ...]:
    """The texts that say something, each once."""
    return tuple(dict.fromkeys(str(text) for text in texts if text))


def _at_alarm(events: Sequence[Event], at: int) -> tuple[SamplePair, ...]:
    """Samples of the policy that raised the alarm, taken before the rollback at `events[at]`, beside those after it."""
    step, stage = events[at].get("step"), events[at].get("stage")

    def samples(near: Iterator[Event], *, alarm: bool) -> list[Mapping[str, Any]]:
        for event in near:
            if event.get("stage") != stage or event.get("step") != step or event.get("event") == "step":
                return []
            if event.get("event") == "samples" and (event.get("moment") == "alarm") == alarm:
                listed = event.get("samples")
                return [sample for sample in listed if isinstance(sample, dict)] if isinstance(listed, list) else []
        return []

    before = samples((events[i] for i in range(at - 1, -1, -1)), alarm=True)
    return side_by_side(samples((events[i] for i in range(at + 1, len(events))), alarm=False), before) if before else ()


def side_by_side(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> tuple[SamplePair, ...]:
    """Answers to the same prompts; the n-th time a prompt occurs meets the n-th time on the other side."""
    pairs: dict[tuple[str, int], dict[str, Mapping[str, Any]]] = {}
    for side, samples in (("before", before), ("after", after)):
        seen: dict[str, int] = {}
        for sample in samples:
            prompt = prompt_as_text(sample.get("prompt"))
            seen[prompt] = seen.get(prompt, 0) + 1
            pairs.setdefault((prompt, seen[prompt]), {})[side] = sample
    return tuple(
        SamplePair(
            prompt=prompt,
            before=str(sides["before"].get("response", "")) if "before" in sides else None,
            after=str(sides["after"].get("response", "")) if "after" in sides else None,
            score_before=number(sides.get("before", {}).get("score")),
            score_after=number(sides.get("after", {}).get("score")),
        )
        for (prompt, _), sides in pairs.items()
    )


def in_doubt(events: Sequence[Event]) -> bool:
    """Whether a rule's alarm to act or stop still stands at the end."""
    cards = Cards()
    for event in events:
        if event.get("event") in ("verdict", "action"):
            cards.add(event, math.nan)
    return any(card.level in ("act", "stop") and not card.past for card in cards.sorted())
