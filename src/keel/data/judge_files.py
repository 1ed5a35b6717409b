"""Verdicts of judges in a file, held against golden answers or against what most people said."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from keel.core.errors import ConfigError, DataError
from keel.data.vote_layouts import Layout
from keel.data.vote_rows import Cast, Reading, item_of, read_cast, usable_rows
from keel.data.vote_words import COMPARISON, SIDES, LeftOut, vocabulary_of, word
from keel.data.votes import WORDS
from keel.stats.agreement import MISSING
from keel.stats.judges import JudgeReport, judge_report

GOLD = ("preference", "gold", "label", "answer", "winner", "choice")


@dataclass(frozen=True, slots=True)
class JudgeReading:
    """The judges of one file."""

    reports: tuple[JudgeReport, ...]
    """The most often right first; those without golden answers last."""
    gold: str
    """What counts as right, in words."""
    num_items: int
    """Items with a golden answer."""
    notes: tuple[str, ...]


def judge_reports(
    path: str, gold: str | None, how: Reading | None = None, judges: Sequence[str] = (), swapped: str = ""
) -> JudgeReading:
    """A report a judge. `judges` are patterns of names; `swapped` is the column of the verdict in the other order.

    Without a file of golden answers, right is what most of the other raters said; an item on which no answer leads
    has no right one.
    """
    out = LeftOut()
    reading = how or Reading()
    layout, cast = read_cast(path, reading, out, both_orders=True, swapped=swapped)
    vocabulary = vocabulary_of(cast.words, path, reading.order, reading.scores)
    if vocabulary.categories != COMPARISON:
        raise DataError(
            f"{path}: the verdicts are {', '.join(vocabulary.categories[:8])}; judges choose between a, b and tie. "
            "Name the column of the verdict with --vote."
        )
    said = np.array(vocabulary.codes(cast.words, cast.places, out), dtype=np.int64)
    said = np.where((said != MISSING) & np.array(cast.flipped, dtype=bool), 2 - said, said)
    patterns = tuple(judges) or ((layout.leave_out or ()) if gold is None else ("*",))
    chosen = {name for name in dict.fromkeys(cast.raters) if any(fnmatchcase(name, one) for one in patterns)}
    if not chosen:
        names = ", ".join(list(dict.fromkeys(cast.raters))[:6])
        raise ConfigError(
            f"{path}: no judge is called {' or '.join(patterns)}. The raters are {names}."
            if patterns
            else f"{path}: who is the judge? The raters are {names}. Say it with --judge PATTERN, or give golden "
            "answers with --gold FILE."
        )
    if gold is None:
        truth = _majority(cast, said, chosen)
        others = len(set(cast.raters) - chosen)
        what = f"what most of the {others} other raters said"
    else:
        truth = _golden(gold, layout, out)
        what = f"the golden answer in {gold}"
    verdicts = _verdicts(cast, said, chosen)
    num_strange = sum(item not in truth for cells in verdicts.values() for item in cells)
    if not any(item in truth for cells in verdicts.values() for item in cells):
        raise DataError(
            f"{path}: none of its items has a golden answer in {gold}. Both files must name items alike, in "
            f"{' and '.join(layout.item) or 'a column that --item names'}."
            if gold
            else f"{path}: the judges share no item with other raters, so nothing says what is right. Give --gold FILE."
        )
    reports = []
    for judge, cells in verdicts.items():
        codes = np.array([[truth.get(item, MISSING), *both] for item, both in cells.items()], dtype=np.int64)
        reports.append(judge_report(*codes.T, judge=judge))
    reports.sort(key=lambda report: (np.isnan(report.accuracy.value), -report.accuracy.value, report.judge))
    notes = out.sentences()
    if num_strange:
        notes.append(f"{num_strange} pairs of judge and item have no golden answer: they count for consistency only")
    return JudgeReading(tuple(reports), what, len(truth), tuple(notes))


def _verdicts(cast: Cast, said: np.ndarray, chosen: set[str]) -> dict[str, dict[str, list[int]]]:
    """By judge and item, the verdict with a shown first (or with sides not known) and the one with b shown first."""
    verdicts: dict[str, dict[str, list[int]]] = {}
    for n, code in enumerate(said.tolist()):
        if cast.raters[n] in chosen and code != MISSING:
            b_first = cast.shown[n] == "b"
            cells = verdicts.setdefault(cast.raters[n], {}).setdefault(cast.items[n], [MISSING, MISSING])
            cells[b_first] = code
    return verdicts


def _majority(cast: Cast, said: np.ndarray, chosen: set[str]) -> dict[str, int]:
    """What most of the others said of each item, where one answer leads."""
    latest: dict[tuple[str, str], int] = {}
    for n, code in enumerate(said.tolist()):
        if cast.raters[n] not in chosen and code != MISSING:
            latest[cast.items[n], cast.raters[n]] = code
    counts: dict[str, Counter[int]] = {}
    for (item, _), code in latest.items():
        counts.setdefault(item, Counter())[code] += 1
    truth = {}
    for item, count in counts.items():
        (code, most), *rest = count.most_common(2)
        if not rest or rest[0][1] < most:
            truth[item] = code
    return truth


def _golden(path: str, layout: Layout, out: LeftOut) -> dict[str, int]:
    """Golden answers by item."""
    columns = replace(layout, kind="rows")
    truth = {}
    for row in usable_rows(path, out):
        named = item_of(columns, row) if _names(columns, row.values) else None
        answer = next((row.values[name] for name in GOLD if row.values.get(name) is not None), None)
        if named is None or answer is None:
            out.add(
                f"row of {path} without {' and '.join(columns.item)} or an answer ({', '.join(GOLD[:3])})", row.place
            )
            continue
        item, _, flipped = named
        code = SIDES.get(WORDS.get(word(answer), ""), MISSING)
        if code == MISSING:
            out.add("golden answer that is not a, b or tie", row.place)
        else:
            truth[item] = 2 - code if flipped else code
    return truth


def _names(layout: Layout, values: Mapping[str, object]) -> bool:
    return all(column in values for column in (*layout.item, *(layout.models or ())))
