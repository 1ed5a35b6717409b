"""Event files for TensorBoard, in the run folder; written by the package `tensorboard`, without torch."""

from collections.abc import Mapping, Sequence

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from keel.stages.trackers.base import Note, Place, Sample, flat, indented, table


class TensorBoard:
    """One folder of event files; a later attempt adds a file to it."""

    durable = True

    def __init__(self, place: Place) -> None:
        self.identity = place.known or f"tensorboard/{place.key}"
        folder = place.directory / self.identity
        self.where = f"{folder}; look at it with: tensorboard --logdir {place.directory / 'tensorboard'}"
        self.writer = EventFileWriter(str(folder))
        if place.known is None:
            rows = "\n".join(f"{name}: {value}" for name, value in flat(place.config).items())
            self._text("recipe", 0, None, indented(rows))

    def scalars(self, stage: str, step: int, time: float, figures: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=f"{stage}/{name}", simple_value=value) for name, value in figures.items()]
        self.writer.add_event(Event(wall_time=time, step=step, summary=Summary(value=values)))
        self.writer.flush()

    def note(self, stage: str, step: int, time: float, note: Note) -> None:
        self._text(f"{stage}/alarms/{note.rule}", step, time, f"**{note.title}**\n\n{indented(note.text)}")

    def samples(self, stage: str, step: int, time: float, samples: Sequence[Sample]) -> None:
        self._text(f"{stage}/samples", step, time, table(samples))

    def final(self, stage: str, time: float, figures: Mapping[str, float]) -> None:
        self.scalars(stage, 0, time, {f"final/{name}": value for name, value in figures.items()})

    def _text(self, tag: str, step: int, time: float | None, text: str) -> None:
        shown = create_summary_metadata(display_name="", description="")
        value = Summary.Value(tag=tag, metadata=shown, tensor=make_tensor_proto([text.encode()]))
        event = Event(step=step, summary=Summary(value=[value]))
        if time is not None:
            event.wall_time = time
        self.writer.add_event(event)
        self.writer.flush()

    def close(self, *, succeeded: bool) -> None:
        self.writer.close()
