"""trackio, local in its own folder (TRACKIO_DIR) unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL name a place."""

import contextlib
import contextvars
import io
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TextIO

import trackio

from keel.stages.trackers.base import PROJECT, Note, Place, Sample

LEVELS = {"watch": trackio.AlertLevel.WARN, "act": trackio.AlertLevel.ERROR, "stop": trackio.AlertLevel.ERROR}


class Trackio:
    """One run of the project TRACKIO_PROJECT (or keel)."""

    durable = True

    def __init__(self, place: Place) -> None:
        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        self.identity = place.known or f"{place.name}-{place.key}"
        with quiet():
            # In a context of its own: trackio would finish the run of this one once more when Python ends.
            self.run = contextvars.copy_context().run(
                trackio.init,
                project=project,
                name=self.identity,
                config=dict(place.config),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self.where = f"run {self.identity}; look at it with: trackio show --project {project}"

    def scalars(self, stage: str, step: int, time: float, figures: Mapping[str, float]) -> None:
        self.run.log({f"{stage}/{name}": value for name, value in figures.items()}, step=step)

    def note(self, stage: str, step: int, time: float, note: Note) -> None:
        level = LEVELS.get(note.level, trackio.AlertLevel.INFO)
        with quiet():
            self.run.alert(title=note.title, text=note.text, level=level, step=step)

    def samples(self, stage: str, step: int, time: float, samples: Sequence[Sample]) -> None:
        rows = [[sample.prompt, sample.response, sample.score] for sample in samples]
        self.run.log({f"{stage}/samples": trackio.Table(columns=["prompt", "response", "score"], data=rows)}, step=step)

    def final(self, stage: str, time: float, figures: Mapping[str, float]) -> None:
        self.run.log({f"{stage}/final/{name}": value for name, value in figures.items()}, step=0)

    def close(self, *, succeeded: bool) -> None:
        with quiet():
            self.run.finish()


class Muted(io.TextIOBase):
    """Standard output without what one thread prints; what others print passes."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.muted = stream, threading.get_ident()

    def write(self, text: str, /) -> int:
        return len(text) if threading.get_ident() == self.muted else self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()


def quiet() -> contextlib.redirect_stdout[Muted]:
    """Trackio prints what it does; the terminal is the run's, which says its alarms itself."""
    return contextlib.redirect_stdout(Muted(sys.stdout))
