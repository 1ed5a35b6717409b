"""What a dialect is: one way in which published sets write records."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from keel.data.records import Record
from keel.data.rows import Row, Values

Kind = Literal["demonstrations", "comparisons", "prompts", "labelled texts", "ratings", "rankings"]


class UnwritableError(Exception):
    """A record that a dialect has no words for; the message says why."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to write records. A format may have several, which differ in columns; the first that writes is used."""

    name: str  # what `format:` says
    columns: tuple[str, ...]  # must be there
    read: Callable[[Row], Record]
    gives: tuple[Kind, ...]  # the first is what the rows are; the others are made of it
    write: Callable[[Any], dict[str, Any]] | None = None  # a record of the first kind as a row, or UnwritableError
    shape: Callable[[Values], bool] = lambda values: True  # must hold besides
    shape_text: str = ""  # the shape in words
    optional: tuple[str, ...] = ()  # columns that are read where they are there
    chats: Literal["both", "only", "as text"] = "both"  # whether prompts may be chats; "as text": written as one text
    strict: bool = False  # whoever reads it refuses columns that it does not know
    unread: Callable[[Values], list[str]] = lambda values: []  # what the reader leaves out inside its columns
    passed: tuple[str, ...] = ()  # columns that give the format away and are not read
    unfold: Callable[[Row], list[Row]] | None = None  # the rows that `read` takes, of one row that holds several

    variants: tuple["Dialect", ...] = ()  # the ways to write the format, where there are several

    def fits(self, values: Values) -> bool:
        return all(name in values for name in self.columns) and self.shape(values)

    def variant(self, values: Values) -> "Dialect":
        """The variant that reads a row: the first whose columns are there, else the first, whose error says so."""
        return next((d for d in self.variants if d.fits(values)), self.variants[0]) if self.variants else self

    def beside(self, values: Values) -> dict[str, Any]:
        """The columns of a row that its reader does not look at."""
        variant = self.variant(values)
        read = {*variant.columns, *variant.optional} - set(variant.passed)
        return {name: value for name, value in values.items() if name not in read}


def keys_beside(items: Any, known: Sequence[str]) -> list[str]:
    """Names in a list of objects other than `known` ones, where they say something."""
    found = [item for item in items if isinstance(item, Mapping)] if isinstance(items, Sequence) else []
    return sorted({str(name) for item in found for name, value in item.items() if name not in known and value})
