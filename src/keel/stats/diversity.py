"""How varied texts are: distinct n-grams, self-BLEU, repetition within a text.

Token lists hold ids or words; the words must be of one type. A text shorter than n has no n-grams.
"""

from collections.abc import Hashable, Sequence
from math import nan
from typing import TypeAlias

import numpy as np

from keel.core.errors import DataError
from keel.stats.arrays import Floats, Ints, sum_by

TokenLists: TypeAlias = Sequence[Sequence[Hashable]]

SMOOTHING = 0.1


def distinct_n(token_lists: TokenLists, n: int) -> float:
    """Different n-grams / all n-grams, over all texts together (Li et al. 2016); 0 when there is no n-gram at all.

    It falls as texts grow in number or length, so compare it only between sets of like size.
    """
    return _share_distinct(_ngrams(*_flatten(token_lists), n)[0])


def unique_share(texts: Sequence[Hashable]) -> float:
    """Different texts / all texts; 0 when there are none."""
    return len(set(texts)) / len(texts) if len(texts) else 0.0


def repeated_ngram_share(token_lists: TokenLists, n: int = 3) -> float:
    """Share of a text's n-grams that it has said before, averaged over texts (seq-rep-n, Welleck et al. 2020).

    Texts without n-grams are left out; 0 when none has any.
    """
    grams, owner = _ngrams(*_flatten(token_lists), n)
    if not len(grams):
        return 0.0
    total = np.bincount(owner)
    pairs = np.unique(np.stack([owner, grams], axis=1), axis=0)
    distinct = np.bincount(pairs[:, 0], minlength=len(total))
    has = total > 0
    return float(np.mean(1 - distinct[has] / total[has]))


def self_bleu(token_lists: TokenLists, max_n: int = 4) -> float:
    """Mean BLEU of each text with all others as references (Zhu et al. 2018): 1 when all say the same; lower is better.

    BLEU as in Papineni et al. 2002, n-grams up to `max_n` weighted equally, closest reference length (the shorter of
    two), an n-gram order without a match counted as 0.1 matches (Chen and Cherry 2014, method 1), 0 when not even a
    word matches. nan for fewer than two texts. Exact over all texts: an n-gram's count in the best other text is its
    largest count, or the second largest for the text that holds the largest.
    """
    if max_n < 1:
        raise DataError(f"self_bleu needs n-grams of 1 token or more, got max_n={max_n}.")
    num_texts = len(token_lists)
    if num_texts < 2:
        return nan
    ids, lengths = _flatten(token_lists)
    log_precision = np.zeros(num_texts)
    no_word = np.zeros(num_texts, dtype=bool)
    for n in range(1, max_n + 1):
        matches = _clipped_matches(*_ngrams(ids, lengths, n), num_texts)
        if n == 1:
            no_word = matches == 0
        possible = np.maximum(lengths - n + 1, 1)
        log_precision += np.log(np.where(matches == 0, SMOOTHING, matches) / possible)
    bleu = _brevity_penalty(lengths) * np.exp(log_precision / max_n)
    return float(np.where(no_word, 0.0, bleu).mean())


def _flatten(token_lists: TokenLists) -> tuple[Ints, Ints]:
    """Tokens of all texts end to end as ids 0, 1, ..., and the length of each text."""
    lengths = np.array([len(tokens) for tokens in token_lists], dtype=np.int64)
    numbers: dict[Hashable, int] = {}
    ids = [numbers.setdefault(token, len(numbers)) for tokens in token_lists for token in tokens]
    return np.array(ids, dtype=np.int64), lengths


def _ngrams(ids: Ints, lengths: Ints, n: int) -> tuple[Ints, Ints]:
    """A number per n-gram, equal for equal n-grams, and the index of its text."""
    if n < 1:
        raise DataError(f"n-grams have 1 token or more, got n={n}.")
    owner = np.repeat(np.arange(len(lengths)), lengths)
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))
    starts = np.flatnonzero(room >= n)
    grams = ids[starts]
    for offset in range(1, n):
        # Renumbering after each token keeps the product of two numbers far inside int64.
        _, grams = np.unique(grams * (ids.max(initial=0) + 1) + ids[starts + offset], return_inverse=True)
    return grams, owner[starts]


def _share_distinct(grams: Ints) -> float:
    return len(np.unique(grams)) / len(grams) if len(grams) else 0.0


def _clipped_matches(grams: Ints, owner: Ints, num_texts: int) -> Floats:
    """For each text, its n-grams that another text also has, each counted at most as often as in the best other."""
    if not len(grams):
        return np.zeros(num_texts)
    cells, counts = np.unique(grams * num_texts + owner, return_counts=True)
    gram, text = cells // num_texts, cells % num_texts
    order = np.lexsort((-counts, gram))
    gram, text, counts = gram[order], text[order], counts[order]
    first = np.flatnonzero(np.r_[True, gram[1:] != gram[:-1]])
    holders = np.diff(np.r_[first, len(gram)])
    largest = counts[first]
    second = np.where(holders > 1, counts[np.minimum(first + 1, len(counts) - 1)], 0)
    elsewhere = np.repeat(largest, holders)
    elsewhere[first] = second
    return sum_by(text, np.minimum(counts, elsewhere), num_texts)


def _brevity_penalty(lengths: Ints) -> Floats:
    """exp(1 - r / c) where the closest other length r exceeds the own length c, else 1; 0 for an empty text."""
    order = np.argsort(lengths, kind="stable")
    ranked = lengths[order].astype(np.float64)
    below, above = np.r_[-np.inf, ranked[:-1]], np.r_[ranked[1:], np.inf]
    closest = np.where(ranked - below <= above - ranked, below, above)
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.where(closest > ranked, np.exp(1 - closest / ranked), 1.0)
    penalty[ranked == 0] = 0.0
    result = np.empty_like(penalty)
    result[order] = penalty
    return result
