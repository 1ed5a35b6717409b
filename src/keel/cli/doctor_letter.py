"""The doctor's letter about a set of records, and the view of a record's tokens, for a terminal or a file."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from keel.cli.render import coloured
from keel.data.doctor.examine import Examination
from keel.data.doctor.finding import Finding, Severity, counted
from keel.data.doctor.tokens import Part, TokenView
from keel.report.values import printable

SIGNS: dict[Severity, tuple[str, str]] = {
    "error": ("✗", "bold red"),
    "warn": ("!", "bold yellow"),
    "ok": ("✓", "green"),
}
PARTS: dict[Part, tuple[str, tuple[str, str]]] = {
    "cut": ("cut away, never read", ("dim strike", "dim strike")),
    "prompt": ("prompt, no loss", ("cyan", "bright_cyan")),
    "context": ("between turns, no loss", ("cyan", "bright_cyan")),
    "learned": ("carries the loss", ("black on green", "black on bright_green")),
}
"""What a part is called, and the two styles that neighbouring tokens take in turn."""
SPECIAL = "bold magenta"
PLAIN_WIDTH = 100


def letter(examination: Examination, stream: TextIO | None = None, num_examples: int = 3) -> None:
    """Write the letter: headline, what is wrong with places and remedies, what is well."""
    with _paper(stream) as console:
        _write_letter(console, examination, num_examples)


def _write_letter(console: Console, examination: Examination, num_examples: int) -> None:
    patient = examination.patient
    facts = f"{counted(len(patient.entries), patient.kind.rstrip('s'), patient.kind)}, format {patient.format}"
    console.print(Text.assemble((printable(patient.name), "bold"), f"  {facts}"))
    console.print(Text(examination.headline, SIGNS[examination.severity][1]))
    for finding in examination.findings:
        if finding.severity != "ok":
            console.print()
            console.print(
                _grid(_sign(finding), Text.assemble((_name(finding), "bold"), f"  {printable(finding.message)}")),
            )
            if finding.remedy:
                console.print(Padding(_grid(Text("→", "green"), Text(finding.remedy)), (0, 0, 0, 2), expand=False))
            for example in finding.examples[:num_examples]:
                place = printable(example.source.rsplit("/", 1)[-1])
                line = Text.assemble((place, "cyan"), ("  " + printable(example.text), "dim"))
                line.truncate(max(20, console.width - 5), overflow="ellipsis")
                console.print(Padding(line, (0, 0, 0, 4), expand=False))
    well = [finding for finding in examination.findings if finding.severity == "ok"]
    if well:
        console.print()
        table = _table()
        for finding in well:
            table.add_row(_sign(finding), Text(_name(finding)), Text(printable(finding.message), "dim"))
        console.print(table)


def token_view(views: list[TokenView], source: str, max_tokens: int, stream: TextIO | None = None) -> None:
    """Write the sequences of a record: stretches of one part, tokens parted by bars, special ones by name."""
    with _paper(stream) as console:
        _write_tokens(console, views, source, max_tokens, bars=not coloured(stream or sys.stdout))


def _write_tokens(console: Console, views: list[TokenView], source: str, max_tokens: int, bars: bool) -> None:
    for view in views:
        counts = ", ".join(f"{view.count(part)} {PARTS[part][0]}" for part in PARTS if view.count(part))
        heading = Text.assemble((f"{source} {view.title}", "bold"), f"  {len(view.tokens)} tokens: {counts}")
        console.print(heading)
        console.print(Text(f"{view.fate} (max_tokens={max_tokens})", "yellow" if view.fate != "whole" else "green"))
        for part, tokens in view.runs():
            console.print(Text(f"  {PARTS[part][0]} ({len(tokens)})", "dim"))
            line = Text()
            for at, token in enumerate(tokens):
                style = SPECIAL if token.special else PARTS[part][1][at % 2]
                shown = printable(token.text).replace("\n", "↵\n").replace("\t", "→")
                line.append(shown, style)
                if bars and at + 1 < len(tokens) and not shown.endswith("\n"):
                    line.append("|")
            console.print(Padding(line, (0, 0, 0, 4), expand=False))
        console.print()


@contextlib.contextmanager
def _paper(stream: TextIO | None) -> Iterator[Console]:
    """A console whose lines reach the stream without white space at their ends."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    console = Console(
        file=stream, width=width, highlight=False, markup=False, emoji=False, no_color=not coloured(stream)
    )
    with console.capture() as written:
        yield console
    stream.write("".join(f"{line.rstrip()}\n" for line in written.get().splitlines()))


def _sign(finding: Finding) -> Text:
    sign, style = SIGNS[finding.severity]
    return Text(sign, style)


def _name(finding: Finding) -> str:
    return finding.rule.replace("_", " ")


def _grid(*cells: Text) -> Table:
    table = _table(len(cells))
    table.add_row(*cells)
    return table


def _table(columns: int = 3) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for at in range(columns):
        table.add_column(no_wrap=at < columns - 1)
    return table
