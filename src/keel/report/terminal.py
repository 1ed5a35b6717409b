"""A run in the terminal: the same verdict, ladder and samples as on the report page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keel.report.curves import Array, Curves
from keel.report.parts import Phase, comparison_rows, cost_phases
from keel.report.read import read_run
from keel.report.records import RewardCard, Run, SamplePair
from keel.report.units import duration, percent, plain, signed
from keel.report.values import printable
from keel.report.words import Headline, accuracy_band, alarm_text, headline, key_figures

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = "_.-=+*#@"  # for terminals without Unicode
BAR_WIDTH = 32
TEXT_WIDTH = 58  # columns that stand beside a bar
WIDEST = 110  # columns; longer lines are hard to read
MOST_SAMPLES = 3
LONGEST_TEXT = 320  # characters of one answer
TONES = {"good": "bold green", "bad": "bold red", "open": "bold"}
LEVELS = {"watch": "yellow", "act": "red", "stop": "bold red"}
ROWS = (  # figure, name, unit, digits
    ("kl_nats_per_token", "KL per token", "nats", 2),
    ("kl_nats_per_sequence", "KL per answer", "nats", 1),
    ("score_mean", "score", "", 2),
    ("reward_mean", "shaped reward", "", 2),
    ("entropy_nats", "entropy", "nats per token", 2),
    ("response_tokens_mean", "length", "tokens", 1),
    ("distinct_2", "distinct-2", "", 2),
    ("unique_share", "unique answers", "", 2),
    ("explained_variance", "explained variance", "", 2),
    ("clip_fraction", "clipped tokens", "", 3),
    ("kl_coef", "KL coefficient β", "", 4),
)


@dataclass(frozen=True, slots=True)
class Ink:
    """What this terminal can draw bars and curves with."""

    blocks: str
    """Characters from the lowest to the highest."""
    width: int
    """Columns of a full bar."""

    def curve(self, values: Array) -> str:
        """`values` as a row of blocks from the lowest to the highest; a space where none is finite."""
        parts = np.array_split(values, min(self.width, len(values))) if len(values) else []
        means = [float(part[np.isfinite(part)].mean()) if np.isfinite(part).any() else math.nan for part in parts]
        known = [value for value in means if math.isfinite(value)]
        if not known:
            return ""
        low, span = min(known), max(known) - min(known)
        heights = [(value - low) / (span or 1.0) for value in means]
        last = len(self.blocks) - 1
        return "".join(
            self.blocks[min(last, int(height * len(self.blocks)))] if math.isfinite(height) else " "
            for height in heights
        )

    def bar(self, share: float) -> str:
        """A horizontal bar, `share` in [0, 1] of the full width; whatever is not nothing shows."""
        return self.blocks[-1] * max(1, round(share * self.width)) if share > 0 else ""


def show(run_dir: Path, console: Console | None = None) -> None:
    """Print what the run in `run_dir` came to, finished or not."""
    if console is None:
        console = Console(highlight=False)
        console.width = min(console.width, WIDEST)
    run = read_run(run_dir)
    ink = Ink(
        blocks=BLOCKS if console.encoding.lower().startswith("utf") else PLAIN_BLOCKS,
        width=max(8, min(BAR_WIDTH, console.width - TEXT_WIDTH)),
    )
    for title, body in _parts(run, ink):
        console.print()
        if title:
            console.print(Text(title, style="bold"))
        console.print(Padding(body, (0, 0, 0, 2)) if title else body)
    console.print()


def summary_text(run_dir: Path) -> str:
    """The verdict in plain words: a title, an empty line, and paragraphs."""
    verdict = headline(read_run(run_dir))
    return "\n\n".join(printable(text) for text in (verdict.title, *verdict.paragraphs))


def _parts(run: Run, ink: Ink) -> list[tuple[str, RenderableType]]:
    """(heading, body) of each part that has something to show."""
    parts: list[tuple[str, RenderableType]] = [("", _opening(run, headline(run))), ("", _figures(run))]
    if "ppo" in run.stages and len(run.stages["ppo"].steps):
        parts.append(("Reinforcement learning, from first to last update", _curves_table(run, ink)))
    if run.actions:
        parts.append(("What the guardian did", _actions(run)))
    if run.alarms:
        parts.append(("Alarms", _alarms(run)))
    if run.reward is not None:
        parts.append((f"{run.reward.who.capitalize()} on held-out pairs", _reward(run.reward, ink)))
    if "evaluate" in run.stages and (rows := comparison_rows(run.stages["evaluate"])):
        parts.append(("Against the model it started from", _plain_table(["", "before", "after"], rows)))
    if run.rounds:
        parts.append(("Rounds of labels", _rounds(run)))
    if run.samples:
        parts.append(("The same prompts, before and after", _samples(run.samples)))
    if phases := cost_phases(run):
        parts.append(("Where the time went", _costs(phases, ink)))
    return parts


def _opening(run: Run, verdict: Headline) -> RenderableType:
    about = [run.name, *(str(run.summary[key]) for key in ("model",) if run.summary.get(key))]
    if run.summary.get("seed") is not None:
        about.append(f"seed {run.summary['seed']}")
    lines: list[RenderableType] = [
        Text(printable(" · ".join(about)), style="dim"),
        Text(printable(verdict.title), style=TONES[verdict.tone]),
    ]
    for paragraph in verdict.paragraphs:
        lines += [Text(""), Text(printable(paragraph))]
    return Group(*lines)


def _figures(run: Run) -> Table:
    table = Table.grid(padding=(0, 2))
    for figure in key_figures(run):
        table.add_row(
            Text(figure.label, style="dim"), Text(figure.value, style="bold"), Text(printable(figure.note), style="dim")
        )
    return table


def _curves_table(run: Run, ink: Ink) -> Table:
    table = Table.grid(padding=(0, 2))
    stage = run.stages["ppo"]
    for name, title, unit, digits in ROWS:
        if stage.steps.has(name):
            _add_curve(table, stage.steps, name, title, unit, digits, ink)
        if name == "score_mean" and stage.evaluations.has("score"):
            _add_curve(table, stage.evaluations, "score", "held-out score", "", 2, ink)
    return table


def _add_curve(table: Table, curves: Curves, name: str, title: str, unit: str, digits: int, ink: Ink) -> None:
    first, last = curves.first(name), curves.last(name)
    wrong = len(curves.broken.get(name, ()))
    remark = f"{unit}  {wrong} not a number" if wrong else unit
    table.add_row(
        title,
        Text(ink.curve(curves.get(name)), style="cyan"),
        Text(plain(first, digits), justify="right"),
        Text("to", style="dim"),
        Text(plain(last, digits), style="bold", justify="right"),
        Text(remark, style="red" if wrong else "dim"),
    )


def _actions(run: Run) -> Table:
    table = Table.grid(padding=(0, 2))
    for action in run.actions:
        text = Text(printable(action.text))
        text.append(f"\n{printable(' '.join([*action.evidence, action.answer]).strip())}", style="dim")
        table.add_row(Text(printable(action.when), style="red" if action.rolled_back else "yellow"), text)
    return table


def _alarms(run: Run) -> Table:
    table = Table.grid(padding=(0, 2))
    for alarm in run.alarms:
        text = Text(printable(alarm_text(alarm)))
        if alarm.remedy:
            text.append(f"\n{printable(alarm.remedy)}", style="dim")
        times = f"{alarm.count} times" if alarm.count > 1 else ""
        table.add_row(Text(alarm.level, style=LEVELS.get(alarm.level, "yellow")), text, Text(times, style="dim"))
    return table


def _reward(card: RewardCard, ink: Ink) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    interval = f"{100 * card.low:.1f} to {100 * card.high:.1f}" if math.isfinite(card.low) else ""
    for name, share, style, note in (
        (card.who, card.accuracy, "bold cyan", interval),
        ("counting words", card.baseline_bag_of_words, "dim", ""),
        ("longer answer", card.baseline_longer, "dim", ""),
    ):
        if math.isfinite(share):
            table.add_row(
                name, Text(ink.bar(share), style=style), Text(percent(share), style=style), Text(note, style="dim")
            )
    remarks = [accuracy_band(card.accuracy)]
    if math.isfinite(card.ece):
        remarks.append(f"calibration error (ECE) {card.ece:.3f}")
    if card.best_of and math.isfinite(card.best_of_gain):
        remarks.append(f"best of {card.best_of} gains {signed(card.best_of_gain)}")
    return Group(table, Text("; ".join(remarks), style="dim"))


def _rounds(run: Run) -> Table:
    rows = [
        [
            str(entry.round),
            f"{entry.labels:.0f}" if math.isfinite(entry.labels) else "—",
            percent(entry.agreement),
            percent(entry.on_policy_accuracy_before),
            percent(entry.held_out_accuracy),
        ]
        for entry in run.rounds
    ]
    return _plain_table(["round", "labels", "raters agree", "right on fresh", "right on held-out"], rows)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 and not column else "right")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table


def _samples(pairs: Sequence[SamplePair]) -> RenderableType:
    lines: list[RenderableType] = []
    for number, pair in enumerate(pairs[:MOST_SAMPLES]):
        lines += [Text("")] if number else []
        lines.append(Text(_short(pair.prompt), style="bold"))
        table = Table.grid(padding=(0, 2))
        for side, answer, score in (
            ("before", pair.before, pair.score_before),
            ("after", pair.after, pair.score_after),
        ):
            if answer is not None:
                scored = signed(score) if math.isfinite(score) else ""
                table.add_row(Text(side, style="dim"), Text(scored, justify="right"), Text(_short(answer) or "(empty)"))
        lines.append(table)
    if len(pairs) > MOST_SAMPLES:
        lines += [Text(""), Text(f"{len(pairs) - MOST_SAMPLES} more in the report", style="dim")]
    return Group(*lines)


def _short(text: str) -> str:
    """`text` on one line, the middle of a long one left out: questions end, and answers begin, with what matters."""
    line = printable(" ".join(text.split()))
    half = LONGEST_TEXT // 2
    return line if len(line) <= LONGEST_TEXT else f"{line[:half]} … {line[-half:]}"


def _costs(phases: Sequence[Phase], ink: Ink) -> Table:
    total = math.fsum(phase.seconds for phase in phases)
    table = Table.grid(padding=(0, 2))
    for phase in phases:
        table.add_row(
            phase.title,
            Text(ink.bar(phase.seconds / total), style="cyan"),
            Text(duration(phase.seconds), justify="right"),
            Text(percent(phase.seconds / total, 0), style="dim", justify="right"),
        )
    return table
