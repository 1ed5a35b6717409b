"""A file of records written in another format or kind of file: as it is read, whole or not at all, nothing lost unsaid.

Each row that is written is read back and compared with the record it was made of, so what is lost is found, not
remembered. What stands in columns that nobody reads goes along.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keel.core.errors import DataError
from keel.core.progress import Progress, Silent
from keel.data.convert import as_chat_record, converted
from keel.data.detect import fitting
from keel.data.dialect import Dialect, Kind, UnwritableError
from keel.data.dialects import FORMATS
from keel.data.formats import DataConfig, explained, open_rows
from keel.data.losses import losses, of_kind, read_back
from keel.data.records import Record, record_key
from keel.data.rows import Place, RecordError, Row, Rows, num_lines
from keel.data.sinks import as_read, writing

OWN: dict[Kind, str] = {"comparisons": "comparison"}
"""keel's own format for what only a reader knows: vendors' deliveries are comparisons."""
CHATS = ("messages", "sharegpt")  # hold prompts as well as demonstrations
EVERY = 1000  # records between two signs of progress


@dataclass(kw_only=True)
class Conversion:
    """What was read, what was written, what was lost."""

    source: str
    format: str
    why: str
    out: Path
    to: str
    num_read: int = 0
    num_written: int = 0
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> records that could not be used
    lost: dict[str, int] = field(default_factory=dict)  # what -> records that lost it
    first: dict[str, str] = field(default_factory=dict)  # reason or what -> where first

    def lose(self, what: str, place: Place) -> None:
        self.lost[what] = self.lost.get(what, 0) + 1
        self.first.setdefault(what, str(place))

    def drop(self, reason: str, first: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.first.setdefault(reason, first)


def transcribe(
    config: DataConfig,
    out: Path,
    to: str | None = None,
    *,
    lossy: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write the records of `config` to `out` in the format `to`, by default the one they have; see the module.

    DataError, and no file, where something would be lost without `lossy`, where `out` is there without `replace`, and
    for unusable records unless `config.on_error` is "drop".
    """
    progress = progress or Silent()
    _check_out(Path(config.path), out, replace)
    source, why, rows = open_rows(config)
    target, kind = _target(config, source, to)
    done = Conversion(source=config.path, format=source.name, why=why, out=out, to=target.name)
    if target.chats == "only" and source.chats != "only":
        config = config.model_copy(update={"as_chat": True})
        done.notes.append(f"{target.name} holds chats: a text prompt becomes one user turn, a dialogue its turns")
    progress.start(f"convert {Path(config.path).name}", num_lines(Path(config.path)), "records")
    beside = _Beside(source, target)
    with writing(out) as write:
        for row, record in _records(config, source, target, kind, rows, done, progress):
            try:
                values = beside.added(row, _written(target, record), done)
                found = as_read(out, values)
                gone = losses(*_alike(target, row, record, read_back(target, row, found)))
            except UnwritableError as reason:
                done.lose(f"records that cannot be written: {reason}", row.place)
                continue
            for what in gone:
                done.lose(what, row.place)
            write(values)
            done.num_written += 1
        _check_done(done, lossy)
    progress.finish(f"{done.num_written:,} records in {out}")
    return done


def writable(kinds: tuple[Kind, ...]) -> list[str]:
    """The formats that records of one of these kinds can be written in."""
    return [d.name for d in FORMATS.values() if d.write and set(_takes(d)) & set(kinds)]


def _check_out(path: Path, out: Path, replace: bool) -> None:
    if out.is_dir():
        raise DataError(f"{out} is a folder; name the file to write, for example {out / 'records.jsonl'}.")
    if out.exists() and path.exists() and out.samefile(path):
        raise DataError(f"{out} is the file that is read. Give the new one another name.")
    if out.exists() and not replace:
        raise DataError(f"{out} is there already. Give another name, or --replace to write over it.")


def _target(config: DataConfig, source: Dialect, to: str | None) -> tuple[Dialect, Kind]:
    """The dialect to write, and the kind of record it takes of those that the source gives."""
    # comparisons of labelled texts need partners, which depend on the split; training makes them
    given = source.gives if source.gives[0] != "labelled texts" else source.gives[:1]
    target = FORMATS[to or (source.name if source.write else OWN[source.gives[0]])]
    kinds = [kind for kind in _takes(target) if kind in given]
    if target.write is None or not kinds:
        holds = f"{target.name} holds {target.gives[0]}" if target.write else f"{target.name} is what a vendor delivers"
        raise DataError(
            f"{config.path} is in the format {source.name}, which has {', '.join(given)}; {holds}. It can be written "
            f"as {', '.join(writable(given))}."
        )
    return target, kinds[0]


def _takes(target: Dialect) -> tuple[Kind, ...]:
    return ("demonstrations", "prompts") if target.name in CHATS else target.gives[:1]


def _records(
    config: DataConfig, source: Dialect, target: Dialect, kind: Kind, rows: Rows, done: Conversion, progress: Progress
) -> Iterator[tuple[Row, Record]]:
    """Every record to write, with the row it comes from."""
    gone = of_kind(source.gives[0], kind)
    seen: set[str] | None = set() if kind == "prompts" and source.gives[0] != "prompts" else None
    for row in rows:
        try:
            if isinstance(row, RecordError):
                raise row
            done.num_read += 1
            if done.num_read % EVERY == 0:
                progress.advance(EVERY)
            record = source.read(row)
            waits = target.name in CHATS and isinstance(record, str | tuple)
            made = list(converted(row, record, "prompts" if waits else kind, config.as_chat))
        except RecordError as error:
            bad = explained(error, row, source)
            if bad.harmless:
                done.lose(f"records that cannot be used: {bad.reason}", bad.place)
            elif config.on_error == "drop":
                done.drop(bad.reason, str(bad))
            else:
                raise DataError(f"{bad} With --on-error drop such records are left out and counted.") from error
            continue
        for record in made:
            if seen is not None and (key := record_key(record)) in seen:
                done.drop("prompt that came before", str(row.place))
                continue
            if seen is not None:
                seen.add(key)
            if gone:
                done.lose(gone, row.place)
            yield row, record
            if config.limit and done.num_written >= config.limit:
                return


def _written(target: Dialect, record: Record) -> dict[str, Any]:
    if target.write is None:
        raise UnwritableError(f"{target.name} is only read")
    return target.write(record)


def _alike(target: Dialect, row: Row, record: Record, back: Record) -> tuple[Record, Record]:
    """Both as chats where the format writes chats as one text and the record was none such."""
    if target.chats == "as text" and record != back:
        return as_chat_record(row, record), as_chat_record(row, back)
    return record, back


class _Beside:
    """What stands in a row besides what its reader looks at, and which of it the new format can take along."""

    def __init__(self, source: Dialect, target: Dialect) -> None:
        self._source, self._target = source, target
        self._taken: dict[str, bool] = {}

    def added(self, row: Row, values: dict[str, Any], done: Conversion) -> dict[str, Any]:
        """`values` with the columns that can be taken along; the others that say something are lost."""
        whole = dict(values)
        for name, value in self._source.beside(row.values).items():
            if self._takes(name, value, values):
                whole[name] = value
            elif value not in (None, "", [], {}) and whole.get(name) != value:
                done.lose(f"column {name}", row.place)
        for name in self._source.unread(row.values):
            done.lose(name, row.place)
        return whole

    def _takes(self, name: str, value: Any, values: dict[str, Any]) -> bool:
        """Whether the row stays what it is with the column beside it; decided once for each name."""
        if name not in self._taken:
            alike = (name not in values or name in self._target.passed or name == "id") and not self._target.strict
            self._taken[name] = alike and fitting(values | {name: value}) == fitting(values)
        return self._taken[name]


def _check_done(done: Conversion, lossy: bool) -> None:
    if not done.num_written and not done.lost:
        reasons = [text for reason, text in done.first.items() if reason in done.dropped]
        raise DataError(f"{done.source}: no record can be written." + (f" The first: {reasons[0]}" if reasons else ""))
    if done.lost and not lossy:
        parts = [f"{what} ({count:,} times, first at {done.first[what]})" for what, count in done.lost.items()]
        raise DataError(
            f"written as {done.to}, {done.source} would lose: {'; '.join(parts)}. Nothing was written. Add --lossy to "
            "go on all the same, or choose another --to; keel's own formats keep the most."
        )
    if not done.num_written:
        raise DataError(f"{done.source}: no record can be written as {done.to}; the reasons are above.")
