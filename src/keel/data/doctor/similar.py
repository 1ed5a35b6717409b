"""Which of many texts nearly repeat one another: word shingles, MinHash signatures, exact Jaccard of the candidates.

Two texts are alike to the degree of their Jaccard index: shingles (three words in a row) that both have / that either
has. In 50 words one changed word leaves .88. Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3. Words are runs of ASCII letters, digits and other letters, case ignored; each Chinese, Japanese or Korean
character is a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keel.stats.arrays import Ints

Hashes: TypeAlias = NDArray[np.uint32]
Long: TypeAlias = NDArray[np.uint64]

BANDS, ROWS = 16, 4
"""Minima that must agree in at least one band: of pairs with index .8, .9998 become candidates; of .3, .12."""
NUM_MINIMA = BANDS * ROWS
PREFILTER = 0.15  # candidates whose signatures agree less than (threshold - this) are not looked at: 3 standard errors
CHUNK_BYTES = 1 << 20
_BASE = 0x9E3779B97F4A7C15 | 1  # odd, so that it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)


@dataclass(frozen=True, slots=True)
class Shingles:
    """The hashed shingles of texts: those of text s are hashes[starts[s] : starts[s + 1]]."""

    hashes: Hashes
    starts: Ints  # [S + 1]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, text: int) -> Hashes:
        """The distinct shingles of one text, ascending."""
        return np.unique(self.hashes[self.starts[text] : self.starts[text + 1]])


@dataclass(frozen=True, slots=True)
class Alike:
    """Two texts that nearly repeat one another, `first` the earlier one."""

    first: int
    second: int
    jaccard: float


def shingles(texts: Sequence[str]) -> Shingles:
    """Shingles of each text; of a text under three words one shingle of what it has, of a text without words none."""
    hashes: list[Hashes] = []
    counts: list[Ints] = []
    powers, inverses = _powers(_BASE), _powers(_INVERSE)
    chunk: list[bytes] = []
    size = 0
    for number, text in enumerate(texts, start=1):
        data = text.lower().encode("utf-8", "surrogatepass")
        chunk.append(data)
        size += len(data) + 1
        if size >= CHUNK_BYTES or number == len(texts):
            if size > len(powers):
                powers, inverses = _powers(_BASE, size), _powers(_INVERSE, size)
            found, per_text = _chunk_shingles(chunk, powers, inverses)
            hashes.append(found)
            counts.append(per_text)
            chunk, size = [], 0
    every = np.concatenate(hashes) if hashes else np.zeros(0, np.uint32)
    return Shingles(every, np.r_[0, np.cumsum(np.concatenate(counts))] if counts else np.zeros(1, np.int64))


def near_copies(found: Shingles, threshold: float, seed: int = 0) -> list[Alike]:
    """Pairs whose Jaccard index is at least `threshold`: each text with the first and the last before it in a bucket.

    So of a family of copies every later one is paired with an earlier one, though not with all. Texts without words
    are like nothing.
    """
    filled = np.flatnonzero(np.diff(found.starts) > 0)
    if len(filled) < 2:
        return []
    signatures = _signatures(found, filled, seed)
    pairs: set[int] = set()
    for band in range(BANDS):
        keys = _mixed(_joined(signatures[:, band * ROWS : (band + 1) * ROWS]))
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        begins = np.r_[True, ranked[1:] != ranked[:-1]]
        leader = order[np.flatnonzero(begins)][np.cumsum(begins) - 1]
        later = leader != order
        before = np.r_[order[:1], order[:-1]]  # of the same bucket wherever `later`
        for earlier in (leader, before):
            pairs.update((earlier[later] * len(filled) + order[later]).tolist())
    if not pairs:
        return []
    packed = np.array(sorted(pairs), dtype=np.int64)
    first, second = packed // len(filled), packed % len(filled)
    agree = np.concatenate(
        [
            (signatures[first[at : at + 65536]] == signatures[second[at : at + 65536]]).mean(axis=1)
            for at in range(0, len(packed), 65536)
        ]
    )
    likely = agree >= threshold - PREFILTER
    alike = []
    for i, j in zip(filled[first[likely]].tolist(), filled[second[likely]].tolist(), strict=True):
        index = jaccard(found.of(i), found.of(j))
        if index >= threshold:
            alike.append(Alike(i, j, index))
    return alike


def jaccard(first: Hashes, second: Hashes) -> float:
    """Of two ascending sets: shared / either; 0 when both are empty."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    either = len(first) + len(second) - shared
    return shared / either if either else 0.0


def families(num_texts: int, alike: Sequence[Alike]) -> Ints:
    """[S], the number of the earliest text that each one is linked to by a chain of pairs; its own where by none."""
    parent = list(range(num_texts))

    def root(text: int) -> int:
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for pair in alike:
        one, other = sorted((root(pair.first), root(pair.second)))
        parent[other] = one
    return np.array([root(text) for text in range(num_texts)], dtype=np.int64)


def _chunk_shingles(texts: Sequence[bytes], powers: Long, inverses: Long) -> tuple[Hashes, Ints]:
    """Shingles of some texts end to end, and how many each has.

    A word's hash is sum (byte + 1) x base^i over its bytes, from prefix sums modulo 2^64 over all texts at once.
    """
    data = np.frombuffer(b"\0".join(texts) + b"\0", dtype=np.uint8)
    word, lead = _WORD_BYTE[data], _LEAD_BYTE[data]
    before, after = np.r_[False, word[:-1]], np.r_[word[1:], False]
    next_lead = np.r_[lead[1:], False]
    starts, ends = np.flatnonzero(word & (~before | lead)), np.flatnonzero(word & (~after | next_lead)) + 1
    sums = np.r_[np.uint64(0), np.cumsum((data.astype(np.uint64) + np.uint64(1)) * powers[: len(data)])]
    words = _mixed((sums[ends] - sums[starts]) * inverses[starts])
    borders = np.cumsum([len(text) + 1 for text in texts])
    owner = np.searchsorted(borders, starts, side="right")
    count = len(words)
    room = np.searchsorted(owner, owner, side="right") - np.arange(count)  # words from here to the text's end
    padded = np.r_[words, np.zeros(2, np.uint64)]
    combined = words * np.uint64(3)
    for step, factor in ((1, 0xBF58476D1CE4E5B9), (2, 0x94D049BB133111EB)):
        combined += np.where(room > step, padded[step : step + count], np.uint64(0)) * np.uint64(factor)
    opens = np.r_[True, owner[1:] != owner[:-1]] if count else np.zeros(0, bool)
    kept = (room >= 3) | opens
    per_text = np.bincount(owner[kept], minlength=len(texts)).astype(np.int64)
    return (_mixed(combined[kept]) >> np.uint64(32)).astype(np.uint32), per_text


def _signatures(found: Shingles, texts: Ints, seed: int) -> NDArray[np.uint32]:
    """[S, 64]: the least value of each of 64 random hash functions over each text's shingles."""
    rng = np.random.default_rng(seed)
    factors = rng.integers(0, 1 << 32, NUM_MINIMA, dtype=np.uint64).astype(np.uint32) | np.uint32(1)
    shifts = rng.integers(0, 1 << 32, NUM_MINIMA, dtype=np.uint64).astype(np.uint32)
    least = np.empty((NUM_MINIMA, len(texts)), dtype=np.uint32)
    starts, ends = found.starts[texts], found.starts[texts + 1]
    at = 0
    while at < len(texts):  # as many texts at a time as the cache holds
        stop = max(at + 1, int(np.searchsorted(ends, starts[at] + 200_000, side="right")))
        piece, offsets = found.hashes[starts[at] : ends[stop - 1]], starts[at:stop] - starts[at]
        for k in range(NUM_MINIMA):
            least[k, at:stop] = np.minimum.reduceat(piece * factors[k] + shifts[k], offsets)
        at = stop
    return np.ascontiguousarray(least.T)


def _joined(minima: NDArray[np.uint32]) -> Long:
    """[S]: the minima of a band as one number."""
    joined = np.zeros(len(minima), dtype=np.uint64)
    for column in range(minima.shape[1]):
        joined = _mixed(joined ^ minima[:, column].astype(np.uint64))
    return joined


def _mixed(values: Long) -> Long:
    """Well-mixed 64-bit hashes (splitmix64, Steele et al. 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _powers(base: int, count: int = 2 * CHUNK_BYTES) -> Long:
    """base^0, base^1, ... modulo 2^64."""
    return np.cumprod(np.r_[np.uint64(1), np.full(count, base, dtype=np.uint64)], dtype=np.uint64)


def _byte_table(wanted: Sequence[int]) -> NDArray[np.bool_]:
    table = np.zeros(256, dtype=bool)
    table[list(wanted)] = True
    return table


_WORD_BYTE = _byte_table([*range(0x30, 0x3A), *range(0x61, 0x7B), *range(0x80, 0x100)])
_LEAD_BYTE = _byte_table([*range(0xE3, 0xEE)])  # U+3000 to U+DFFF: kana, Han and Hangul
