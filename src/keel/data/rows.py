"""Raw rows out of files, each with its place, before anyone asks what they mean.

One reader a file type, in `READERS`. A line that cannot be parsed comes out as a `RecordError`, so that whoever reads
decides whether to stop or to count it; a damaged file stops at once.
"""

import contextlib
import csv
import gzip
import importlib
import io
import json
import re
import zlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from keel.core.errors import DataError
from keel.data.json_rows import CHUNK, MAX_LINE, numbered, read_json, read_json_lines, too_long
from keel.data.places import Place, RecordError, Row, Rows, Values, kind_of, line_text, not_utf8, opened

BATCH = 1000  # rows of a Parquet file in memory
STRUCTURED = {"messages", "conversations", "history", "votes", "completions", "responses", "scores", "ranks", "models"}
"""Columns that hold lists or objects. In the cells of a table they are JSON."""


def read_file(path: Path) -> Rows:
    """Rows of one file, the reader chosen by its suffix; `.gz` on top is unpacked on the way."""
    reader = READERS[kind_of(path)]
    try:
        yield from reader(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}). Copy or download it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def find_files(path: Path, split: str) -> list[Path]:
    """The data files that `path` means: itself, or the files of a folder that belong to `split`.

    In a folder with several files those count whose name starts with the split ("train.jsonl", "train-00000.parquet").
    """
    if not path.exists():
        raise DataError(missing(path))
    if path.is_file():
        if kind_of(path) not in READERS:
            raise DataError(f"{path} has no suffix that keel reads. Known: {', '.join(READERS)}, also with .gz.")
        return [path]
    files = sorted(f for f in path.iterdir() if f.is_file() and kind_of(f) in READERS and f.name[0] not in "._")
    if not files:
        raise DataError(f"{path} is a folder without data files. Known suffixes: {', '.join(READERS)}, also with .gz.")
    of_split = [f for f in files if re.match(rf"{re.escape(split)}([-_.]|$)", f.name)]
    if of_split:
        return of_split
    if len(files) == 1:
        return files
    names = ", ".join(f.name for f in files[:8]) + (", ..." if len(files) > 8 else "")
    raise DataError(
        f"{path} holds several data files and none is named after the split {split!r}: {names}. "
        f"Set path to one of them, or split to how its name starts."
    )


def num_lines(path: Path) -> int | None:
    """Line ends in a file of lines that is not packed, counted quickly; None for others."""
    if not path.is_file() or path.suffix.lower() not in (".jsonl", ".ndjson", ".csv", ".tsv", ".txt"):
        return None
    with path.open("rb") as file:
        return sum(piece.count(b"\n") for piece in iter(lambda: file.read(CHUNK), b""))


def missing(path: Path) -> str:
    """What to say of a path that is not there, with the nearest names beside it."""
    parent = path.parent
    siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    where = "" if parent.is_dir() else f" The folder {parent} does not exist either."
    return f"{path} does not exist.{where}{hint} A path is taken from the folder keel was started in."


def read_csv(path: Path) -> Rows:
    return _read_table(path, ",")


def read_tsv(path: Path) -> Rows:
    return _read_table(path, "\t")


def _read_table(path: Path, delimiter: str) -> Rows:
    csv.field_size_limit(MAX_LINE)
    with opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        start = 1
        try:
            header = next(reader, None)
            if not header:
                raise DataError(f"{path} is empty: a header line with the column names was expected.")
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise DataError(f"{path}, line 1: column {twice[0]!r} stands twice. Rename one of them.")
            other = next((mark for mark in ",;\t" if len(header) == 1 and mark in header[0]), "")
            if other:
                names = {",": "commas", ";": "semicolons", "\t": "tabs"}
                raise DataError(
                    f"{path}, line 1: the columns are parted by {names[other]}, {names[delimiter]} were expected of "
                    f"{kind_of(path)}. Save it with {names[delimiter]}"
                    + ("." if other == ";" else f", or name it {'.tsv' if other != ',' else '.csv'}.")
                )
            start = reader.line_num + 1
            for cells in reader:
                place = Place(str(path), start)
                start = reader.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(header):
                    fault = f"{len(cells)} cells, but the header names {len(header)} columns"
                    yield RecordError(place, "wrong number of cells", f"{fault}. Quote cells that hold a delimiter.")
                else:
                    yield Row(place, restored(dict(zip(header, cells, strict=True))))
        except csv.Error as error:
            place = Place(str(path), start)
            raise DataError(
                f"{place}: broken CSV ({error}, in the record that begins here and was read up to line "
                f"{reader.line_num}). A quote inside a quoted cell is written twice; check the quotes from here on."
            ) from error
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from error


def restored(cells: Mapping[str, str]) -> dict[str, Any]:
    """A row of a table with the cells of `STRUCTURED` columns read as JSON; what is none stays the text it is."""
    row: dict[str, Any] = dict(cells)
    for name in STRUCTURED & cells.keys():
        if cells[name].lstrip()[:1] in ("[", "{"):
            with contextlib.suppress(json.JSONDecodeError, RecursionError):
                row[name] = json.loads(cells[name])
    return row


def read_text(path: Path) -> Rows:
    """One text a line, under the column "text"."""
    with opened(path) as file:
        for number, line in numbered(file):
            place = Place(str(path), number)
            if len(line) > MAX_LINE:
                yield too_long(place, "one text a line was expected.")
            elif line.strip():
                text = line_text(line, place)
                yield text if isinstance(text, RecordError) else Row(place, {"text": text.rstrip("\r\n")})


def read_parquet(path: Path) -> Rows:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        invalid: type[Exception] = importlib.import_module("pyarrow").ArrowInvalid
    except ModuleNotFoundError as error:
        raise DataError(f'{path}: Parquet needs pyarrow. Install it with pip install "keel-rlhf[train]".') from error
    number = 0
    try:
        with opened(path) as file:
            for batch in parquet.ParquetFile(file).iter_batches(batch_size=BATCH):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(Place(str(path), number, "record"), values)
    except invalid as error:
        place = Place(str(path), number + 1, "record")
        raise DataError(f"{place}: damaged Parquet ({error}). Copy or download the file again.") from error


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".txt": read_text,
}


__all__ = [
    "READERS",
    "STRUCTURED",
    "Place",
    "RecordError",
    "Row",
    "Rows",
    "Values",
    "find_files",
    "kind_of",
    "missing",
    "num_lines",
    "read_file",
    "restored",
]
