"""Scalars out of TensorBoard's event files, without TensorBoard.

The format: records of length (8 bytes), its checksum (4), data, checksum (4); the data is a protobuf `Event`
(tensorflow/core/util/event.proto): step = 2, summary = 5; `Summary`: value = 1; `Value`: tag = 1, simple_value = 2,
tensor = 8; `TensorProto`: float_val = 5. Checksums are not verified.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

MARK = "tfevents"
"""Stands in the name of every event file."""
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
STEP, SUMMARY, VALUE, TAG, SIMPLE_VALUE, TENSOR, FLOAT_VAL = 2, 5, 1, 1, 2, 8, 5
HEADER, FOOTER = 12, 4  # bytes around the data of a record


def scalars(path: Path) -> Iterator[tuple[int, str, float]]:
    """(step, tag, value) of every scalar in the file, in the order written; half a record at the end is left out."""
    data = path.read_bytes()
    at = 0
    while at + HEADER <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        record = data[at + HEADER : at + HEADER + length]
        if len(record) < length:
            return
        at += HEADER + length + FOOTER
        event = list(_fields(record))
        step = next((_signed(value) for number, value in event if number == STEP and isinstance(value, int)), 0)
        for number, summary in event:
            if number == SUMMARY and isinstance(summary, bytes):
                for tag, value in _values(summary):
                    yield step, tag, value


def _values(summary: bytes) -> Iterator[tuple[str, float]]:
    for number, value in _fields(summary):
        if number != VALUE or not isinstance(value, bytes):
            continue
        parts = dict(_fields(value))
        tag, scalar, tensor = parts.get(TAG), parts.get(SIMPLE_VALUE), parts.get(TENSOR)
        if scalar is None and isinstance(tensor, bytes):
            scalar = dict(_fields(tensor)).get(FLOAT_VAL)
        if isinstance(tag, bytes) and isinstance(scalar, bytes) and len(scalar) == 4:
            yield tag.decode("utf-8", "replace"), struct.unpack("<f", scalar)[0]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protobuf message; what is cut off at the end is left out."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == BYTES:
            size, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            return  # no field of an Event is written so
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where the next field begins."""
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
