"""A set of records as the doctor sees it: every record with its place, and what could not be read at all."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from keel.core.errors import DataError
from keel.core.progress import Progress, Silent
from keel.data.doctor.finding import counted
from keel.data.formats import DataConfig, open_rows
from keel.data.records import (
    Comparison,
    Demonstration,
    LabelledText,
    Message,
    Prompt,
    Ranking,
    Rating,
    Record,
    prompt_text,
    text_key,
)
from keel.data.rows import RecordError, Row
from keel.data.snapshot import read_snapshot, snapshot_at
from keel.data.split import is_held_out
from keel.stats.arrays import Floats

_PLACE = re.compile(r"(?P<path>.*?), (?:line|record) (?P<number>\d+): (?P<fault>.*)", re.DOTALL)
KINDS = {
    "Comparison": "comparisons",
    "Demonstration": "demonstrations",
    "LabelledText": "labelled texts",
    "Rating": "ratings",
}
EVERY = 500  # records between two signs of progress


@dataclass(frozen=True, slots=True)
class Entry:
    """One record and where it stands; a ranking gives several, one a pair."""

    record: Record
    source: str  # "file:line"
    row: int = -1  # position among the rows read
    judge: str = ""  # who judged, where a column says so

    @property
    def prompt(self) -> Prompt:
        """What was asked; the empty text where nothing was."""
        match self.record:
            case Comparison() | Demonstration() | Rating() | Ranking():
                return self.record.prompt
            case LabelledText():
                return ""
            case _:
                return self.record

    @property
    def answers(self) -> tuple[str, ...]:
        """The texts that a model would learn from."""
        match self.record:
            case Comparison():
                return self.record.a, self.record.b
            case Demonstration() | Rating():
                return (self.record.response,)
            case LabelledText():
                return (self.record.text,)
            case _:
                return ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that could not be read."""

    source: str
    reason: str
    fault: str
    row: int = -1


@dataclass(frozen=True, kw_only=True)
class Patient:
    """The records of a set; what rules need of them is worked out once."""

    name: str
    entries: Sequence[Entry]
    refused: Sequence[Refused] = ()
    rows: Sequence[Row] = ()
    format: str = ""
    why: str = ""
    holdout: float = 0.1
    sided: bool = True
    """Whether a and b stand as the raters saw them, and not the better one first."""
    against: Sequence["Patient"] = ()
    """Sets that this one must share no prompt with."""
    kind: str = field(default="")

    @property
    def num_records(self) -> int:
        """Readable or not."""
        return len(self.entries) + len(self.refused)

    @cached_property
    def comparisons(self) -> list[tuple[int, Comparison]]:
        """Position and record of every comparison."""
        return [(at, e.record) for at, e in enumerate(self.entries) if isinstance(e.record, Comparison)]

    @cached_property
    def decided(self) -> list[tuple[int, Comparison]]:
        """The comparisons that are no tie."""
        return [(at, record) for at, record in self.comparisons if record.preference != 0.5]

    @cached_property
    def a_won(self) -> np.ndarray:
        """[decided] bool."""
        return np.array([record.preference > 0.5 for _, record in self.decided], dtype=bool)

    @cached_property
    def answers(self) -> list[tuple[int, str]]:
        """Every answer with the position of its record."""
        return [(at, text) for at, entry in enumerate(self.entries) for text in entry.answers]

    @cached_property
    def lengths(self) -> Floats:
        """Characters of each of `answers`."""
        return np.array([len(text) for _, text in self.answers], dtype=np.float64)

    @cached_property
    def asked(self) -> list[str]:
        """What each record is split by, as text: its prompt, or its (first) text where it has none."""
        return [prompt_text(entry.prompt) or entry.answers[0] for entry in self.entries]

    @cached_property
    def keys(self) -> list[str]:
        """The split's key of each record (`keel.data.records.record_key`), each distinct text hashed once."""
        known: dict[str, str] = {}
        for text in self.asked:
            if text not in known:
                known[text] = text_key(text)
        return [known[text] for text in self.asked]

    @cached_property
    def held_out(self) -> list[bool]:
        return [is_held_out(key, self.holdout) for key in self.keys]

    @cached_property
    def distinct_asked(self) -> dict[str, int]:
        """Key of each distinct prompt and the position of its first record, in order."""
        first: dict[str, int] = {}
        for at, key in enumerate(self.keys):
            first.setdefault(key, at)
        return first

    def source(self, at: int) -> str:
        return self.entries[at].source


def open_patient(config: DataConfig, against: Sequence[Patient] = (), progress: Progress | None = None) -> Patient:
    """Every record that `config` means; what cannot be read is kept aside, whatever `on_error` says."""
    progress = progress or Silent()
    dialect, why, found = open_rows(config)
    progress.start(f"reading {config.path}", None, "records")
    rows: list[Row] = []
    entries: list[Entry] = []
    refused: list[Refused] = []
    for number, row in enumerate(found, start=1):
        if number % EVERY == 0:
            progress.advance(EVERY)
        if isinstance(row, RecordError):
            refused.append(_refused(row))
            continue
        rows.append(row)
        try:
            entries.extend(_entries(row, dialect.read(row), len(rows) - 1))
        except RecordError as bad:
            refused.append(_refused(bad, len(rows) - 1))
        if config.limit and len(entries) >= config.limit:
            break
    kind = _kind(entries)
    entries, unanswered = _answered(entries, rows, kind)
    if not entries:
        first = f" The first: {refused[0].source}: {refused[0].fault}" if refused else ""
        raise DataError(f"{config.path} holds no record that can be read.{first}")
    progress.finish(counted(len(entries), kind.removesuffix("s")))
    return Patient(
        name=config.path,
        entries=entries,
        refused=[*refused, *unanswered],
        rows=rows,
        format=dialect.name,
        why=why,
        holdout=config.holdout,
        sided=_sided(config.path, dialect.columns, entries),
        against=against,
        kind=kind,
    )


def patient_of(records: Sequence[Record], name: str = "records", **known: object) -> Patient:
    """Records in memory as a patient, numbered from 1 where they carry no source."""
    entries: list[Entry] = []
    for number, record in enumerate(records, start=1):
        source = getattr(record, "source", "") or f"{name}:{number}"
        pieces = record.pairs() if isinstance(record, Ranking) else (record,)
        entries += [Entry(piece, source, number - 1) for piece in pieces]
    return Patient(name=name, entries=entries, kind=_kind(entries), **known)  # type: ignore[arg-type]


def roles_of(prompt: Prompt) -> list[str]:
    """The speakers of a chat so far; none of a text."""
    return [turn.role for turn in prompt if isinstance(turn, Message)] if not isinstance(prompt, str) else []


def _entries(row: Row, record: Record, at: int) -> Iterator[Entry]:
    judge = next((str(row.values[name]) for name in ("judge", "rater", "annotator") if row.values.get(name)), "")
    pieces = record.pairs() if isinstance(record, Ranking) else (record,)
    for piece in pieces:
        yield Entry(piece, row.place.source, at, judge)


def _kind(entries: Sequence[Entry]) -> str:
    """What most records are."""
    names = [KINDS.get(type(entry.record).__name__, "prompts") for entry in entries]
    return max(set(names), key=names.count) if names else "records"


def _answered(entries: list[Entry], rows: Sequence[Row], kind: str) -> tuple[list[Entry], list[Refused]]:
    """Among demonstrations, chats that still wait for the assistant are faults."""
    if kind != "demonstrations":
        return entries, []
    waiting = [entry for entry in entries if not entry.answers]
    fault = "the chat ends before the assistant answers, so there is nothing to imitate."
    return [entry for entry in entries if entry.answers], [
        Refused(entry.source, "no answer", fault, entry.row) for entry in waiting
    ]


def _refused(bad: RecordError, row: int = -1) -> Refused:
    placed = _PLACE.fullmatch(str(bad))
    if placed is None:
        return Refused("", bad.reason, str(bad), row)
    return Refused(f"{placed['path']}:{placed['number']}", bad.reason, placed["fault"], row)


def _sided(path: str, columns: Sequence[str], entries: Sequence[Entry]) -> bool:
    """Chosen-and-rejected formats put the better answer first; a snapshot remembers the format that it was made of."""
    if snapshot_at(path) and "sided" in (manifest := read_snapshot(path).manifest):
        return bool(manifest["sided"])
    if any(isinstance(e.record, Comparison) and e.record.preference < 0.5 for e in entries):
        return True
    return bool({"preference", "votes", "choice"} & set(columns))
