"""Where a record stands, and files opened so that what is wrong with them can be said."""

import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        self.place = place
        self.reason = reason
        self.harmless = harmless


Rows = Iterator[Row | RecordError]


def kind_of(path: Path) -> str:
    """The suffix that says how to read a file: ".jsonl" for both a.jsonl and a.jsonl.gz; "" for none."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def opened(path: Path) -> IO[bytes]:
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


def not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{path} is not UTF-8 ({error.reason}, byte 0x{error.object[error.start]:02x}). Save it as UTF-8.")


def line_text(data: bytes, place: Place) -> str | RecordError:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = data[error.start]
        fault = f"byte {error.start + 1} (0x{byte:02x}) is not UTF-8"
        return RecordError(place, "not UTF-8", f"{fault}. Save the file as UTF-8.")
