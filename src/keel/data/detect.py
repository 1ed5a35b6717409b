"""Which format records are written in, told from their columns; never guessed where two fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from keel.core.errors import DataError
from keel.data.dialect import Dialect
from keel.data.dialects import DIALECTS
from keel.data.rows import Values
from keel.data.vote_layouts import Layout, find_layout


@dataclass(frozen=True, slots=True)
class Detected:
    """A format and what gave it away."""

    format: str
    why: str


def detect(records: Sequence[Values], places: Sequence[str] = ()) -> Detected:
    """The one format that fits the columns of `records`; DataError where none or several do, with the candidates.

    A format whose columns are a part of another fitting format's columns gives way to it. Records that fit no format
    do not count as long as others fit one. `places` says where each record stands.
    """
    places = places or [f"record {number}" for number in range(1, len(records) + 1)]
    if not records:
        raise DataError("there are no records to tell a format from.")
    by_format: dict[str, int] = {}
    for number, values in enumerate(records):
        names = fitting(values)
        if len(names) > 1:
            choices = " or ".join(f"{name} ({_columns_of(name, values)})" for name in names)
            raise DataError(
                f"{places[number]}: could be read as {choices}. Say which with format: {names[0]}, for example."
            )
        for name in names:
            by_format.setdefault(name, number)
    if len(by_format) > 1:
        seen = " and ".join(f"{name} at {places[number]}" for name, number in by_format.items())
        raise DataError(f"formats are mixed: {seen}. Write them to files of their own, or say one with format:.")
    if not by_format:
        raise DataError(f"{places[0]}: {_no_format(records)}")
    name, number = next(iter(by_format.items()))
    return Detected(name, _columns_of(name, records[number]))


def fitting(values: Values) -> list[str]:
    """Names of the formats that fit one record, those left out whose columns a richer fitting format covers."""
    fits = [d for d in DIALECTS if d.fits(values)]
    richest = [d for d in fits if not any(set(d.columns) < set(o.columns) for o in fits)]
    return list(dict.fromkeys(d.name for d in richest))


def _columns_of(name: str, values: Values) -> str:
    variants = [d for d in DIALECTS if d.name == name and all(column in values for column in d.columns)]
    columns = dict.fromkeys(column for d in variants for column in d.columns)
    shape = variants[0].shape_text if variants else ""
    return f"columns {', '.join(columns)}" + (f"; {shape}" if shape else "")


def _no_format(records: Sequence[Values]) -> str:
    columns = list(dict.fromkeys(name for values in records for name in values))
    lacking = sorted(((len(set(d.columns) - set(columns)), d) for d in DIALECTS), key=lambda pair: pair[0])
    near = [d for missing, d in lacking if missing == lacking[0][0] and len(d.columns) > missing][:3]
    found = f"no known format has the columns {', '.join(columns) or '(none)'}."
    votes = _votes(records)
    as_votes = f" {_as_votes(votes)}" if votes else ""
    if votes and votes.name:
        return f"{found}{as_votes}"
    hints = [f"{d.name} ({_lack(d, columns)})" for d in near]
    nearest = f" Nearest: {'; '.join(hints)}." if hints else ""
    return (
        f"{found}{as_votes}{nearest} Name the columns that hold what keel needs, for example columns: {{prompt: "
        "question, response: answer}."
    )


def _as_votes(layout: Layout) -> str:
    why = layout.why.partition(":")[0].partition(";")[0]
    return (
        f"They look like votes ({why}), which are measured rather than read: people's with keel data agreement, those "
        "of AI judges with keel data judges."
    )


def _votes(records: Sequence[Values]) -> Layout | None:
    """How the records hold votes; None where they do not."""
    try:
        return find_layout(records[0], "", records)
    except DataError:
        return None


def _lack(dialect: Dialect, columns: Sequence[str]) -> str:
    missing = [column for column in dialect.columns if column not in columns]
    return f"lacks {', '.join(missing)}" if missing else f"expects {dialect.shape_text}"
