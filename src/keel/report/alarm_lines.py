"""Alarm cards on a terminal: as long as there is room for."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from keel.report.cards import Card
from keel.report.units import duration
from keel.report.values import printable

INDENT = 10  # columns before the text of a card
MOST_LINES = 4  # of one paragraph
MOST_DONE = 3  # actions shown of one card
WAITING = 2  # cards that keep their head while a graver one is written out
STYLES = {"watch": "yellow", "act": "red", "stop": "bold red"}

Ranked = tuple[int, Text]
"""A line and its rank: where room is short, lines of a lower rank stay longest."""


def alarm_lines(cards: Sequence[Card], most: int | None, width: int, console: Console, now: float) -> list[Text]:
    """The cards in their order on at most `most` lines of `width` columns; all of them where that is None.

    `now` is in unix seconds, nan for a run that has ended.
    """
    whole = [_card(card, width, console, now) for card in cards]
    if most is None or sum(map(len, whole)) <= most:
        return [line for card in whole for _, line in card]
    lines: list[Text] = []
    shown = 0
    for at, card in enumerate(whole):
        left = most - len(lines)
        if left < 1:
            break
        lines += shortened(card, max(1, left - min(len(whole) - at - 1, WAITING)))
        shown += 1
    if lines and shown < len(whole):
        lines[-1] = Text.assemble(lines[-1], (f"  (+{len(whole) - shown} more)", "dim"))
    return lines


def _card(card: Card, width: int, console: Console, now: float) -> list[Ranked]:
    """What the rule says, since when, why, what was done, what a person can do."""
    style = "dim" if card.past else STYLES.get(card.level, "yellow")
    state = "over" if card.over else "undone by rollback" if card.undone else card.level
    head = Text.assemble(
        (f" {clean(state, console.encoding).upper()} ", f"reverse {style}"),
        " ",
        (clean(card.rule.replace("_", " "), console.encoding), "dim" if card.past else "bold"),
        (f"  {since(card, now)}", "dim"),
    )

    def paragraph(rank: int, label: str, text: str, style: str = "") -> list[Ranked]:
        cleaned = clean(text, console.encoding)
        if not cleaned:
            return []
        parts = list(Text(cleaned, style=style).wrap(console, max(20, width - INDENT)))[:MOST_LINES]
        for part in parts:
            part.rstrip()
        labels = [f"{label:>{INDENT - 2}}  ", *[" " * INDENT] * MOST_LINES]
        return [(rank, Text.assemble((labels[at], "dim"), part)) for at, part in enumerate(parts)]

    lines = [(0, head), *paragraph(1, "", card.message, "dim" if card.past else "")]
    if card.over:
        return lines[:2]
    sure = f"({100 * card.confidence:.0f} % sure)" if math.isfinite(card.confidence) else ""
    if card.undone:
        return lines[:2] + paragraph(2, "done", card.done[-1] if card.done else "", "dim")
    lines += paragraph(4, "why", f"{card.cause} {sure}")
    for text in card.done[-MOST_DONE:]:
        lines += paragraph(2 if text is card.done[-1] else 5, "done", text, "cyan")
    return lines + paragraph(3, "you can", card.remedy)


def since(card: Card, now: float) -> str:
    """From which update on, how often, how long ago."""
    parts = []
    if math.isfinite(card.since_step):
        unit = "update" if card.stage.startswith("ppo") else "step"
        parts.append(f"since {unit} {card.since_step:.0f}")
        if card.count > 1 and card.last_step > card.since_step:
            parts.append(f"{card.count} times, last at {card.last_step:.0f}")
    if math.isfinite(now) and math.isfinite(card.since):
        parts.append(ago(now - card.since))
    return ", ".join(parts)


def shortened(lines: Sequence[Ranked], room: int) -> list[Text]:
    """At most `room` of the lines, in their order, those of the lowest rank chosen first."""
    chosen = sorted(range(len(lines)), key=lambda at: (lines[at][0], at))[:room]
    return [lines[at][1] for at in sorted(chosen)]


def clean(text: str, encoding: str) -> str:
    """One line that cannot steer the terminal and that it can show."""
    return printable(" ".join(text.split())).encode(encoding, "replace").decode(encoding, "replace")


def ago(seconds: float) -> str:
    """Seconds since something happened, in words."""
    return f"{max(0.0, seconds):.0f} s ago" if seconds < 10 else f"{duration(seconds)} ago"
