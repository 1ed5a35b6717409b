"""Rows out of JSON: one object a line, or an array that is read as it comes."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from keel.core.errors import DataError
from keel.data.places import Place, RecordError, Row, Rows, line_text, not_utf8, opened

MAX_LINE = 1 << 26
"""Bytes of one record (64 MiB). What is longer is a file of another kind, or one whose line ends or quotes are lost."""
CHUNK = 1 << 20  # characters read at a time from a JSON array


def read_json_lines(path: Path) -> Rows:
    with opened(path) as file:
        for number, line in numbered(file):
            place = Place(str(path), number)
            if len(line) > MAX_LINE:
                yield too_long(place, "one record a line was expected. If the file is one JSON array, name it .json.")
            elif line.strip():
                yield _json_row(place, line)


def numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines counted from 1. Of one beyond MAX_LINE only the start comes out; the rest is skipped in pieces."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        yield number, line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def too_long(place: Place, expected: str) -> RecordError:
    return RecordError(place, "line too long", f"the {place.unit} is longer than {MAX_LINE >> 20} MiB; {expected}")


def read_json(path: Path) -> Rows:
    """An array of objects, read as it comes, or one object a line under the wrong suffix, as many sets are."""
    with opened(path) as file:
        start = file.read(CHUNK).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"["):
        yield from _read_array(path)
    else:
        yield from read_json_lines(path)


def _read_array(path: Path) -> Rows:
    with opened(path) as file:
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
            raise not_utf8(self._path, error) from error
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


def _json_row(place: Place, line: bytes) -> Row | RecordError:
    text = line_text(line, place)
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
