"""How varied texts are: distinct n-grams, self-BLEU, repetition within a text, phrases that many texts share.

Token lists hold ids or words; the words must be of one type. A text shorter than n has no n-grams. The functions count
one thing; `NGrams` counts several of the same texts and numbers their n-grams only once.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import nan
from typing import TypeAlias

import numpy as np

from keel.core.errors import DataError
from keel.stats.arrays import Floats, Ints, sum_by

TokenLists: TypeAlias = Sequence[Sequence[Hashable]]

SMOOTHING = 0.1
PACKED_BITS = 62
"""n-grams are numbered by multiplying up their tokens for as long as number and text fit into an int64."""


def distinct_n(token_lists: TokenLists, n: int) -> float:
    """Different n-grams / all n-grams, over all texts together (Li et al. 2016); 0 when there is no n-gram at all.

    It falls as texts grow in number or length, so compare it only between sets of like size.
    """
    return NGrams.of(token_lists).distinct(n)


def unique_share(texts: Sequence[Hashable]) -> float:
    """Different texts / all texts; 0 when there are none."""
    return len(set(texts)) / len(texts) if len(texts) else 0.0


def repeated_ngram_share(token_lists: TokenLists, n: int = 3) -> float:
    """Share of a text's n-grams that it has said before, averaged over texts (seq-rep-n, Welleck et al. 2020).

    Texts without n-grams are left out; 0 when none has any.
    """
    return NGrams.of(token_lists).repeated(n)


def self_bleu(token_lists: TokenLists, max_n: int = 4) -> float:
    """Mean BLEU of each text with all others as references (Zhu et al. 2018): 1 when all say the same; lower is better.

    BLEU as in Papineni et al. 2002, n-grams up to `max_n` weighted equally, closest reference length (the shorter of
    two), an n-gram order without a match counted as 0.1 matches (Chen and Cherry 2014, method 1), 0 when not even a
    word matches. nan for fewer than two texts. Exact over all texts: an n-gram's count in the best other text is its
    largest count, or the second largest for the text that holds the largest. Texts shorter than `max_n` stay under 1
    even when all are the same, since they match no n-gram of that length.
    """
    return NGrams.of(token_lists).self_bleu(max_n=max_n)


@dataclass(frozen=True, slots=True)
class Cells:
    """How often each text says each n-gram: one cell [C] for every n-gram and text that meet, n-grams in order."""

    gram: Ints
    text: Ints
    count: Ints


class NGrams:
    """The n-grams of texts, for everything that is counted of them."""

    def __init__(self, tokens: Ints, lengths: Ints) -> None:
        """`tokens` [N] are those of all texts end to end, any whole numbers; `lengths` [S] are the texts' lengths."""
        self.tokens, self.lengths = tokens, lengths
        words, ids = np.unique(tokens, return_inverse=True)
        self._ids = ids.astype(np.int64).reshape(-1)
        self._num_words = max(1, len(words))
        self._bits = max(1, len(lengths) - 1).bit_length()
        self._owner = np.repeat(np.arange(len(lengths)), lengths)
        self._room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))
        self._windows = {1: (self._ids, self._num_words)}
        self._cells: dict[int, Cells] = {}

    @classmethod
    def of(cls, token_lists: TokenLists) -> "NGrams":
        """From tokens of any hashable type, which are then 0, 1, ... in order of appearance."""
        lengths = np.array([len(tokens) for tokens in token_lists], dtype=np.int64)
        numbers: dict[Hashable, int] = {}
        ids = [numbers.setdefault(token, len(numbers)) for tokens in token_lists for token in tokens]
        return cls(np.array(ids, dtype=np.int64), lengths)

    def distinct(self, n: int) -> float:
        """Different n-grams / all n-grams, as `distinct_n`."""
        total = int(self._per_text(n).sum())
        return int(run_starts(self._count(n).gram).sum()) / total if total else 0.0

    def unique(self) -> float:
        """Different texts / all texts, as `unique_share`."""
        ends = np.cumsum(self.lengths)
        pieces = zip((ends - self.lengths).tolist(), ends.tolist(), strict=True)
        return unique_share([self._ids[start:end].tobytes() for start, end in pieces])

    def repeated(self, n: int) -> float:
        """Share of a text's n-grams that it has said before, as `repeated_ngram_share`."""
        total = self._per_text(n)
        has = total > 0
        if not has.any():
            return 0.0
        distinct = np.bincount(self._count(n).text, minlength=len(total))
        return float(np.mean(1 - distinct[has] / total[has]))

    def distinct_per_text(self, n: int) -> Ints:
        """[S] different n-grams within each text."""
        return np.bincount(self._count(n).text, minlength=len(self.lengths))

    def common(self, n: int) -> tuple[tuple[int, ...], float]:
        """The n-gram that most texts hold, and the share of all texts that do, each counted once.

        Of equals the one with the lowest tokens; ((), nan) when no text is long enough.
        """
        cells = self._count(n)
        if not len(cells.gram):
            return (), nan
        starts = np.flatnonzero(run_starts(cells.gram))
        holders = np.diff(starts, append=len(cells.gram))
        most = int(holders.argmax())
        numbers, at = self._numbers(n)
        first = int(at[np.flatnonzero(numbers == cells.gram[starts[most]])[0]])
        return tuple(self.tokens[first : first + n].tolist()), int(holders[most]) / len(self.lengths)

    def self_bleu(self, groups: Ints | None = None, max_n: int = 4) -> float:
        """As the function `self_bleu`; with `groups` [S] of numbers its mean over groups, each text beside its own.

        A group of one text is left out; nan when there is no other.
        """
        if max_n < 1:
            raise DataError(f"self_bleu needs n-grams of 1 token or more, got max_n={max_n}.")
        num_texts = len(self.lengths)
        if groups is None:
            groups = np.zeros(num_texts, dtype=np.int64)
        place = np.argsort(groups, kind="stable")  # texts of a group side by side
        group, lengths = groups[place], self.lengths[place]
        starts = np.flatnonzero(run_starts(group))
        sizes = np.diff(starts, append=num_texts)
        if not (sizes > 1).any():
            return nan
        rank = np.empty(num_texts, dtype=np.int64)
        rank[place] = np.arange(num_texts)
        log_precision = np.zeros(num_texts)
        no_word = np.zeros(num_texts, dtype=bool)
        for n in range(1, max_n + 1):
            matches = _clipped_matches(self._count(n, None if (place[1:] > place[:-1]).all() else rank), group)
            if n == 1:
                no_word = matches == 0
            log_precision += np.log(np.where(matches == 0, SMOOTHING, matches) / np.maximum(lengths - n + 1, 1))
        bleu = np.where(no_word, 0.0, _brevity_penalty(lengths, group) * np.exp(log_precision / max_n))
        return float((np.add.reduceat(bleu, starts) / sizes)[sizes > 1].mean())

    def _per_text(self, n: int) -> Ints:
        """[S] how many n-grams each text has."""
        if n < 1:
            raise DataError(f"n-grams have 1 token or more, got n={n}.")
        return np.maximum(self.lengths - n + 1, 0)

    def _numbers(self, n: int) -> tuple[Ints, Ints]:
        """A number per n-gram, equal for equal n-grams and rising as their tokens do, and where it begins."""
        at = np.flatnonzero(self._room >= n)
        return self._window(n)[0][at], at

    def _window(self, n: int) -> tuple[Ints, int]:
        """Numbers of all n tokens in a row, texts regardless, and a bound that they stay below."""
        if n not in self._windows:
            numbers, bound = self._window(n - 1)
            if (bound * self._num_words).bit_length() + self._bits > PACKED_BITS:
                found, numbers = np.unique(numbers, return_inverse=True)
                numbers, bound = numbers.astype(np.int64).reshape(-1), max(1, len(found))
            self._windows[n] = numbers[:-1] * self._num_words + self._ids[n - 1 :], bound * self._num_words
        return self._windows[n]

    def _count(self, n: int, rank: Ints | None = None) -> Cells:
        """The cells of n-grams; with `rank` [S] the texts are renumbered so. Each n-gram's texts are in order."""
        if rank is None and n in self._cells:
            return self._cells[n]
        self._per_text(n)
        numbers, at = self._numbers(n)
        text = self._owner[at] if rank is None else rank[self._owner[at]]
        packed = np.sort((numbers << self._bits) | text)
        starts = np.flatnonzero(run_starts(packed))
        held = packed[starts]
        cells = Cells(
            held >> self._bits, held & ((1 << self._bits) - 1), np.diff(starts, append=len(packed)).astype(np.int64)
        )
        if rank is None:
            self._cells[n] = cells
        return cells


def run_starts(values: Ints) -> np.ndarray:
    """[N] bool, True where a run of equal values begins."""
    starts = np.ones(len(values), dtype=bool)
    starts[1:] = values[1:] != values[:-1]
    return starts


def _clipped_matches(cells: Cells, group: Ints) -> Floats:
    """For each text, its n-grams that another of its group also has, each counted at most as often as in the best."""
    if not len(cells.gram):
        return np.zeros(len(group))
    own = group[cells.text]
    begins = run_starts(cells.gram) | run_starts(own)
    starts = np.flatnonzero(begins)
    run = np.cumsum(begins) - 1
    largest = np.maximum.reduceat(cells.count, starts)[run]
    leads = cells.count == largest
    alone = leads & (np.add.reduceat(leads.astype(np.int64), starts) == 1)[run]
    second = np.maximum.reduceat(np.where(leads, 0, cells.count), starts)[run]
    elsewhere = np.where(alone, second, largest)
    return sum_by(cells.text, np.minimum(cells.count, elsewhere), len(group))


def _brevity_penalty(lengths: Ints, group: Ints) -> Floats:
    """exp(1 - r / c) where the group's closest other length r exceeds the own length c, else 1; 0 for an empty text."""
    order = np.lexsort((lengths, group))
    ranked, begins = lengths[order].astype(np.float64), run_starts(group[order])
    below, above = np.r_[-np.inf, ranked[:-1]], np.r_[ranked[1:], np.inf]
    below[begins] = -np.inf
    above[np.r_[begins[1:], True]] = np.inf
    closest = np.where(ranked - below <= above - ranked, below, above)
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.where(closest > ranked, np.exp(1 - closest / ranked), 1.0)
    penalty[ranked == 0] = 0.0
    result = np.empty_like(penalty)
    result[order] = penalty
    return result
