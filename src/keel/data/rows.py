"""Raw rows out of files, each with its place, before anyone asks what they mean.

One reader a file type, in `READERS`. A line that cannot be parsed comes out as a `RecordError`, so that whoever reads
decides whether to stop or to count it; a damaged file stops at once.
"""

import csv
import gzip
import importlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any

from keel.core.errors import DataError

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands; `number` counts from 1."""

    path: str
    number: int
    unit: str = "line"  # "record" where a file has no lines

    def __str__(self) -> str:
        return f"{self.path}, {self.unit} {self.number}"

    @property
    def source(self) -> str:
        return f"{self.path}:{self.number}"


@dataclass(frozen=True, slots=True)
class Row:
    """One record as it was written."""

    place: Place
    values: Values


class RecordError(DataError):
    """One record that cannot be used. `reason` is what such records are counted under.

    `harmless` marks what is dropped and counted even where bad records stop the reading.
    """

    def __init__(self, place: Place, reason: str, message: str, *, harmless: bool = False) -> None:
        super().__init__(f"{place}: {message}")
        self.reason = reason
        self.harmless = harmless


Rows = Iterator[Row | RecordError]


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


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file: ".jsonl" for both a.jsonl and a.jsonl.gz; "" for none."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def missing(path: Path) -> str:
    """What to say of a path that is not there, with the nearest names beside it."""
    parent = path.parent
    siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=3, cutoff=0.6)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    where = "" if parent.is_dir() else f" The folder {parent} does not exist either."
    return f"{path} does not exist.{where}{hint} A path is taken from the folder keel was started in."


def read_json_lines(path: Path) -> Rows:
    with _binary(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_row(Place(str(path), number), line)


def read_json(path: Path) -> Rows:
    """An array of objects, or one object a line under the wrong suffix, as many published sets are."""
    with _binary(path) as file:
        text = _decode(file.read(), Place(str(path), 1))
    if isinstance(text, RecordError):
        raise text
    if not text.lstrip().startswith("["):
        yield from read_json_lines(path)
        return
    decoder, position, line = json.JSONDecoder(), text.index("[") + 1, 1
    counted = 0
    while True:
        position = _skip(text, position, " \t\r\n,")
        line += text.count("\n", counted, position)
        counted = position
        place = Place(str(path), line)
        if position == len(text):
            raise DataError(f"{place}: the array never ends. Is the file cut short? Copy or download it again.")
        if text[position] == "]":
            return
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {error.lineno}, column {error.colno}: broken JSON ({error.msg}). Correct the file."
            ) from error
        except RecursionError as error:
            raise DataError(f"{place}: JSON nested too deeply. Correct the file.") from error
        yield _object_row(place, value)


def read_csv(path: Path) -> Rows:
    return _read_table(path, ",")


def read_tsv(path: Path) -> Rows:
    return _read_table(path, "\t")


def _read_table(path: Path, delimiter: str) -> Rows:
    csv.field_size_limit(2**31 - 1)
    with _binary(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            header = next(reader, None)
            if not header:
                raise DataError(f"{path} is empty: a header line with the column names was expected.")
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                raise DataError(f"{path}, line 1: column {twice[0]!r} stands twice. Rename one of them.")
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
                    yield Row(place, dict(zip(header, cells, strict=True)))
        except csv.Error as error:
            place = Place(str(path), reader.line_num)
            raise DataError(f"{place}: broken CSV ({error}). Check the quotes around this line.") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8 ({error.reason}). Save it as UTF-8.") from error


def read_text(path: Path) -> Rows:
    """One text a line, under the column "text"."""
    with _binary(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = Place(str(path), number)
                text = _decode(line, place)
                yield text if isinstance(text, RecordError) else Row(place, {"text": text.rstrip("\r\n")})


def read_parquet(path: Path) -> Rows:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        invalid: type[Exception] = importlib.import_module("pyarrow").ArrowInvalid
    except ModuleNotFoundError as error:
        raise DataError(f'{path}: Parquet needs pyarrow. Install it with pip install "keel-rlhf[train]".') from error
    number = 0
    try:
        with _binary(path) as file:
            for batch in parquet.ParquetFile(file).iter_batches():
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


def _binary(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(path, "rb"))
    return path.open("rb")


def _decode(data: bytes, place: Place) -> str | RecordError:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        fault = f"byte {error.start + 1} (0x{byte:02x}) is not UTF-8"
        return RecordError(place, "not UTF-8", f"{fault}. Save the file as UTF-8.")


def _json_row(place: Place, line: bytes) -> Row | RecordError:
    text = _decode(line, place)
    if isinstance(text, RecordError):
        return text
    try:
        return _object_row(place, json.loads(text.rstrip()))
    except json.JSONDecodeError as error:
        fault = f"broken JSON at column {error.colno} ({error.msg})"
        hint = "One JSON object a line was expected; correct the line or drop it."
        return RecordError(place, "broken JSON", f"{fault}. {hint}")
    except RecursionError:
        return RecordError(place, "broken JSON", "JSON nested too deeply. Correct the line or drop it.")


def _object_row(place: Place, value: Any) -> Row | RecordError:
    if isinstance(value, dict):
        return Row(place, value)
    found = f"{type(value).__name__} {json.dumps(value)[:40]}"
    return RecordError(
        place, "not an object", f"found {found}, expected a JSON object with named fields such as prompt and response."
    )


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
