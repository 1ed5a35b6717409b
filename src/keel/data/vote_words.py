"""What votes can say: words and numbers turned into codes, in order where they have one."""

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from keel.core.errors import DataError
from keel.data.votes import WORDS
from keel.stats.agreement import MISSING

Scores = Literal["sign", "full"]

MAX_CLASSES = 50
KNOWN_SHARE = 0.95
"""Share of the votes that must be words for a, b or a tie for the rest to count as slips."""
COMPARISON = ("a", "tie", "b")
SIDES = {"a": 0, "tie": 1, "both_bad": 1, "b": 2, "skip": MISSING}
SIGNS = ("negative", "zero", "positive")
ORDERED = (("no", "yes"), ("no", "maybe", "yes"), ("false", "true"), ("low", "medium", "high"), ("bad", "ok", "good"))


@dataclass(slots=True)
class LeftOut:
    """Counts of what did not count, and where each kind was met first."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, where: object) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, str(where))

    def sentences(self) -> list[str]:
        return [
            f"left out: {count} ({reason}); first: {self.first[reason].rstrip('.')}"
            for reason, count in self.counts.items()
        ]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The categories of a file, and which of them each word means."""

    categories: tuple[str, ...]
    ordered: bool
    """Whether the categories go from low to high (a, tie, b do)."""
    meaning: Mapping[Hashable, int]
    """Code of every known word or number; -1 for one that is no vote, such as a skip."""

    def codes(self, said: Sequence[Any], places: Sequence[object], out: LeftOut) -> list[int]:
        """The code of each vote; unknown words are left out and counted."""
        codes = [self.meaning.get(one) for one in said]
        for code, one, place in zip(codes, said, places, strict=True):
            if code is None:
                out.add(f"unknown word for a vote, {json.dumps(word(one)[:40])}", place)
        return [MISSING if code is None else code for code in codes]


def vocabulary_of(
    said: Sequence[Any], path: str, order: Sequence[str] = (), scores: Scores = "sign", compares: bool = True
) -> Vocabulary:
    """The vocabulary that fits what was said: a given order, numbers, words for a, tie and b, or classes of any name.

    Signed numbers count by their sign where `scores` is "sign"; where the rows compare two answers, positive is a.
    """
    counts = Counter(said)
    if order:
        lowered = tuple(one.lower() for one in order)
        return Vocabulary(lowered, True, {one: lowered.index(word(one)) for one in counts if word(one) in lowered})
    numbers = {one: number for one in counts if (number := _number(one)) is not None}
    if counts and len(numbers) == len(counts):
        if scores == "sign" and min(numbers.values()) < 0 < max(numbers.values()):
            signs = {one: (value > 0) - (value < 0) for one, value in numbers.items()}
            if compares:
                return Vocabulary(COMPARISON, True, {one: 1 - sign for one, sign in signs.items()})
            return Vocabulary(SIGNS, True, {one: 1 + sign for one, sign in signs.items()})
        scale = sorted(set(numbers.values()))
        _check_few([f"{value:g}" for value in scale], path)
        meaning = {one: scale.index(value) for one, value in numbers.items()}
        return Vocabulary(tuple(f"{value:g}" for value in scale), True, meaning)
    known = sum(count for one, count in counts.items() if word(one) in WORDS)
    if known >= KNOWN_SHARE * len(said):
        return Vocabulary(COMPARISON, True, {one: SIDES[WORDS[word(one)]] for one in counts if word(one) in WORDS})
    words = {word(one) for one in counts}
    _check_few(sorted(words), path)
    ranked = next((order for order in ORDERED if words <= set(order)), None)
    categories = ranked or tuple(sorted(words))
    return Vocabulary(categories, ranked is not None, {one: categories.index(word(one)) for one in counts})


def word(one: object) -> str:
    """A vote as a word, without regard to case."""
    return f"{one:g}" if isinstance(one, float) else str(one).strip().lower()


def _number(one: Any) -> float | None:
    try:
        value = float(one)
    except (ValueError, OverflowError):
        return None
    return value if isfinite(value) else None


def _check_few(classes: Sequence[str], path: str) -> None:
    if len(classes) > MAX_CLASSES:
        some = ", ".join(one[:30] for one in classes[:3])
        raise DataError(
            f"{path}: votes say {len(classes)} different things ({some}, ...), which is text rather than a choice. "
            "Name the column of the vote with --vote."
        )
