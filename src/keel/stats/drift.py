"""Whether a rater has changed over the weeks (drift), or tires within a sitting (fatigue).

Three series tell, one value a judgment in order of time: whether golden questions were answered rightly, whether the
rater agreed with the others, and the seconds taken. Drift is a single change of level, by `stats.change`; fatigue is a
slope along the place in a sitting, the same in every sitting, whatever the level of each. A rater is called changed or
tired only for answers that got worse; seconds are told beside it, since people rightly get faster with practice.
"""

from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.arrays import Floats, Ints, sum_by
from keel.stats.change import change_point

BREAK_S = 1800.0
"""A pause as long as this ends a sitting."""
MIN_VALUES = 20
"""With fewer values nothing is said: a change that shows in so few has to be enormous."""
_BLOCKS = 200


@dataclass(frozen=True, slots=True)
class Change:
    """Where the level of a series most likely changed."""

    num_values: int = 0
    index: int | None = None
    """Position in the series of the first value at the new level, to within a block of n / 200 values."""
    before: float = nan
    """Mean up to there; of seconds the geometric mean."""
    after: float = nan
    p_value: float = 1.0
    """Two-sided, the search over positions paid for."""

    @property
    def fell(self) -> bool:
        return self.after < self.before


@dataclass(frozen=True, slots=True)
class Slope:
    """How a series goes along the place in a sitting."""

    num_values: int = 0
    start: float = nan
    """Mean over the first third of the sittings; of seconds the geometric mean."""
    end: float = nan
    """Mean over the last third."""
    p_value: float = 1.0
    """Two-sided: places exchanged within sittings."""

    @property
    def fell(self) -> bool:
        return self.end < self.start


@dataclass(frozen=True, slots=True)
class Steadiness:
    """A rater over time; what was not given has no values and p = 1."""

    gold: Change
    agreement: Change
    seconds: Change
    gold_fatigue: Slope
    agreement_fatigue: Slope
    seconds_fatigue: Slope
    alpha: float
    """Chance that a steady rater is called changed, and the same for tired."""

    @property
    def drifted(self) -> bool:
        """Golden answers or agreement got worse for good: one-sided, at alpha / 2 each."""
        return any(change.fell and change.p_value / 2 < self.alpha / 2 for change in (self.gold, self.agreement))

    @property
    def tired(self) -> bool:
        """Golden answers or agreement get worse along a sitting: one-sided, at alpha / 2 each."""
        slopes = (self.gold_fatigue, self.agreement_fatigue)
        return any(slope.fell and slope.p_value / 2 < self.alpha / 2 for slope in slopes)

    @property
    def rushes(self) -> bool:
        """Took half the time or less after some point, or by the end of a sitting, beyond doubt (p < alpha / 10)."""
        change, slope = self.seconds, self.seconds_fatigue
        return (change.after <= change.before / 2 and change.p_value < self.alpha / 10) or (
            slope.end <= slope.start / 2 and slope.p_value < self.alpha / 10
        )


def drift(values: ArrayLike, seed: int = 0) -> Change:
    """The likeliest change of level in `values` [N], in order of time; nan is left out.

    More than 200 values are averaged in blocks first. Fewer than 20 tell nothing.
    """
    series = np.asarray(values, dtype=np.float64).reshape(-1)
    places = np.flatnonzero(np.isfinite(series))
    n = len(places)
    if n < MIN_VALUES:
        return Change(n)
    blocks = np.array_split(places, min(n, _BLOCKS))
    found = change_point(np.array([series[block].mean() for block in blocks]), seed)
    if found.index is None:
        return Change(n)
    index = int(blocks[found.index][0])
    before, after = places[places < index], places[places >= index]
    return Change(n, index, float(series[before].mean()), float(series[after].mean()), found.p_value)


def fatigue(values: ArrayLike, sittings: ArrayLike) -> Slope:
    """How `values` [N], in order of time, go along the place in their sitting; nan is left out.

    sittings [N] numbers the sitting of each value. The statistic is the sum of value times place, both about the mean
    of their sitting; its exact variance under exchange within sittings gives a normal score. Fewer than 20 values in
    sittings of two or more tell nothing.
    """
    series = np.asarray(values, dtype=np.float64).reshape(-1)
    groups = np.asarray(sittings).reshape(-1)
    if series.shape != groups.shape:
        raise DataError(f"Each value needs its sitting, got {series.size} values and {groups.size} sittings.")
    place = _place_in(groups)
    known = np.isfinite(series)
    series, groups, place = series[known], np.unique(groups[known], return_inverse=True)[1], place[known]
    if not series.size:
        return Slope()
    num = int(groups.max()) + 1
    sizes = np.bincount(groups, minlength=num)
    usable = sizes[groups] >= 2
    n = int(usable.sum())
    if n < MIN_VALUES:
        return Slope(n)
    about, along = _centred(series, groups, sizes), _centred(place, groups, sizes)
    squares = sum_by(groups, about**2, num) * sum_by(groups, along**2, num)
    variance = float((squares / np.maximum(sizes - 1, 1)).sum())
    relative = place / np.maximum(_largest_by(groups, place, num)[groups], 1)
    early, late = usable & (relative <= 1 / 3), usable & (relative >= 2 / 3)
    start, end = float(series[early].mean()), float(series[late].mean())
    if variance <= 1e-12:
        return Slope(n, start, end)
    score = float((about * along).sum()) / sqrt(variance)
    return Slope(n, start, end, 2 * NormalDist().cdf(-abs(score)))


def sittings_of(times: ArrayLike, break_s: float = BREAK_S) -> Ints:
    """Number of the sitting, from 0, of each judgment; `times` [N] are seconds in ascending order."""
    at = np.asarray(times, dtype=np.float64).reshape(-1)
    if (np.diff(at) < 0).any():
        first = int(np.argmax(np.diff(at) < 0))
        raise DataError(f"Judgment {first + 2} is older than the one before it. Sort judgments by time.")
    return np.r_[0, np.cumsum(np.diff(at) > break_s)][: len(at)]


def steadiness(
    times: ArrayLike,
    gold_correct: ArrayLike | None = None,
    agreed: ArrayLike | None = None,
    seconds: ArrayLike | None = None,
    *,
    alpha: float = 0.05,
    break_s: float = BREAK_S,
    seed: int = 0,
) -> Steadiness:
    """One rater over time. All are [N], one a judgment, in order of `times` (seconds); nan where there is no value.

    gold_correct is 1 or 0 on golden questions, nan elsewhere; agreed is the share of the others who said the same;
    seconds is the time taken. With `alpha` .05 a steady rater is called drifted, or tired, in 5 % of cases at most.
    """
    at = np.asarray(times, dtype=np.float64).reshape(-1)
    nothing = np.full(len(at), nan)
    gold, others, took = (
        nothing if given is None else np.asarray(given, dtype=np.float64) for given in (gold_correct, agreed, seconds)
    )
    for name, given in (("gold_correct", gold), ("agreed", others), ("seconds", took)):
        if given.shape != at.shape:
            raise DataError(f"{name} has {given.size} values for {at.size} judgments. Give one each, nan for none.")
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(took > 0, np.log(np.maximum(took, 1e-3)), nan)
    place = sittings_of(at, break_s)
    pace, pace_along = drift(logs, seed), fatigue(logs, place)
    return Steadiness(
        gold=drift(gold, seed),
        agreement=drift(others, seed),
        seconds=Change(pace.num_values, pace.index, _exp(pace.before), _exp(pace.after), pace.p_value),
        gold_fatigue=fatigue(gold, place),
        agreement_fatigue=fatigue(others, place),
        seconds_fatigue=Slope(pace_along.num_values, _exp(pace_along.start), _exp(pace_along.end), pace_along.p_value),
        alpha=alpha,
    )


def _exp(value: float) -> float:
    return float(np.exp(value))


def _place_in(groups: Ints) -> Floats:
    """Place from 0 within runs of equal numbers, [N]."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(groups) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(groups)])
    return (np.arange(len(groups)) - np.repeat(starts, lengths)).astype(np.float64)


def _centred(values: Floats, groups: Ints, sizes: Ints) -> Floats:
    return values - (sum_by(groups, values, len(sizes)) / sizes)[groups]


def _largest_by(groups: Ints, values: Floats, num_groups: int) -> Floats:
    """Largest of `values` by group."""
    largest = np.zeros(num_groups)
    np.maximum.at(largest, groups, values)
    return largest
