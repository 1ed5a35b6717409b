"""A log of events that somebody else is writing, read piece by piece."""

import json
from pathlib import Path

from keel.core.events import Event

AT_ONCE = 16 << 20  # bytes of one look
REMEMBERED = 256  # bytes before the reading position; when they change, the log was written anew


class Follower:
    """Reads what was added to `path` since the last look; the file may be absent, grow, be replaced or be cut short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Whole lines so far that were no events."""
        self._position = 0
        self._before = b""

    def look(self) -> tuple[bool, list[Event]]:
        """Whether the log was written anew, so that everything earlier is to be forgotten, and the events to add.

        A resumed run writes its log anew, without the events that will happen again. Half a line at the end waits for
        the next look, and so does what lies further than AT_ONCE.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._position - len(self._before))
                data = file.read(AT_ONCE)
                anew = not data.startswith(self._before)
                if anew:
                    self._position, self._before, self.damaged = 0, b"", 0
                    file.seek(0)
                    data = file.read(AT_ONCE)
        except FileNotFoundError:
            anew, data = self._position > 0, b""
            self._position, self._before, self.damaged = 0, b"", 0
        whole = data[len(self._before) : data.rfind(b"\n") + 1]
        self._position += len(whole)
        self._before = (self._before + whole)[-REMEMBERED:]
        return anew, [event for line in whole.splitlines() if (event := self._parsed(line)) is not None]

    def _parsed(self, line: bytes) -> Event | None:
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict):
            return event
        self.damaged += 1
        return None
