"""Text for people on a terminal, and for files and pipes without any control codes."""

import os
import sys
from typing import TextIO

from keel.report.values import printable

RED, FAINT, BOLD, PLAIN = "\033[31m", "\033[2m", "\033[1m", "\033[0m"


def coloured(stream: TextIO) -> bool:
    """True where colours show: a terminal, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: TextIO) -> str:
    return f"{style}{text}{PLAIN}" if coloured(stream) else text


def out(text: str = "") -> None:
    """The answer of a command, on standard output."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A line beside the answer, on standard error, so that the answer can be piped."""
    sys.stderr.write(f"{text}\n")


def fail(text: str) -> None:
    """What went wrong."""
    note(styled(f"keel: {text}", RED, sys.stderr))


def next_step(text: str) -> None:
    """The line that every command ends with."""
    note(styled(f"Next: {text}", FAINT, sys.stderr))


def clipped(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= width else line[: width - 1] + "…"


def columns(rows: list[list[str]], indent: str = "  ") -> str:
    """Rows of text with aligned columns, two spaces apart; the last column is not padded."""
    widths = [max(len(row[at]) for row in rows) for at in range(max(map(len, rows)) - 1)] if rows else []
    lines = []
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append(indent + "  ".join([*padded, row[-1]]).rstrip())
    return "\n".join(lines)
