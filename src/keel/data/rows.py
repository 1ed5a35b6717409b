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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, TextIO

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
        self.place = place
        self.reason = reason
        self.harmless = harmless


Rows = Iterator[Row | RecordError]

MAX_LINE = 1 << 26
"""Bytes of one record (64 MiB). What is longer is a file of another kind, or one whose line ends or quotes are lost."""
BATCH = 1000  # rows of a Parquet file in memory
CHUNK = 1 << 20  # characters read at a time from a JSON array
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


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file: ".jsonl" for both a.jsonl and a.jsonl.gz; "" for none."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


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


def read_json_lines(path: Path) -> Rows:
    with _binary(path) as file:
        for number, line in _numbered(file):
            place = Place(str(path), number)
            if len(line) > MAX_LINE:
                yield _too_long(place, "one record a line was expected. If the file is one JSON array, name it .json.")
            elif line.strip():
                yield _json_row(place, line)


def _numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines counted from 1. Of one beyond MAX_LINE only the start comes out; the rest is skipped in pieces."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        yield number, line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def _too_long(place: Place, expected: str) -> RecordError:
    return RecordError(place, "line too long", f"the {place.unit} is longer than {MAX_LINE >> 20} MiB; {expected}")


def read_json(path: Path) -> Rows:
    """An array of objects, read as it comes, or one object a line under the wrong suffix, as many sets are."""
    with _binary(path) as file:
        start = file.read(CHUNK).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        yield from _read_array(path)
    else:
        yield from read_json_lines(path)


def _read_array(path: Path) -> Rows:
    with _binary(path) as file:
        text = _Window(path, io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
        text.skip(" \t\r\n")
        text.skip("[", 1)
        while True:
            text.skip(" \t\r\n,")
            place = Place(str(path), text.line)
            if not text.character:
                raise DataError(f"{place}: the array never ends. Is the file cut short? Copy or download it again.")
            if text.character == "]":
                return
            yield _object_row(place, *text.value())


class _Window:
    """The part of a JSON file that is in memory, and where it begins."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.line = 1
        self._column = 0  # characters of this line before the window
        self._path, self._file = path, file
        self._text, self._more = "", True

    @property
    def character(self) -> str:
        """The next one; "" at the end."""
        if not self._text:
            self._load()
        return self._text[:1]

    def skip(self, characters: str, most: int | None = None) -> None:
        while self.character and self.character in characters and most != 0:
            kept = self._text.lstrip(characters) if most is None else self._text[1:]
            self._drop(len(self._text) - len(kept))
            most = most and most - 1

    def value(self) -> tuple[Any, str]:
        """The JSON value that begins here, more being loaded until it is whole, and a name that stands twice in it."""
        while True:
            try:
                value, end, twice = decoded(self._text)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - 16
                if not (self._more and cut_off):
                    self._drop(error.pos)
                    where = f"line {self.line}, column {self._column + 1}"
                    raise DataError(f"{self._path}, {where}: broken JSON ({error.msg}). Correct the file.") from error
            except RecursionError as error:
                raise DataError(f"{self._path}, line {self.line}: JSON nested too deeply. Correct the file.") from error
            else:
                if end < len(self._text) or not self._more:
                    self._drop(end)
                    return value, twice
            if len(self._text) > MAX_LINE:
                raise DataError(
                    f"{self._path}, line {self.line}: a record is longer than {MAX_LINE >> 20} MiB, or a quote or "
                    "bracket that opens in it is never closed. Correct the file."
                )
            self._load()

    def _drop(self, number: int) -> None:
        gone, self._text = self._text[:number], self._text[number:]
        lines = gone.count("\n")
        self.line += lines
        self._column = len(gone) - gone.rindex("\n") - 1 if lines else self._column + len(gone)

    def _load(self) -> None:
        """As much again as there is, so that a long value is not looked at too often."""
        try:
            more = self._file.read(max(CHUNK, len(self._text)))
        except UnicodeDecodeError as error:
            raise _not_utf8(self._path, error) from error
        self._more = bool(more)
        self._text += more


def decoded(text: str) -> tuple[Any, int, str]:
    """(the JSON value that `text` begins with, where it ends, a name that stands twice in one of its objects or "")."""
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            names = [name for name, _ in pairs]
            twice.append(next(name for name in names if names.count(name) > 1))
        return values

    value, end = json.JSONDecoder(object_pairs_hook=unique).raw_decode(text)
    return value, end, twice[0] if twice else ""


def read_csv(path: Path) -> Rows:
    return _read_table(path, ",")


def read_tsv(path: Path) -> Rows:
    return _read_table(path, "\t")


def _read_table(path: Path, delimiter: str) -> Rows:
    csv.field_size_limit(MAX_LINE)
    with _binary(path) as file:
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
            raise _not_utf8(path, error) from error


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
    with _binary(path) as file:
        for number, line in _numbered(file):
            place = Place(str(path), number)
            if len(line) > MAX_LINE:
                yield _too_long(place, "one text a line was expected.")
            elif line.strip():
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


def _binary(path: Path) -> IO[bytes]:
    file = io.BufferedReader(gzip.GzipFile(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")
    start = file.peek(4)[:4]
    wide = next((name for marks, name in _OTHERS.items() if start.startswith(marks)), "")
    if wide and kind_of(path) != ".parquet":
        file.close()
        raise DataError(f"{path} is {wide}; UTF-8 text was expected. {_SAVE[wide]}")
    return file


_OTHERS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PAR1": "Parquet", b"\x1f\x8b": "packed with gzip"}
"""How files begin that are not what their suffix says."""
_SAVE = {
    "UTF-16": "Save it as UTF-8 (in Excel: CSV UTF-8).",
    "Parquet": "Name it .parquet.",
    "packed with gzip": "Add .gz to its name.",
}


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{path} is not UTF-8 ({error.reason}, byte 0x{error.object[error.start]:02x}). Save it as UTF-8.")


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
        text = text.strip(" \t\r\n")
        value, end, twice = decoded(text)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
        return _object_row(place, value, twice)
    except json.JSONDecodeError as error:
        fault = f"broken JSON at column {error.colno} ({error.msg})"
        hint = "One JSON object a line was expected; correct the line or drop it."
        if not line.endswith(b"\n"):
            hint += " It is the last line and has no line end: is the file cut short?"
        return RecordError(place, "broken JSON", f"{fault}. {hint}")
    except RecursionError:
        return RecordError(place, "broken JSON", "JSON nested too deeply. Correct the line or drop it.")
    except ValueError:  # Python's own limit on digits
        return RecordError(place, "broken JSON", "a whole number of thousands of digits. Correct the line or drop it.")


def _object_row(place: Place, value: Any, twice: str) -> Row | RecordError:
    if twice:
        return RecordError(
            place,
            "a name twice",
            f"the name {twice!r} stands twice in one object, and only one value could be kept. Rename or drop one.",
        )
    if isinstance(value, dict):
        return Row(place, value)
    hint = "If the file is one JSON array, name it .json; " if isinstance(value, list) else ""
    found = f"{type(value).__name__} {json.dumps(value)[:40]}"
    fault = f"found {found}, expected a JSON object with named fields such as prompt and response."
    return RecordError(place, "not an object", f"{fault} {hint}".rstrip("; ") + ("." if hint else ""))
