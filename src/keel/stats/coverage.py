"""Which trigrams of tokens a model has met in training: what lies outside it judges without ever having learnt it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from math import nan

import numpy as np
from numpy.typing import NDArray

from keel.core.errors import DataError
from keel.stats.arrays import Ints
from keel.stats.diversity import run_starts

TOKEN_BITS = 21
"""Three token ids below 2^21 fill 63 bits: packing is exact, for vocabularies of up to 2,097,152 tokens."""
TEXTS_AT_ONCE = 20_000


@dataclass(frozen=True, slots=True)
class Coverage:
    """A set of trigrams."""

    seen: Ints
    """[C] int64, rising, each once; packed by `trigrams`."""

    @classmethod
    def of(cls, token_lists: Iterable[Sequence[int]]) -> "Coverage":
        """Every trigram of token ids within the texts."""
        texts, seen = iter(token_lists), np.zeros(0, dtype=np.int64)
        while part := list(islice(texts, TEXTS_AT_ONCE)):
            lengths = np.array([len(tokens) for tokens in part], dtype=np.int64)
            tokens = np.fromiter(chain.from_iterable(part), dtype=np.int64, count=int(lengths.sum()))
            seen = _distinct(seen, trigrams(tokens, lengths))
        return cls(seen)

    def __or__(self, other: "Coverage") -> "Coverage":
        """What either has met."""
        return Coverage(_distinct(self.seen, other.seen))

    def unseen_share(self, tokens: Ints, lengths: Ints) -> float:
        """Share of the texts' trigrams, each occurrence counted, that are not in the set; nan without trigrams.

        `tokens` [N] are those of all texts end to end, `lengths` [S] the texts' lengths.
        """
        asked = np.sort(trigrams(tokens, lengths))  # in order, because the search then stays in the cache
        return float(np.mean(self._unseen(asked))) if len(asked) else nan

    def unseen_counts(self, tokens: Ints, lengths: Ints) -> Ints:
        """[S] how many trigrams of each text are not in the set, each occurrence counted."""
        owner = np.repeat(np.arange(len(lengths)), np.maximum(lengths - 2, 0))
        return np.bincount(owner[self._unseen(trigrams(tokens, lengths))], minlength=len(lengths))

    def _unseen(self, asked: Ints) -> NDArray[np.bool_]:
        if not len(self.seen):
            return np.ones(len(asked), dtype=bool)
        place = np.minimum(np.searchsorted(self.seen, asked), len(self.seen) - 1)
        return self.seen[place] != asked


def _distinct(a: Ints, b: Ints) -> Ints:
    """The values of both, rising, each once; by a sort, which for int64 is several times faster than numpy's union."""
    values = np.sort(np.concatenate([a, b]))
    return values[run_starts(values)]


def trigrams(tokens: Ints, lengths: Ints) -> Ints:
    """One int64 for every three tokens in a row of a text, equal for equal ones only; a short text has none."""
    if len(tokens) and (int(tokens.max()) >> TOKEN_BITS or int(tokens.min()) < 0):
        raise DataError(
            f"token ids must be from 0 to {(1 << TOKEN_BITS) - 1} for trigrams to be packed exactly, found "
            f"{int(tokens.min())} to {int(tokens.max())}."
        )
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))
    at = np.flatnonzero(room >= 3)
    return (tokens[at] << 2 * TOKEN_BITS) | (tokens[at + 1] << TOKEN_BITS) | tokens[at + 2]
