"""Progress on standard error: a bar with the time left on a terminal, a line every tenth in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from keel.core import progress as core
from keel.report.units import duration


class Pace:
    """How far the work is, and how long the rest will take at the pace so far.

    The first `advance` may report work of an earlier, interrupted run; it does not count towards the pace.
    """

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self._clock = clock
        self._begun = clock()
        self._origin: tuple[int, float] | None = None

    def advance(self, n: int) -> None:
        self.done += n
        if self._origin is None:
            self._origin = (self.done, self._clock()) if n != 1 else (0, self._begun)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._begun

    @property
    def seconds_left(self) -> float | None:
        """None while nobody can know."""
        if self.total is None or self._origin is None or self.done <= self._origin[0]:
            return None
        per_unit = (self._clock() - self._origin[1]) / (self.done - self._origin[0])
        return max(self.total - self.done, 0) * per_unit


class Lines:
    """Progress for logs: plain lines, no control codes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage, self._unit = "", ""
        self._pace = Pace(None)
        self._last_tenth = 0
        self._last_line_s = 0.0

    def start(self, stage: str, total: int | None, unit: str) -> None:
        self._stage, self._unit = stage, unit
        self._pace = Pace(total)
        self._last_tenth, self._last_line_s = 0, 0.0
        self.say(f"{stage}: started" + (f", {total} {unit}" if total is not None else ""))

    def advance(self, n: int = 1, **figures: Any) -> None:
        pace = self._pace
        pace.advance(n)
        if pace.total is None:
            if pace.seconds - self._last_line_s < SECONDS_BETWEEN_LINES:
                return
            share = ""
        else:
            tenth = 10 * pace.done // max(pace.total, 1)
            if tenth <= self._last_tenth:
                return
            self._last_tenth = tenth
            share = f"/{pace.total}"
        self._last_line_s = pace.seconds
        left = f", {duration(pace.seconds_left)} left" if pace.seconds_left else ""
        self.say(f"{self._stage}: {pace.done}{share} {self._unit}{left}{_joined(figures)}")

    def finish(self, summary: str) -> None:
        self.say(f"{self._stage}: done in {duration(self._pace.seconds)}. {summary}".rstrip())

    def say(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None: ...


class Bar:
    """Progress for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._stage, self._unit = "", ""
        self._pace = Pace(None)
        self._bar: Any = None
        self._task: Any = None

    def start(self, stage: str, total: int | None, unit: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.close()
        self._stage, self._unit = stage, unit
        self._pace = Pace(total)
        text = {"markup": False}
        self._bar = Progress(
            TextColumn("{task.description}", **text),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", **text),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task(stage, total=total, state=self._state({}))
        self._bar.start()

    def advance(self, n: int = 1, **figures: Any) -> None:
        self._pace.advance(n)
        if self._bar is not None:
            self._bar.update(self._task, advance=n, state=self._state(figures))

    def finish(self, summary: str) -> None:
        self.close()
        self.say(f"✓ {self._stage} ({duration(self._pace.seconds)}) {summary}".rstrip())

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _state(self, figures: dict[str, Any]) -> str:
        pace = self._pace
        total = f"/{pace.total}" if pace.total is not None else ""
        left = f", {duration(pace.seconds_left)} left" if pace.seconds_left else ""
        return f"{pace.done}{total} {self._unit}, {duration(pace.seconds)}{left}{_joined(figures)}"


SECONDS_BETWEEN_LINES = 30.0  # where the total is unknown

_typecheck: tuple[type[core.Progress], ...] = (Lines, Bar)


@contextlib.contextmanager
def watching(stream: TextIO | None = None) -> Iterator[core.Progress]:
    """A Progress that suits the stream (standard error), put away however the work ends."""
    stream = sys.stderr if stream is None else stream
    progress = Bar(stream) if stream.isatty() else Lines(stream)
    try:
        yield progress
    finally:
        progress.close()


def _joined(figures: dict[str, Any]) -> str:
    shown = [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
    ]
    return f"  {', '.join(shown)}" if shown else ""
