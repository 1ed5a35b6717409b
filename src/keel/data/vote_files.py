"""Files of votes as they are, read into one table: items by raters, however the votes are written.

Nothing is dropped because training would drop it: items whose votes all tie, or whose two answers are the same, count.
What does not count is said: `VoteFile.notes` has a sentence for each kind of thing that was left out or looks odd.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from keel.core.errors import ConfigError, DataError
from keel.data.look_alikes import look_alikes
from keel.data.vote_layouts import Layout
from keel.data.vote_rows import Cast, Reading, read_cast
from keel.data.vote_words import COMPARISON, LeftOut, vocabulary_of
from keel.stats.agreement import MISSING
from keel.stats.arrays import Floats, Ints


@dataclass(frozen=True, slots=True)
class VoteFile:
    """The votes of one file."""

    path: str
    layout: Layout
    categories: tuple[str, ...]
    """What a vote can say, by code; in order where the words have one."""
    ordered: bool
    """Whether `categories` go from low to high (a, tie, b do)."""
    items: tuple[str, ...]
    raters: tuple[str, ...]
    votes: Ints
    """[items, raters] codes, -1 where there is no vote."""
    repeats: Ints
    """[repeats, 3]: rater, and the codes of an earlier and the next vote of theirs on the same item."""
    first_shown: Floats
    """[shown]: 1 where the answer shown first won, 0 where the second, .5 for a tie; votes whose sides are known."""
    shown_by: Ints
    """[shown] whose vote."""
    models: Ints
    """[shown, 2] number of the model shown first and second; -1 where models have no names."""
    notes: tuple[str, ...]
    num_left_out: int = 0
    """Rows and votes that do not count."""


def read_votes(path: str | Path, how: Reading | None = None) -> VoteFile:
    """The votes of a file, a folder or a set on the hub. DataError where nothing can be read as votes."""
    how = how or Reading()
    out = LeftOut()
    layout, cast = read_cast(str(path), how, out)
    return _table(str(path), layout, how, cast, out)


def _table(path: str, layout: Layout, how: Reading, cast: Cast, out: LeftOut) -> VoteFile:
    """Votes as codes, the newest of each rater on each item."""
    notes = []
    keep = _chosen(cast.raters, layout, how, notes, path)
    said = [cast.words[n] for n in keep]
    compares = layout.kind != "ratings"
    vocabulary = vocabulary_of(said, path, how.order, how.scores, compares)
    categories, codes = vocabulary.categories, vocabulary.codes(said, [cast.places[n] for n in keep], out)
    raters: dict[str, int] = {}
    items: dict[str, int] = {}
    latest: dict[tuple[int, int], tuple[float, int]] = {}
    repeats, where = [], ""
    for n, code in zip(keep, codes, strict=True):
        if code == MISSING:
            continue
        if cast.flipped[n] and categories == COMPARISON:
            code = 2 - code
        rater = raters.setdefault(cast.raters[n], len(raters))
        key = items.setdefault(cast.items[n], len(items)), rater
        if key in latest:
            before = latest[key]
            older = cast.times[n] < before[0]
            repeats.append((rater, code, before[1]) if older else (rater, before[1], code))
            where = where or f"{cast.places[n]}, {cast.raters[n]}"
            if older:
                continue
        latest[key] = (cast.times[n], code)
    if not latest:
        raise DataError(f"{path}: no vote could be read{': ' + '; '.join(out.sentences()) if out.counts else ''}.")
    votes = np.full((len(items), len(raters)), MISSING, dtype=np.int64)
    cells = np.array(list(latest), dtype=np.int64)
    votes[cells[:, 0], cells[:, 1]] = [code for _, code in latest.values()]
    if repeats:
        times = "once a rater" if len(repeats) == 1 else f"{len(repeats)} times a rater"
        notes.append(
            f"{times} voted again on the same item (first: {where}): the last vote counts, the earlier one only for "
            "how far raters agree with themselves"
        )
    notes += [f"names that look alike and count as different raters: {_quoted(g)}" for g in look_alikes(raters)]
    shown = _sides(cast, keep, codes, raters) if categories == COMPARISON else (np.zeros(0), np.zeros(0), np.zeros(0))
    return VoteFile(
        path,
        layout,
        categories,
        vocabulary.ordered,
        tuple(items),
        tuple(raters),
        votes,
        np.array(repeats, dtype=np.int64).reshape(-1, 3),
        np.asarray(shown[0], dtype=np.float64),
        np.asarray(shown[1], dtype=np.int64),
        np.asarray(shown[2], dtype=np.int64).reshape(-1, 2),
        (*notes, *out.sentences()),
        out.counts.total(),
    )


def _chosen(raters: Sequence[str], layout: Layout, how: Reading, notes: list[str], path: str) -> list[int]:
    """Which votes are by raters that count."""
    names = dict.fromkeys(raters)
    if how.raters:
        counted = {name for name in names if any(fnmatchcase(name, pattern) for pattern in how.raters)}
    else:
        counted = {name for name in names if not any(fnmatchcase(name, pattern) for pattern in layout.leave_out)}
    if names and not counted:
        raise ConfigError(
            f"{path}: no rater is called {' or '.join(how.raters or layout.leave_out)}; the raters are {_few(names)}."
        )
    left = [name for name in names if name not in counted]
    if left:
        num = sum(name not in counted for name in raters)
        hint = "" if how.raters else "; --raters '*' counts them"
        many, are = ("1 vote", "is") if num == 1 else (f"{num} votes", "are")
        notes.append(f"{many} of {_few(left)} {are} not counted{hint}")
    return [n for n, name in enumerate(raters) if name in counted]


def _sides(cast: Cast, keep: Sequence[int], codes: Sequence[int], raters: Mapping[str, int]) -> tuple[Any, Any, Any]:
    """Votes whose sides are known: did the first shown win, whose vote, which models stood first and second."""
    numbers: dict[str, int] = {}
    outcome, who, models = [], [], []
    for n, code in zip(keep, codes, strict=True):
        if code == MISSING or not cast.shown[n]:
            continue
        if cast.flipped[n]:
            code = 2 - code
        a_first = cast.shown[n] == "a"
        outcome.append(1 - code / 2 if a_first else code / 2)
        who.append(raters[cast.raters[n]])
        pair = cast.models[n]
        sides = [numbers.setdefault(name, len(numbers)) for name in pair] if pair else [-1, -1]
        models.append(sides if a_first else sides[::-1])
    return outcome, who, models


def _few(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(json.dumps(name) for name in names)
