"""Rows of a file of votes, taken apart: who said what of which item, before any of it is counted."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain, islice
from math import nan
from pathlib import Path
from typing import Any

from keel.core.errors import ConfigError, DataError
from keel.data.hub import looks_like_hub_id, read_hub
from keel.data.rows import Place, RecordError, Row, Rows, find_files, read_file
from keel.data.snapshot import read_snapshot, snapshot_at
from keel.data.vote_layouts import Layout, find_layout, fits, preset
from keel.data.vote_words import LeftOut, Scores, word

SAMPLE = 1000
"""Rows that are looked at for columns of raters; a rater may have left out the first items."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a file of votes; the defaults find out."""

    preset: str = ""
    item: tuple[str, ...] = ()
    """Columns that name the item together."""
    rater: str = ""
    vote: str = ""
    rater_columns: tuple[str, ...] = ()
    """Columns that are raters, in a file with a row an item."""
    raters: tuple[str, ...] = ()
    """Patterns (`expert_*`) of the raters that count; none: all that the layout does not leave out."""
    order: tuple[str, ...] = ()
    """Words for a vote from lowest to highest, where they are ordered."""
    scores: Scores = "sign"
    """What counts of signed scores: sign (below, at or above 0) or full (the number itself)."""


@dataclass(slots=True)
class Cast:
    """Votes as they are read; lists of equal length."""

    items: list[str] = field(default_factory=list)
    raters: list[str] = field(default_factory=list)
    words: list[Any] = field(default_factory=list)
    flipped: list[bool] = field(default_factory=list)
    """Whether the models were named the other way round, so that a and b change places."""
    times: list[float] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """Which answer stood first, a or b in the item's own order; "" where it is not said."""
    models: list[tuple[str, str] | None] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)


def read_cast(
    path: str, how: Reading, out: LeftOut, *, both_orders: bool = False, swapped: str = ""
) -> tuple[Layout, Cast]:
    """The layout of a file and its votes as they were written.

    With `both_orders` also the verdicts with the sides swapped, from the column `swapped` or the layout's own.
    """
    rows = usable_rows(path, out)
    sample = list(islice(rows, SAMPLE))
    if not sample:
        raise DataError(
            f"{path}: no row to read{': ' + '; '.join(out.sentences()) if out.counts else ', it is empty'}."
        )
    head = sample[0]
    layout = _layout(sample, how, path)
    layout = replace(layout, swapped=(swapped or layout.swapped) if both_orders else "")
    cast = Cast()
    for row in chain(sample, rows):
        if fits(layout, row.values):
            _gather(layout, row, cast, out)
        else:
            _check_same_schema(layout, row, head, how)
            out.add("row without the columns that hold item, rater and vote", row.place)
    return layout, cast


def usable_rows(path: str, out: LeftOut) -> Iterator[Row]:
    """The rows of a file, a folder or a set on the hub; those that cannot be parsed are left out and counted."""
    for row in _rows(path):
        if isinstance(row, RecordError):
            out.add(row.reason, row)
        else:
            yield row


def item_of(layout: Layout, row: Row) -> tuple[str, tuple[str, str] | None, bool] | None:
    """The item's key, its two models in the item's own order, and whether the row names them the other way round.

    None where a column that names the item is empty.
    """
    values = row.values
    if any(values[column] is None or values[column] == "" for column in layout.item):
        return None
    item = _text([values[column] for column in layout.item]) if layout.item else f"line {row.place.number}"
    if layout.models:
        first, second = (str(values[column]) for column in layout.models)
        flipped = first > second
        pair = (second, first) if flipped else (first, second)
        return _text([item, *pair]), pair, flipped
    if layout.kind == "votes" and {"model_a", "model_b"} <= set(values):
        return item, (str(values["model_a"]), str(values["model_b"])), False
    return item, None, False


def _rows(path: str) -> Rows:
    if snapshot_at(path):
        return read_file(read_snapshot(path).records)
    where = Path(path).expanduser()
    if not where.exists() and looks_like_hub_id(path):
        return read_hub(path, None, None, "train")
    return chain.from_iterable(map(read_file, find_files(where, "train")))


def _layout(sample: Sequence[Row], how: Reading, path: str) -> Layout:
    """The layout asked for, or the one found; the columns given by hand replace single parts of it."""
    head = sample[0]
    if how.rater_columns:
        if absent := [name for name in how.rater_columns if not any(name in row.values for row in sample)]:
            raise ConfigError(
                f"{head.place}: there is no column {', '.join(absent)}; the row has {', '.join(head.values)}. "
                "Name with --raters-in the columns that are raters."
            )
        layout = Layout("columns", item=how.item, raters=how.rater_columns, why="asked for: a column a rater")
    elif how.preset:
        layout = preset(how.preset)
    elif how.vote and (how.rater or isinstance(head.values.get(how.vote), Mapping | list)):
        layout = Layout("rows" if how.rater else "votes", how.vote, how.rater, how.item, why="asked for by column")
        if not how.rater and _is_numbers(head.values[how.vote]):
            layout = replace(layout, kind="ratings")
    else:
        layout = find_layout(head.values, path, [row.values for row in sample])
    changes: dict[str, Any] = {}
    if how.item and layout.item != how.item:
        changes["item"] = how.item
    if how.rater and layout.rater != how.rater:
        changes["rater"] = how.rater
    if how.vote and layout.vote != how.vote:
        changes["vote"] = how.vote
    layout = replace(layout, **changes) if changes else layout
    if not fits(layout, head.values):
        needed = [*layout.item, layout.rater, layout.vote, *(layout.models or ()), *layout.raters]
        absent = [column for column in needed if column and column not in head.values]
        raise ConfigError(
            f"{head.place}: there is no column {', '.join(absent)}; the row has {', '.join(head.values)}. "
            "Name the columns with --item, --rater and --vote."
        )
    return layout


def _check_same_schema(layout: Layout, row: Row, head: Row, how: Reading) -> None:
    """A row that does not fit but would be votes of another form means two files in one."""
    try:
        other = find_layout(row.values, row.place.path)
    except DataError:
        return
    if not (how.preset or how.vote or how.rater_columns):
        raise DataError(
            f"{row.place}: two ways of writing votes in one file. {head.place} has {', '.join(head.values)} "
            f"({layout.why}); here are {', '.join(row.values)} ({other.why}). Split the file, one way each."
        )


def _gather(layout: Layout, row: Row, cast: Cast, out: LeftOut) -> None:
    """Add the votes of one row."""
    values, place = row.values, row.place
    named = item_of(layout, row)
    if named is None:
        out.add(f"no {' or '.join(layout.item)}", place)
        return
    item, models, flipped = named
    found = values.get(layout.vote)
    each: Iterable[tuple[Any, Any]]
    if layout.swapped:  # the two verdicts as two votes whose sides are known
        rater, second = values.get(layout.rater), values.get(layout.swapped)
        each = [(rater, {"vote": found, "shown_first": "a"}), (rater, {"vote": second, "shown_first": "b"})]
        _add_votes(each, layout, (item, models, flipped), place, cast, out)
        return
    match layout.kind:
        case "rows":
            each = [(values.get(layout.rater), values if _has_details(values) else found)]
        case "columns":
            each = [(column, values[column]) for column in layout.raters if column in values]
        case "ratings":
            each = [(f"rater {n}", one) for n, one in enumerate(found or (), start=1)] if _is_numbers(found) else []
        case _:
            each = found.items() if isinstance(found, Mapping) else _listed(found, out, place)
    if layout.kind == "ratings" and not _is_numbers(found):
        out.add(f"{layout.vote} is no list of numbers", place)
    _add_votes(each, layout, (item, models, flipped), place, cast, out)


def _add_votes(
    each: Iterable[tuple[Any, Any]],
    layout: Layout,
    named: tuple[str, tuple[str, str] | None, bool],
    place: Place,
    cast: Cast,
    out: LeftOut,
) -> None:
    """Add (rater, vote) pairs on one item; a vote is a word, a number, or an object with one of them and details."""
    item, models, flipped = named
    for rater, vote in each:
        shown, at = "", nan
        if isinstance(vote, Mapping):
            shown, at = _shown(vote), _time(vote)
            vote = vote.get(layout.vote, _said(vote)) if layout.kind == "rows" else _said(vote)
        if vote is None or vote == "" or vote != vote:  # nan is how tables write an empty cell
            continue
        name = "" if rater is None else str(rater).strip()
        if not name:
            out.add("vote without a rater", place)
        elif not isinstance(vote, str | int | float):
            out.add(f"vote is {type(vote).__name__}, neither a word nor a number", place)
        else:
            cast.items.append(item)
            cast.raters.append(name)
            cast.words.append(vote if isinstance(vote, int | float) and not isinstance(vote, bool) else word(vote))
            cast.flipped.append(flipped)
            cast.times.append(at)
            cast.shown.append({"a": "b", "b": "a"}.get(shown, "") if flipped else shown)
            cast.models.append(models)
            cast.places.append(place)


def _listed(found: Any, out: LeftOut, place: Place) -> Iterator[tuple[Any, Any]]:
    """Votes of a list of objects with a rater each."""
    for one in found if isinstance(found, list) else ():
        if isinstance(one, Mapping):
            yield one.get("rater", one.get("judge", one.get("annotator"))), one
        else:
            out.add("vote in a list that is no object with rater and choice", place)
    if found is not None and not isinstance(found, list):
        out.add(f"votes are {type(found).__name__}, neither an object nor a list", place)


def _said(vote: Mapping[str, Any]) -> Any:
    return next((vote[name] for name in ("score", "choice", "vote", "label") if vote.get(name) is not None), None)


def _has_details(values: Mapping[str, Any]) -> bool:
    return any(name in values for name in ("shown_first", "swapped", "time", "created", "at"))


def _shown(vote: Mapping[str, Any]) -> str:
    """Which answer stood first, a or b; "" where it is not said."""
    if vote.get("shown_first") in ("a", "b"):
        return str(vote["shown_first"])
    return {"true": "b", "false": "a"}.get(str(vote.get("swapped")).lower(), "")  # a table has texts only


def _time(vote: Mapping[str, Any]) -> float:
    """Seconds, from a number or from a date and time as in ISO 8601 (UTC where it names no zone); nan otherwise."""
    at = next((vote[name] for name in ("time", "created", "at") if name in vote), None)
    try:
        seconds = float(at)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        try:
            date = datetime.fromisoformat(str(at))
        except ValueError:
            return nan
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return seconds if abs(seconds) < 1e300 else nan


def _text(parts: Sequence[Any]) -> str:
    if len(parts) == 1:
        return parts[0] if isinstance(parts[0], str) else json.dumps(parts[0], ensure_ascii=False)
    return json.dumps(parts, ensure_ascii=False)


def _is_numbers(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in found)
