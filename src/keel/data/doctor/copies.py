"""Rules about texts that stand twice: copies, near copies, leaks, identical answers, contradictions."""

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from keel.data.doctor.finding import Finding, counted, graded, percent, said, shown
from keel.data.doctor.limits import Limits
from keel.data.doctor.patient import Entry, Patient
from keel.data.doctor.similar import Shingles, jaccard, near_copies, shingles
from keel.data.records import Choice, Comparison, prompt_text

_SWAPPED: dict[Choice, Choice] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad", "skip": "skip"}


def duplicates(patient: Patient, limits: Limits) -> Finding:
    """Records that say exactly the same, a pair with its sides swapped included; each but the first can be left out.

    Judgments of the same pair by different raters or judges are no copies.
    """
    first: dict[Hashable, int] = {}
    again = [
        (at, first[key]) for at, key in enumerate(map(_identity, patient.entries)) if first.setdefault(key, at) != at
    ]
    share = len(again) / len(patient.entries)
    if not again:
        return Finding(rule="duplicates", severity="ok", message="No record stands twice.", figures={"copies": 0})
    return Finding(
        rule="duplicates",
        severity=graded(share, 0.0, limits.copies_error),
        message=f"{said(len(again), 'record', 'repeats', 'repeat')} an earlier one word for word ({percent(share)}).",
        remedy="Drop the copies: what stands twice counts twice, and may stand on both sides of a later split.",
        figures={"copies": len(again), "share": share},
        examples=shown(
            (patient.source(at), f"the same as {_short(patient.source(one))}: {patient.asked[at]}") for at, one in again
        ),
        drops=tuple(at for at, _ in again),
    )


def near_duplicates(patient: Patient, limits: Limits) -> Finding | None:
    """Records whose prompt and answers all nearly repeat those of an earlier one.

    Records of exactly the same texts are left out: they are copies, contradictions, or the judgments of several raters.
    """
    width = 1 + max(len(entry.answers) for entry in patient.entries)
    texts: list[str] = []
    for entry in patient.entries:
        pieces = [prompt_text(entry.prompt), *entry.answers]
        texts += pieces + [""] * (width - len(pieces))
    parts = shingles(texts)
    whole = Shingles(parts.hashes, parts.starts[::width])
    same = [(entry.prompt, frozenset(entry.answers)) for entry in patient.entries]
    found: dict[int, tuple[int, float]] = {}
    for pair in near_copies(whole, limits.near_copy):
        if pair.second in found or same[pair.first] == same[pair.second]:
            continue
        alike = _least_alike(parts, texts, width, pair.first, pair.second)
        if alike >= limits.near_copy:
            found[pair.second] = (pair.first, alike)
    share = len(found) / len(patient.entries)
    if not found:
        return Finding(
            rule="near_duplicates", severity="ok", message="No record nearly repeats another.", figures={"copies": 0}
        )
    return Finding(
        rule="near_duplicates",
        severity=graded(share, 0.0, min(1.0, 2.5 * limits.copies_error)),
        message=f"{said(len(found), 'record', 'repeats', 'repeat')} an earlier one almost word for word "
        f"({percent(share)}).",
        remedy="Read the pairs below; keep the better of each, or write prompts that differ in more than a name.",
        figures={"copies": len(found), "share": share, "jaccard_at_least": limits.near_copy},
        examples=shown(
            (patient.source(at), f"{percent(alike)} of {_short(patient.source(one))}: {patient.asked[at]}")
            for at, (one, alike) in sorted(found.items())
        ),
    )


def identical_answers(patient: Patient, limits: Limits) -> Finding | None:
    """Pairs whose two answers are one text, case and white space aside, and whatever the preference."""
    if not patient.comparisons:
        return None
    same = [(at, r) for at, r in patient.comparisons if r.a == r.b or _folded(r.a) == _folded(r.b)]
    refused = [one for one in patient.refused if one.reason == "identical answers"]
    count = len(same) + len(refused)
    share = count / patient.num_records
    figures = {"pairs": count, "share": share}
    if not count:
        return Finding(
            rule="identical_answers", severity="ok", message="The two answers always differ.", figures=figures
        )
    places = [*((one.source, one.fault) for one in refused), *((patient.source(at), r.a) for at, r in same)]
    return Finding(
        rule="identical_answers",
        severity=graded(share, 0.0, limits.damage_error),
        message=f"In {counted(count, 'pair')} ({percent(share)}) both answers are the same text: no preference can be "
        "learned from them.",
        remedy="Drop them. If the answers were sampled, raise the temperature or sample from another model.",
        figures=figures,
        examples=shown(places),
        drops=tuple(at for at, _ in same),
    )


def leakage(patient: Patient, limits: Limits) -> Finding:
    """Prompts that stand in another set as well, or nearly; and near copies across the set's own split."""
    held = [at for key, at in patient.distinct_asked.items() if patient.held_out[at]]
    near = _near_across(patient, held, limits.near_copy)
    train_side = {at: one for at, one in near.items() if not patient.held_out[at]}
    shared: dict[int, tuple[str, str]] = {}
    for other in patient.against:
        for at, one in _shared_with(patient, other, limits).items():
            shared.setdefault(at, (other.name, one))
    figures = {
        "near_copies_across_the_split": len(train_side),
        "held_out_prompts": len(held),
        "shared_with_other_sets": len(shared),
        "other_sets": [other.name for other in patient.against],
    }
    if not train_side and not shared:
        names = ", ".join(_short(other.name) for other in patient.against)
        beside = f" and none stands in {names}" if names else ""
        text = f"No training prompt nearly repeats a held-out one{beside}."
        return Finding(rule="leakage", severity="ok", message=text, figures=figures)
    parts, places = [], []
    if shared:
        parts.append(
            f"{said(len(shared), 'record', 'has', 'have')} a prompt that is also, or nearly, in {_names(shared)}"
        )
        places += [(patient.source(at), f"also at {one}: {patient.asked[at]}") for at, (_, one) in shared.items()]
    if train_side:
        parts.append(
            f"{said(len(train_side), 'training record', 'nearly repeats', 'nearly repeat')} a held-out prompt "
            f"(holdout {patient.holdout:g})"
        )
        places += [
            (patient.source(at), f"nearly {_short(patient.source(one))}: {patient.asked[at]}")
            for at, one in train_side.items()
        ]
    share = len(train_side) / max(1, len(patient.entries))
    return Finding(
        rule="leakage",
        severity="error" if shared else graded(share, 0.0, limits.damage_error),
        message="; ".join(parts) + ". What is measured on them would flatter the model.",
        remedy="Drop these records from this file; the other side stays as it is.",
        figures=figures,
        examples=shown(places),
        drops=tuple(sorted(shared.keys() | train_side.keys())),
    )


def contradictions(patient: Patient, limits: Limits) -> Finding | None:
    """Pairs that are preferred both ways, and circles (a over b over c over a) on one prompt."""
    if not patient.decided:
        return None
    wins: dict[tuple[str, frozenset[str]], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for at, record in patient.decided:
        better, worse = (record.a, record.b) if record.preference > 0.5 else (record.b, record.a)
        wins[patient.keys[at], frozenset((better, worse))][better].append(at)
    torn = [ways for ways in wins.values() if len(ways) > 1]
    repeated = sum(1 for ways in wins.values() if sum(map(len, ways.values())) > 1)
    graph: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    place: dict[tuple[str, str, str], int] = {}
    for (key, pair), ways in wins.items():
        if len(ways) == 1:
            (better, positions), (worse, *_) = next(iter(ways.items())), [text for text in pair if text not in ways]
            graph[key][better].add(worse)
            place[key, better, worse] = positions[0]
    circles = [(key, circle) for key, edges in graph.items() if len(edges) > 2 and (circle := _circle(edges))]
    count = len(torn) + len(circles)
    share = count / len(wins)
    figures = {"both_ways": len(torn), "circles": len(circles), "repeated_pairs": repeated, "pairs": len(wins)}
    if not count:
        return Finding(rule="contradictions", severity="ok", message="No two preferences contradict.", figures=figures)
    places = []
    for ways in torn:
        one, other = (positions[0] for positions in list(ways.values())[:2])
        places.append((patient.source(one), f"the opposite of {_short(patient.source(other))}: {patient.asked[one]}"))
    for key, circle in circles:
        steps = [place[key, better, worse] for better, worse in zip(circle, [*circle[1:], circle[0]], strict=True)]
        lines = ", ".join(_short(patient.source(at)) for at in steps[1:])
        places.append((patient.source(steps[0]), f"a circle of {len(circle)} with {lines}: {patient.asked[steps[0]]}"))
    told = [
        text
        for text, number in (
            (f"{said(len(torn), 'pair', 'is', 'are')} preferred both ways", len(torn)),
            (f"on {counted(len(circles), 'prompt')} preferences run in a circle", len(circles)),
        )
        if number
    ]
    return Finding(
        rule="contradictions",
        severity=graded(share, 0.0, limits.damage_error),
        message=f"{', and '.join(told)} ({percent(share)} of {counted(len(wins), 'distinct pair')}).",
        remedy="Have these pairs judged again by a senior, or write the verdicts as votes of one record, so that the "
        "doubt becomes a soft label.",
        figures=figures,
        examples=shown(places),
    )


def _identity(entry: Entry) -> Hashable:
    """Equal for records that say the same; the sides of a pair do not count."""
    record = entry.record
    if isinstance(record, Comparison) and record.a > record.b:
        votes = tuple((vote.rater, _SWAPPED[vote.choice], vote.strength) for vote in record.votes)
        return record.prompt, record.b, record.a, round(1 - record.preference, 9), votes, entry.judge
    if isinstance(record, Comparison):
        votes = tuple((vote.rater, vote.choice, vote.strength) for vote in record.votes)
        return record.prompt, record.a, record.b, round(record.preference, 9), votes, entry.judge
    label = getattr(record, "desirable", getattr(record, "label", None))
    return entry.prompt, entry.answers, label, entry.judge


def _least_alike(parts: Shingles, texts: Sequence[str], width: int, first: int, second: int) -> float:
    """Jaccard index of the least similar part of two records, the answers paired the better way."""

    def alike(one: int, other: int) -> float:
        return 1.0 if texts[one] == texts[other] else jaccard(parts.of(one), parts.of(other))

    i, j = first * width, second * width
    ways = [[(k, k) for k in range(1, width)]]
    if width == 3:
        ways.append([(1, 2), (2, 1)])
    answers = max(min((alike(i + one, j + other) for one, other in way), default=1.0) for way in ways)
    return min(alike(i, j), answers)


def _near_across(patient: Patient, held: Sequence[int], threshold: float) -> dict[int, int]:
    """Position of every record whose prompt nearly repeats one of the other side, and a record of that side."""
    sides = np.array([patient.held_out[at] for at in patient.distinct_asked.values()], dtype=bool)
    if not held or sides.all():
        return {}
    positions = list(patient.distinct_asked.values())
    order = np.r_[np.flatnonzero(sides), np.flatnonzero(~sides)]
    texts = [patient.asked[positions[i]] for i in order]
    found: dict[str, int] = {}
    for pair in near_copies(shingles(texts), threshold):
        one, other = positions[order[pair.first]], positions[order[pair.second]]
        if patient.held_out[one] != patient.held_out[other]:
            found.setdefault(patient.keys[other], one)
    return {at: found[key] for at, key in enumerate(patient.keys) if key in found}


def _shared_with(patient: Patient, other: Patient, limits: Limits) -> dict[int, str]:
    """Position of every record whose prompt stands in the other set as well, or nearly, and where it stands there."""
    where = {key: other.source(at) for key, at in other.distinct_asked.items()}
    theirs, ours = list(other.distinct_asked.values()), list(patient.distinct_asked.values())
    texts = [other.asked[at] for at in theirs] + [patient.asked[at] for at in ours]
    for pair in near_copies(shingles(texts), limits.near_copy):
        if pair.first < len(theirs) <= pair.second:
            key = patient.keys[ours[pair.second - len(theirs)]]
            where.setdefault(key, other.source(theirs[pair.first]))
    return {at: _short(where[key]) for at, key in enumerate(patient.keys) if key in where}


def _circle(edges: dict[str, set[str]]) -> list[str]:
    """A cycle in "better -> worse", as its texts in order; empty where there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, list[str]]] = [(start, sorted(edges[start]))] if start not in done else []
        if stack:
            path.append(start)
            on_path.add(start)
        while stack:
            node, rest = stack[-1]
            if not rest:
                stack.pop()
                path.pop()
                on_path.discard(node)
                done.add(node)
                continue
            following = rest.pop()
            if following in on_path:
                return path[path.index(following) :]
            if following not in done:
                path.append(following)
                on_path.add(following)
                stack.append((following, sorted(edges.get(following, ()))))
    return []


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _short(source: str) -> str:
    """A source without its folders."""
    return source.rsplit("/", 1)[-1]


def _names(shared: dict[int, tuple[str, str]]) -> str:
    return ", ".join(dict.fromkeys(_short(name) for name, _ in shared.values()))
