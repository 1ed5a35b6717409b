"""What happened during a run, one JSON line an event, in the order it happened."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keel.core.errors import ArtifactError
from keel.core.files import atomic_write_text, explained_when_full

Event = dict[str, Any]


class EventLog:
    """Appends to a file of events. A line is with the operating system before `append` returns."""

    def __init__(self, path: Path) -> None:
        """Opens or begins the log; half a line that a killed writer left at the end is dropped."""
        self.path = path
        self.heard: Callable[[Event], None] | None = None
        """Told of every event once it is in the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)

    def append(self, event: str, **fields: Any) -> None:
        """Add one event with the time in unix seconds. NumPy and torch scalars become numbers, nan and inf null."""
        record = {"time": round(time.time(), 3), "event": event, **fields}
        written = plain(record)
        line = json.dumps(written, ensure_ascii=False, allow_nan=False) + "\n"
        with explained_when_full(self.path), self.path.open("ab", buffering=0) as file:
            file.write(line.encode())
        if self.heard is not None:
            self.heard(written)

    def rewind(self, stage: str, step: int) -> None:
        """Drop the events of `stage` with a later `step`, so that resuming from `step` writes none of them twice."""
        self.drop(lambda event: event.get("stage") == stage and (event.get("step") or 0) > step)

    def drop(self, unwanted: Callable[[Event], bool]) -> None:
        """Drop the events for which `unwanted` is True, atomically."""
        events = read_events(self.path)
        kept = [event for event in events if not unwanted(event)]
        if len(kept) < len(events):
            atomic_write_text(self.path, "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in kept))


def read_events(path: Path) -> list[Event]:
    """The events of a log, possibly one that is being written: half a line at the end is left out.

    No file means no events.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise ArtifactError(
                f"{path}, line {number}: not an event, the file is damaged. Remove the line."
            ) from error
        if not isinstance(event, dict):
            raise ArtifactError(f"{path}, line {number}: not an event, the file is damaged. Remove the line.")
        events.append(event)
    return events


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: nan and inf become None, NumPy and torch values lists and numbers."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, type(None))):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, torch tensors
        return plain(value.tolist())
    raise TypeError(f"an event cannot hold a {type(value).__name__}")
