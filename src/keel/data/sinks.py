"""Rows into files, one at a time: whole or absent, the kind of file chosen by the suffix, `.gz` on top packed.

A table needs all its columns before its first line, so rows wait in a file of JSON lines beside it until the last one
is known. No kind of file holds more than a batch in memory.
"""

import contextlib
import csv
import gzip
import importlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from keel.core.errors import DataError
from keel.core.files import atomic_file
from keel.data.dialect import UnwritableError
from keel.data.rows import kind_of, restored

TABLES = {".csv": ",", ".tsv": "\t"}
BATCH = 5000  # rows of a Parquet row group
_HALVES = re.compile("[\ud800-\udfff]")
Write = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Write]:
    """A function that takes rows; `path` holds them all after leaving without an error, and is as before otherwise."""
    kind = kind_of(path)
    if kind not in SINKS:
        raise DataError(f"{path} has no suffix that keel writes. Known: {', '.join(SINKS)}, all but .parquet with .gz.")
    if kind == ".parquet" and path.suffix.lower() == ".gz":
        raise DataError(f"{path}: Parquet is packed inside; name it {path.name[:-3]}.")
    with atomic_file(path) as unfinished, SINKS[kind](unfinished, path) as write:
        yield write


def as_read(path: Path, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row as a reader of `path` will find it; UnwritableError where the kind of file cannot hold it."""
    kind = kind_of(path)
    if kind in TABLES:
        return restored({name: _cell(name, value) for name, value in values.items()})
    if kind == ".txt":
        return {"text": _line(values)}
    return values


@contextlib.contextmanager
def _lines(unfinished: Path, path: Path) -> Iterator[Write]:
    with _text(unfinished, path) as file:
        yield lambda values: _write(file, f"{_json(values)}\n")


@contextlib.contextmanager
def _array(unfinished: Path, path: Path) -> Iterator[Write]:
    before = "[\n"

    def write(values: Mapping[str, Any]) -> None:
        nonlocal before
        file.write(f"{before}{_json(values)}")
        before = ",\n"

    with _text(unfinished, path) as file:
        yield write
        file.write("\n]\n" if before == ",\n" else "[]\n")


@contextlib.contextmanager
def _texts(unfinished: Path, path: Path) -> Iterator[Write]:
    with _text(unfinished, path) as file:
        yield lambda values: _write(file, f"{_line(values)}\n")


@contextlib.contextmanager
def _table(unfinished: Path, path: Path) -> Iterator[Write]:
    with _staged(unfinished) as (write, staged, columns):
        yield write
        with _text(unfinished, path) as file:
            # a lone carriage return in a cell is quoted only where the line end holds one
            table = csv.writer(file, delimiter=TABLES[kind_of(path)], lineterminator="\r\n")
            table.writerow(columns)
            for values in staged():
                table.writerow([_cell(name, values.get(name)) for name in columns])


@contextlib.contextmanager
def _parquet(unfinished: Path, path: Path) -> Iterator[Write]:
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise DataError(f'{path}: Parquet needs pyarrow. Install it with pip install "keel-rlhf[train]".') from error
    with _staged(unfinished) as (write, staged, columns):
        yield write
        try:

            def batches() -> Iterator[list[dict[str, Any]]]:
                # every row with every column: a table is taken to have those of its first row
                return _batches({name: values.get(name) for name in columns} for values in staged())

            schemas = [arrow.Table.from_pylist(batch).schema for batch in batches()]
            schema = arrow.unify_schemas(schemas, promote_options="permissive")
            with parquet.ParquetWriter(unfinished, schema) as file:
                for batch in batches():
                    file.write_table(arrow.Table.from_pylist(batch, schema=schema))
        except arrow.ArrowException as error:
            raise DataError(
                f"{path}: a Parquet column has one type, and one of these has several, such as texts in some records "
                f"and chats in others ({error}). Write .jsonl, or turn all prompts into chats with --as-chat."
            ) from error


SINKS: dict[str, Callable[[Path, Path], contextlib.AbstractContextManager[Write]]] = {
    ".jsonl": _lines,
    ".ndjson": _lines,
    ".json": _array,
    ".csv": _table,
    ".tsv": _table,
    ".parquet": _parquet,
    ".txt": _texts,
}


@contextlib.contextmanager
def _staged(unfinished: Path) -> Iterator[tuple[Write, Callable[[], Iterator[dict[str, Any]]], dict[str, None]]]:
    """A place for rows to wait: (write, read them all, the columns seen so far in order)."""
    columns: dict[str, None] = {}
    staging = unfinished.with_name(f"{unfinished.name}-rows")
    try:
        with staging.open("w", encoding="utf-8", newline="\n") as file:

            def write(values: Mapping[str, Any]) -> None:
                columns.update(dict.fromkeys(values))
                file.write(f"{_json(values)}\n")

            def read() -> Iterator[dict[str, Any]]:
                file.flush()
                with staging.open(encoding="utf-8", newline="\n") as waiting:
                    for line in waiting:
                        yield json.loads(line)

            yield write, read, columns
    finally:
        staging.unlink(missing_ok=True)


@contextlib.contextmanager
def _text(unfinished: Path, path: Path) -> Iterator[TextIO]:
    with unfinished.open("wb") as raw:
        if path.suffix.lower() != ".gz":
            yield from _wrapped(raw)
            return
        # no name and no time in the header: the same rows give the same bytes
        with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            yield from _wrapped(packed)


def _wrapped(binary: Any) -> Iterator[TextIO]:
    file = io.TextIOWrapper(binary, encoding="utf-8", newline="")
    yield file
    file.flush()
    file.detach()


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _write(file: TextIO, text: str) -> None:
    file.write(text)


def _json(values: Any) -> str:
    text = json.dumps(values, ensure_ascii=False, default=str)
    return json.dumps(values, default=str) if not text.isascii() and _HALVES.search(text) else text


def _cell(name: str, value: Any) -> str:
    """A value as the text of a cell. Nothing is an empty cell; lists and objects are JSON."""
    if isinstance(value, str):
        if not value.isascii() and _HALVES.search(value):
            raise UnwritableError(f"{name} holds half of a surrogate pair, which no UTF-8 file can; write .jsonl")
        return value
    if value is None:
        return ""
    if isinstance(value, list | dict) and name in ANSWERS:
        raise UnwritableError(f"a cell of a table holds a text, and {name} is a chat; write .jsonl or .parquet")
    return _json(value)


ANSWERS = {"prompt", "response", "completion", "chosen", "rejected", "response_a", "response_b"}
"""Columns whose cells are read as texts, whatever they look like. The columns of `STRUCTURED` are read as JSON."""


def _line(values: Mapping[str, Any]) -> str:
    text = values.get("text")
    if set(values) != {"text"} or not isinstance(text, str):
        raise UnwritableError("a text file holds the format text and no other columns; write .jsonl")
    if "\n" in text or "\r" in text or text.startswith("\ufeff"):
        raise UnwritableError("a text file holds one text a line, and this one has line breaks; write .jsonl")
    return text
