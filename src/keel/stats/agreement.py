"""How far raters agree, and how far beyond chance.

Votes are an integer array [items, raters]: the code of a category, 0 or more, or -1 where a rater did not vote.
Codes count as ordered only where a function says so (`level`, `weights`). Items with fewer than two votes tell
nothing about agreement and are left out everywhere.

Intervals are percentile bootstraps over items. Items with equal vote counts are interchangeable, so a replicate is
one multinomial draw over the distinct patterns, which is exact and does not grow with the number of items.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import nan
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keel.core.errors import DataError
from keel.stats.arrays import Floats, Ints
from keel.stats.intervals import Estimate, percentile_interval

Level = Literal["nominal", "ordinal", "interval"]
KappaWeights = Literal["none", "linear", "quadratic"]

MISSING = -1
_PAIR_REPLICATES = 2_000_000
"""Bootstrap replicates for all pairs of raters together, so that hundreds of raters take seconds."""


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two raters on the items both judged."""

    first: str
    second: str
    num_items: int
    agreement: float
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """One rater against all others: every pair of this rater's vote with another's vote on the same item."""

    rater: str
    num_votes: int
    num_pairs: int
    agreement: float
    kappa: float
    """Without weights. Votes for a, tie or b are shown with `annotate.agreement.kappa_with_others`, which has them."""


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """All that is known about how far raters agree on one set of items."""

    num_items: int
    num_shared_items: int
    """Items with two votes or more: those that the figures rest on."""
    num_raters: int
    num_votes: int
    level: Level
    agreement: Estimate
    fleiss: Estimate
    alpha: Estimate
    """Krippendorff's alpha at `level`."""
    pairs: tuple[PairAgreement, ...]
    raters: tuple[RaterAgreement, ...]

    @property
    def kappa(self) -> Estimate:
        """The kappa that a gate should look at: Cohen's for two raters, Fleiss' for more."""
        return self.pairs[0].kappa if self.num_raters == 2 and self.pairs else self.fleiss

    @property
    def kappa_name(self) -> str:
        return "Cohen's kappa" if self.num_raters == 2 else "Fleiss' kappa"

    def to_dict(self, details: bool = False) -> dict[str, Any]:
        """Flat figures for JSON, with None where one is undefined; with `details` also every pair and every rater."""
        estimates = {
            "pairwise_agreement": self.agreement,
            "krippendorff_alpha": self.alpha,
            "fleiss_kappa": self.fleiss,
        }
        if self.num_raters == 2:
            estimates["cohen_kappa"] = self.kappa
        figures: dict[str, Any] = {}
        for name, estimate in estimates.items():
            figures |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        figures |= {
            "level": self.level,
            "num_items": self.num_items,
            "num_shared_items": self.num_shared_items,
            "num_raters": self.num_raters,
            "num_votes": self.num_votes,
        }
        if details:
            figures |= {"pairs": [asdict(pair) for pair in self.pairs], "raters": [asdict(r) for r in self.raters]}
        return _plain(figures)


def pairwise_agreement(votes: ArrayLike) -> float:
    """Share of the pairs of votes on an item that are equal, averaged over items; nan without any pair.

    Every item counts the same, so the few that many raters saw do not decide: the chance that two raters of a random
    item say the same, Fleiss' mean P.
    """
    patterns = _patterns(_checked(votes))
    return float(_agreement(patterns, patterns.times))


def cohen_kappa(first: ArrayLike, second: ArrayLike, weights: KappaWeights = "none") -> float:
    """Agreement of two raters beyond chance (Cohen 1960); both [items], items that either left out do not count.

    With `weights` the distance between codes decides how bad a disagreement is (Cohen 1968). nan where chance alone
    agrees always, as when both raters only ever use one category.
    """
    votes = _checked(np.stack(_same_length(first, second), axis=1))
    codes = _codes(votes)
    return float(_cohen(_confusions(votes, codes)[0, 1], codes, weights))


def fleiss_kappa(votes: ArrayLike) -> float:
    """Agreement of many raters beyond chance (Fleiss 1971); nan where chance alone agrees always.

    Where items have unequal numbers of votes, each item keeps the same weight, in the observed agreement and in the
    shares of the categories (Gwet 2014, here over items with two votes or more). Equal numbers give Fleiss' own form.
    """
    patterns = _patterns(_checked(votes))
    return float(_fleiss(patterns, patterns.times))


def krippendorff_alpha(votes: ArrayLike, level: Level = "nominal") -> float:
    """1 - observed / expected disagreement (Krippendorff 2011), for any number of raters and missing votes.

    `level` says what a disagreement costs: nominal 1; ordinal the squared number of votes ranked between; interval
    the squared difference of the codes. nan where all pairable votes are the same.
    """
    patterns = _patterns(_checked(votes))
    return float(_alpha(patterns, patterns.times, level))


def alpha_estimate(
    votes: ArrayLike, level: Level, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Krippendorff's alpha with its interval, and nothing else."""
    patterns = _patterns(_checked(votes))
    draws = _resample(np.random.default_rng(seed), patterns.times, resamples)
    interval = percentile_interval(_alpha(patterns, draws, level), confidence)
    return Estimate(float(_alpha(patterns, patterns.times, level)), *interval, confidence)


def disputed_items(votes: ArrayLike) -> Ints:
    """Indices of the items whose votes differ, the most disputed first: largest share of unequal pairs, then votes."""
    table = _checked(votes)
    counts = _category_counts(table, _codes(table))
    pairs = counts.sum(axis=1) * (counts.sum(axis=1) - 1)
    unequal = pairs - (counts * (counts - 1)).sum(axis=1)
    disputed = np.flatnonzero(unequal)
    share = unequal[disputed] / pairs[disputed]
    return disputed[np.lexsort((disputed, -pairs[disputed], -share))]


def agreement_report(
    votes: ArrayLike,
    names: Sequence[str] | None = None,
    level: Level = "nominal",
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> AgreementReport:
    """Every measure of agreement with its interval; `names` are the raters, in the order of the columns."""
    table = _checked(votes)
    num_raters = table.shape[1]
    raters = [f"rater {k + 1}" for k in range(num_raters)] if names is None else list(names)
    if len(raters) != num_raters:
        raise DataError(f"{len(raters)} rater names for {num_raters} columns of votes. Give one name per column.")
    rng = np.random.default_rng(seed)
    patterns = _patterns(table)
    draws = _resample(rng, patterns.times, resamples)

    def estimate(value: Floats, replicates: Floats) -> Estimate:
        return Estimate(float(value), *percentile_interval(replicates, confidence), confidence)

    codes = _codes(table)
    confusions = _confusions(table, codes)
    pairs = []
    per_pair = min(resamples, max(100, _PAIR_REPLICATES // max(1, num_raters * (num_raters - 1) // 2)))
    for i, j in zip(*np.triu_indices(num_raters, k=1), strict=True):
        confusion = confusions[i, j]
        if total := confusion.sum():
            cells = _resample(rng, confusion.ravel(), per_pair).reshape(-1, *confusion.shape)
            kappa = estimate(_cohen(confusion, codes), _cohen(cells, codes))
            share = float(np.trace(confusion) / total)
            pairs.append(PairAgreement(raters[i], raters[j], int(total), share, kappa))
    return AgreementReport(
        num_items=table.shape[0],
        num_shared_items=int(patterns.times.sum()),
        num_raters=num_raters,
        num_votes=int((table != MISSING).sum()),
        level=level,
        agreement=estimate(_agreement(patterns, patterns.times), _agreement(patterns, draws)),
        fleiss=estimate(_fleiss(patterns, patterns.times), _fleiss(patterns, draws)),
        alpha=estimate(_alpha(patterns, patterns.times, level), _alpha(patterns, draws, level)),
        pairs=tuple(pairs),
        raters=tuple(_rater_agreement(raters[k], table[:, k], confusions[k], codes, k) for k in range(num_raters)),
    )


def _rater_agreement(name: str, column: Ints, confusions: Floats, codes: Ints, index: int) -> RaterAgreement:
    others = np.delete(confusions, index, axis=0).sum(axis=0)
    total = others.sum()
    return RaterAgreement(
        rater=name,
        num_votes=int((column != MISSING).sum()),
        num_pairs=int(total),
        agreement=float(np.trace(others) / total) if total else nan,
        kappa=float(_cohen(others, codes)),
    )


@dataclass(frozen=True, slots=True)
class _Patterns:
    counts: Floats
    """[P, V] votes per category; every row distinct, with a sum of two or more."""
    times: Floats
    """[P] how many items show the pattern."""
    codes: Floats
    """[V] the code of each category."""


def _checked(votes: ArrayLike) -> Ints:
    table = np.asarray(votes)
    if table.ndim != 2 or table.shape[1] < 2:
        raise DataError(f"Votes must be [items, raters] with two raters or more, got shape {table.shape}.")
    if table.dtype.kind not in "iub":
        raise DataError(f"Votes must be integer codes with {MISSING} for a missing vote, got {table.dtype}.")
    table = table.astype(np.int64)
    if table.size and table.min() < MISSING:
        item, rater = np.argwhere(table < MISSING)[0]
        raise DataError(
            f"Vote {table[item, rater]} of rater {rater + 1} on item {item + 1}: codes are 0 or more, {MISSING} is "
            "a missing vote. Number the categories from 0."
        )
    return table


def _same_length(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"Two raters need one vote each per item, got shapes {a.shape} and {b.shape}.")
    return a, b


def _codes(table: Ints) -> Ints:
    """Codes of the categories in use, ascending; [0] when nobody voted, so that every array has a category."""
    codes = np.unique(table[table != MISSING])
    return codes if len(codes) else np.zeros(1, np.int64)


def _category_counts(table: Ints, codes: Ints) -> Ints:
    """Votes per category, [N, V]."""
    return np.stack([(table == code).sum(axis=1) for code in codes], axis=1)


def _patterns(table: Ints) -> _Patterns:
    codes = _codes(table)
    counts = _category_counts(table, codes)
    counts = counts[counts.sum(axis=1) >= 2]
    distinct, times = np.unique(counts, axis=0, return_counts=True)
    return _Patterns(distinct.astype(np.float64), times.astype(np.float64), codes.astype(np.float64))


def _resample(rng: np.random.Generator, times: Floats, resamples: int) -> Floats:
    """Bootstrap counts [resamples, len(times)]: items drawn with replacement, counted by pattern."""
    total = int(times.sum())
    if total == 0:
        return np.zeros((resamples, len(times)))
    return rng.multinomial(total, times / total, size=resamples).astype(np.float64)


# The measures below take the weight of each pattern, [..., P], and return [...]: one value, or all replicates at once.


def _agreement(patterns: _Patterns, weights: Floats) -> Floats:
    counts = patterns.counts
    votes = counts.sum(axis=1)
    return _ratio(weights @ ((counts * (counts - 1)).sum(axis=1) / (votes * (votes - 1))), weights.sum(axis=-1))


def _fleiss(patterns: _Patterns, weights: Floats) -> Floats:
    counts = patterns.counts
    votes = counts.sum(axis=1)
    shares = _ratio(weights @ (counts / votes[:, None]), weights.sum(axis=-1)[..., None])
    expected = (shares**2).sum(axis=-1)
    return _ratio(_agreement(patterns, weights) - expected, 1 - expected)


def _alpha(patterns: _Patterns, weights: Floats, level: Level) -> Floats:
    counts = patterns.counts
    size = counts.shape[1]
    within = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(size)
    within /= counts.sum(axis=1)[:, None, None] - 1
    coincidences = (weights @ within.reshape(len(counts), size * size)).reshape(*weights.shape[:-1], size, size)
    totals = coincidences.sum(axis=-1)
    votes = totals.sum(axis=-1)
    distances = _squared_distances(totals, patterns.codes, level)
    observed = (coincidences * distances).sum(axis=(-2, -1))
    expected = (totals[..., :, None] * totals[..., None, :] * distances).sum(axis=(-2, -1))
    return 1 - _ratio(observed * (votes - 1), expected)


def _squared_distances(totals: Floats, codes: Floats, level: Level) -> Floats:
    """Cost of confusing two categories, [..., V, V]; ordinal ranks are the mid-ranks of the votes themselves."""
    if level == "nominal":
        return 1 - np.eye(len(codes))
    if level == "ordinal":
        places = np.cumsum(totals, axis=-1) - totals / 2
    elif level == "interval":
        places = codes
    else:
        raise DataError(f"Level of measurement {level!r} is unknown. Choose nominal, ordinal or interval.")
    return (places[..., :, None] - places[..., None, :]) ** 2


def _cohen(confusion: Floats, codes: Ints, weights: KappaWeights = "none") -> Floats:
    """Kappa of confusion matrices [..., V, V]."""
    distance = np.abs(codes[:, None] - codes[None, :]).astype(np.float64)
    if weights == "none":
        distance = np.minimum(distance, 1)
    elif weights == "quadratic":
        distance = distance**2
    elif weights != "linear":
        raise DataError(f"Kappa weights {weights!r} are unknown. Choose none, linear or quadratic.")
    total = confusion.sum(axis=(-2, -1))
    expected = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]
    return 1 - _ratio((confusion * distance).sum(axis=(-2, -1)) * total, (expected * distance).sum(axis=(-2, -1)))


def _confusions(table: Ints, codes: Ints) -> Floats:
    """Confusion matrix of every pair of raters, [K, K, V, V]; rows are the first rater's votes."""
    num_raters, size = table.shape[1], len(codes)
    joint = np.zeros((num_raters * size, num_raters * size))
    for start in range(0, len(table), 8192):
        # float32 counts exactly up to 2**24, far above a chunk.
        ones = (table[start : start + 8192, :, None] == codes).reshape(-1, num_raters * size).astype(np.float32)
        joint += ones.T @ ones
    return joint.reshape(num_raters, size, num_raters, size).transpose(0, 2, 1, 3)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient, nan where the denominator vanishes."""
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    vanished = np.abs(denominator) < 1e-12
    return np.where(vanished, nan, numerator / np.where(vanished, 1.0, denominator))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
