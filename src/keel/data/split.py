"""Training and held-out records, parted by the hash of the prompt.

A record's side depends on its own prompt alone: it stays where it is as data grows, whatever the order of the file,
and no prompt stands on both sides.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from keel.data.records import Record, record_key

R = TypeVar("R", bound=Record)


def split(records: Sequence[R], holdout: float, key: Callable[[R], str] = record_key) -> tuple[list[R], list[R]]:
    """(train, held out), each in the order given; about `holdout` (in [0, 1)) of the distinct prompts are held out.

    `key` gives a record's hash as hex digits. With a larger `holdout` the held-out side only gains prompts. With few
    prompts a side may be empty.
    """
    train: list[R] = []
    held_out: list[R] = []
    for record in records:
        (held_out if is_held_out(key(record), holdout) else train).append(record)
    return train, held_out


def is_held_out(key: str, holdout: float) -> bool:
    """Whether a key falls into the held-out part: its first 64 bits, as a fraction of 2^64, below `holdout`."""
    return int(key[:16], 16) < holdout * 2**64
