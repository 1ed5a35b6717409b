"""Single keys from a person at a terminal; the first letter of each line from a pipe."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

END = "\x04"
"""What `Keys.read` gives when nothing more can come."""
ARROWS = {b"\x1b[D": "left", b"\x1b[C": "right", b"\x1bOD": "left", b"\x1bOC": "right"}


class Keys:
    """Keys as they come."""

    def __init__(self, descriptor: int, *, terminal: bool) -> None:
        self._descriptor = descriptor
        self.terminal = terminal
        """Whether keys come one by one; else lines do."""
        self._typed = b""
        self._ended = False

    def read(self, timeout_s: float | None = None) -> str | None:
        """The next key in lower case, `left`, `right`, or END; None when `timeout_s` pass, "" for what is no letter."""
        return self._pressed(timeout_s) if self.terminal else self._line(timeout_s)

    def forget(self) -> None:
        """Throw away what was typed before the question now on the screen could be read; a pipe knows its order."""
        if self.terminal:
            import termios

            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    def _pressed(self, timeout_s: float | None) -> str | None:
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return None
        typed = os.read(self._descriptor, 1024)
        if not typed or typed[:1] == END.encode():
            return END
        if typed[:1] == b"\x1b":
            return ARROWS.get(typed, "")
        return typed.decode("utf-8", "replace")[0].lower().strip()

    def _line(self, timeout_s: float | None) -> str | None:
        while b"\n" not in self._typed and not self._ended:
            if not select.select([self._descriptor], [], [], timeout_s)[0]:
                return None
            more = os.read(self._descriptor, 1024)
            self._typed += more
            self._ended = not more
        line, _, self._typed = self._typed.partition(b"\n")
        if not line and not self._typed and self._ended:
            return END
        return line.decode("utf-8", "replace").strip()[:1].lower()


@contextlib.contextmanager
def keyboard() -> Iterator[Keys]:
    """Standard input: keys without Return and without echo at a terminal, put back as it was afterwards.

    Where it is closed, nobody types: END at once.
    """
    if sys.stdin is None:
        with Path(os.devnull).open("rb") as nothing:
            yield Keys(nothing.fileno(), terminal=False)
        return
    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        yield Keys(descriptor, terminal=False)
        return
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor, terminal=True)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
