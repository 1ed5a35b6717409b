"""Alarms on the page: what the guardian did, as cards with their reasons, and what every rule had to say."""

import math
from collections.abc import Sequence

from keel.report.markup import escape, section
from keel.report.parts import samples_table
from keel.report.records import Action, Alarm, Run
from keel.report.units import sureness
from keel.report.words import alarm_text

SHOWN = 3
"""Pairs of samples that stand open on a card; the others wait behind a fold."""


def alarms_section(run: Run) -> str:
    if not run.alarms and not run.actions:
        return ""
    body = "".join(action_card(action) for action in run.actions)
    if run.alarms:
        listed = alarm_list(run.alarms)
        several = f"<summary>What the rules said, one by one ({len(run.alarms)})</summary>"
        body += f"<details>{several}{listed}</details>" if run.actions else listed
    introduction = (
        "What the guardian did, in the order in which it did it: what it saw, since when, what it changed."
        if run.actions
        else "What the rules that watch a run had to say, gravest first."
    )
    return section("What was the run warned about?", introduction, body)


def action_card(action: Action) -> str:
    """What, since when, why, what was done, what a person can do; with samples where some were taken."""
    rows = [
        ("since", f"update {action.since:.0f}" if math.isfinite(action.since) else ""),
        ("seen", " ".join(action.evidence)),
        ("answer", action.answer),
        ("why", " ".join(action.causes)),
        ("you can", " ".join([*action.remedies, advise_only(action)])),
    ]
    facts = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows if text)
    sure = f", {sureness(action.confidence)}" if math.isfinite(action.confidence) else ""
    kind = "stop" if action.rolled_back or action.name == "stop" else "watch"
    title = escape(f"The guardian {action.text}")
    return (
        f'<article class="card {kind}"><p class="small">{escape(action.when + sure)}</p><h3>{title}</h3>'
        f"<dl>{facts}</dl>{_samples(action)}</article>"
    )


def advise_only(action: Action) -> str:
    """How to keep the guardian from doing this by itself."""
    if not action.taken or not action.rules:
        return ""
    rules = ", ".join(f"{rule}: advise" for rule in action.rules)
    return f"To be advised only, and not acted for: guardian.rules: {{{rules}}}."


def _samples(action: Action) -> str:
    if not action.samples:
        return ""
    sides = (f"update {action.to_step:.0f}, gone back to", f"update {action.step:.0f}, at the alarm")
    return samples_table(action.samples, both=True, comparable=True, sides=sides, opened=SHOWN)


def alarm_list(alarms: Sequence[Alarm]) -> str:
    items = []
    for alarm in alarms:
        kind = alarm.level if alarm.level in ("act", "stop") else "watch"
        remedy = f'<p class="small">{escape(alarm.remedy)}</p>' if alarm.remedy else ""
        origin = escape(f"{alarm.level} · rule {alarm.rule} · {_when(alarm)}")
        items.append(f'<li class="{kind}"><p>{escape(alarm_text(alarm))}</p>{remedy}<p class="small">{origin}</p></li>')
    return f'<ul class="alarms">{"".join(items)}</ul>'


def _when(alarm: Alarm) -> str:
    """In which stage, at which steps, how often."""
    if not math.isfinite(alarm.first_step):
        return f"{alarm.stage}, {alarm.count} times" if alarm.count > 1 else alarm.stage
    if alarm.count == 1:
        return f"{alarm.stage}, step {alarm.first_step:.0f}"
    return f"{alarm.stage}, {alarm.count} times from step {alarm.first_step:.0f} to {alarm.last_step:.0f}"
