"""The page that stands guards off beside guards on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keel.core.files import atomic_write_text
from keel.demo.hacking import Course, Guards
from keel.demo.story import told_of_guards
from keel.report.alarm_cards import action_card
from keel.report.html import document
from keel.report.markup import escape, paragraph, plot_grid, section
from keel.report.plots import STAND_INS, Plot, draw, names
from keel.report.units import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from keel.report.curves import Array

OFF, ON = "red", "teal"
FIGURES = (
    (
        "What the reward model says",
        "score_mean",
        "score",
        "The score that PPO raises. With guards off it climbs to the end: by this figure alone nothing is wrong.",
    ),
    ("How far it moved", "kl_nats_per_sequence", "nats per answer", "KL from SFT, the price paid for the score."),
    ("Length", "response_tokens_mean", "tokens", "Tokens of an answer. These raters like long ones."),
)
TRUE = "What is truly better, on held-out questions. No run sees it; the marks are evaluations."


def write_page(path: Path, guards: Guards) -> None:
    """Write the page: one figure of both runs, the alarm, and where each run's own report is."""
    atomic_write_text(path, document("guards off and on", render(guards)))


def render(guards: Guards) -> str:
    actions = guards.on.run.actions
    cards = [action for action in actions if action.rolled_back] or [a for a in actions if a.name == "stop"]
    told = "".join(paragraph(line) for line in told_of_guards(guards))
    figure = section(
        "One figure",
        "The same PPO from the same SFT model on the same reward model, whose raters love length and flattery. Red: "
        "guards off. Green: guards on; what it undid is dashed, and the line marks the alarm.",
        plot_grid([truth_plot(guards), *(run_plot(guards, *figure) for figure in FIGURES)]),
    )
    alarm = section(
        "The alarm that saved it" if len(cards) == 1 else "The alarms that saved it",
        "What the guardian saw, what it did, and the answers before and at the alarm.",
        "".join(action_card(action) for action in cards),
    )
    links = " ".join(
        f'<a href="{escape(course.place.name)}/report.html">{escape(words)}</a>'
        for course, words in ((guards.off, "guards off"), (guards.on, "guards on"))
    )
    return f"""<header>
<h1>{escape(title(guards))}</h1>
<div class="lead">{told}</div>
</header>
<nav>The reports of the runs: {links}</nav>
<section>{figure}</section>
{f"<section>{alarm}</section>" if cards else ""}"""


def title(guards: Guards) -> str:
    if not any(action.rolled_back for action in guards.on.run.actions):
        return "Guards off, guards on: nothing to stop in so short a run"
    return f"True reward at the end: {plain(guards.off.end)} with guards off, {plain(guards.on.end)} with guards on"


def truth_plot(guards: Guards) -> Plot:
    def paint(axes: "Axes") -> None:
        for course, colour, label in ((guards.off, OFF, "guards off"), (guards.on, ON, "guards on")):
            kept = ~course.abandoned
            axes.plot(
                course.at[kept], course.truth[kept], color=STAND_INS[colour], lw=1.5, marker="o", ms=3, label=label
            )
            dashed(axes, course, course.at, course.truth, colour)
        alarms(axes, guards.on)
        names(axes)

    return plot("The true reward", "true utility", TRUE, paint)


def run_plot(guards: Guards, name: str, figure: str, unit: str, look_for: str) -> Plot:
    def paint(axes: "Axes") -> None:
        for course, colour, label in ((guards.off, OFF, "guards off"), (guards.on, ON, "guards on")):
            steps = course.run.stages["ppo"].steps
            kept = ~steps.abandoned
            axes.plot(steps.at[kept], steps.get(figure)[kept], color=STAND_INS[colour], lw=1.5, label=label)
            dashed(axes, course, steps.at, steps.get(figure), colour)
        alarms(axes, guards.on)
        names(axes)

    return plot(name, unit, look_for, paint)


def dashed(axes: "Axes", course: Course, at: "Array", values: "Array", colour: str) -> None:
    """What a rollback undid, from where it went back to."""
    for back_to, until in course.run.stages["ppo"].steps.rollbacks:
        chosen = (at >= back_to) & (at <= until)
        axes.plot(at[chosen], values[chosen], color=STAND_INS[colour], lw=1, ls=(0, (3, 2)), alpha=0.7)


def alarms(axes: "Axes", course: Course) -> None:
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.1 * (top - bottom))  # room for the word
    for _, until in course.run.stages["ppo"].steps.rollbacks:
        axes.axvline(until, color=STAND_INS["ink"], lw=0.9, ls=(0, (1, 2)))
        axes.text(
            until, 0.985, " alarm", transform=axes.get_xaxis_transform(), va="top", fontsize=8, color=STAND_INS["ink"]
        )


def plot(name: str, unit: str, look_for: str, paint: Callable[["Axes"], None]) -> Plot:
    svg = draw(paint, name=f"{name}, guards off and on", unit=unit, steps="updates", wide=True, height=2.4)
    return Plot(title=name, look_for=look_for, svg=svg, wide=True)
