"""Win rates of a stream of verdicts that may be read after every verdict: intervals, evidence, and falls.

A verdict is 1 for a win, 0.5 for a tie, 0 for a loss, or anything between; nan, a judge that did not answer, is left
out. The policy may change while verdicts come in. `keel.stats.bets` holds the argument why all of it is valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keel.core.errors import DataError
from keel.stats.arrays import Floats
from keel.stats.bets import log_gains, log_sum, log_wealth, one_sided, two_sided, verdicts_of

MIN_SIDE = 20
"""Verdicts asked for on either side of a comparison: with fewer, rates near 0 or 1 are too far from normal."""
MAX_BATCHES = 24
"""Beyond, the oldest batches are taken as one."""
_HALVINGS = 45
_LEVELS = np.linspace(0.0, 1.0, 101)


def confidence_sequence(values: ArrayLike, alpha: float = 0.05) -> tuple[Floats, Floats]:
    """Lower and upper ends [N] after each of `values` [N] without nan: an interval that may be looked at every time.

    With probability 1 - alpha every one of the N intervals holds the mean of mu_1..mu_t: the average conditional mean
    so far, which is the win rate itself where the policy does not change. So it says how the policies judged so far did
    on average, not how the newest does; for that, give it the newest batch only. Do not intersect the intervals over
    time: the average moves. Mean width at 20, 50, 100, 200 verdicts of rate 0.7: 0.56, 0.37, 0.27, 0.20 (an interval
    for one look at a fixed number: 0.40, 0.25, 0.18, 0.13).
    """
    verdicts = verdicts_of(values)
    gains, counts = log_gains(verdicts, two_sided())
    return _ends(gains, counts, verdicts.cumsum() / counts, alpha)


def win_rate(values: ArrayLike, alpha: float = 0.05) -> tuple[float, float, float]:
    """Mean verdict with the last interval of `confidence_sequence`; (nan, 0, 1) without verdicts."""
    verdicts = verdicts_of(values)
    if not verdicts.size:
        return nan, 0.0, 1.0
    gains, counts = log_gains(verdicts, two_sided())
    mean = verdicts.mean(keepdims=True)
    low, high = _ends(gains[-1:], counts[-1:], mean, alpha)
    return float(mean[0]), float(low[0]), float(high[0])


def log_evidence_path(
    values: ArrayLike, *, null_at_least: float | None = None, null_at_most: float | None = None
) -> Floats:
    """Log of an e-process [N] after each verdict against "every conditional mean is at least (or at most) this".

    Give one of the two nulls. While it holds, P(any entry >= log(1 / alpha)) <= alpha, so one may stop at any time:
    log 20 = 3.0 is evidence at 5 %. The null may be weaker: that the average conditional mean so far is always at least
    (or at most) this.
    """
    if (null_at_least is None) == (null_at_most is None):
        raise DataError("Evidence is against one null: give either null_at_least or null_at_most.")
    verdicts = verdicts_of(values)
    null, odds = (null_at_least, -one_sided()) if null_at_most is None else (null_at_most, one_sided())
    if null is None or not 0 <= null <= 1:
        raise DataError(f"A mean verdict lies in [0, 1], and a null of {null} does not.")
    gains, counts = log_gains(verdicts, odds)
    return log_wealth(gains, counts, np.full(len(counts), null), odds)


def log_evidence(values: ArrayLike, *, null_at_least: float | None = None, null_at_most: float | None = None) -> float:
    """The last entry of `log_evidence_path`; 0 without verdicts."""
    path = log_evidence_path(values, null_at_least=null_at_least, null_at_most=null_at_most)
    return float(path[-1]) if path.size else 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Whether the newest batches fell below an earlier level by more than a margin."""

    log_evidence: float = 0.0
    """Log of an e-process, at least 0; an alarm at >= log(1 / alpha). Valid for any number of looks."""
    p_value: float = 1.0
    """For all looks up to the horizon together; an alarm at <= alpha. Sees a fall sooner."""
    before: float = nan
    """Mean verdict of the reference batches."""
    after: float = nan
    """Mean verdict of the newest batches, from `since` on."""
    since: int | None = None
    """Index of the first batch of the fall where it is likeliest; None where nothing can be compared."""


def drop_evidence(batches: Sequence[ArrayLike], margin: float = 0.0, horizon: int = 10) -> Drop:
    """Whether the win rate has fallen by more than `margin` from an earlier level; batches in order, oldest first.

    Every stretch of batches r..s is compared with all that came after it, s+1..t; to have picked the best reference is
    paid for, in two ways. Neither is hurt by a rate that rises. Call it after every batch.

    - `p_value`: the largest z over all (r, s), against the law of its largest value over all (r, s) and all looks
      t <= `horizon` while the rate is constant (sums of normal variables for batches of the same sizes, simulated with
      a fixed seed). P(p <= alpha at any look up to the horizon) is alpha to the accuracy of that approximation.
      Batches beyond the horizon move it along: set it to the batches the budget allows.
    - `log_evidence`: for each (r, s) the smallest, over a common level m, of the wealth of bets that r..s lies above m
      times that of bets that s+1..t lies below m - margin; averaged over (r, s) with weights that sum to 1. An
      e-process, so P(log_evidence >= log(1 / alpha) ever) <= alpha without approximation, and slower.

    Measured with 10 batches of 20, alpha .05 (20,000 streams; evidence: 150). False alarms in a stream at rates .5,
    .65, .8, .9, .95: p .048, .047, .048, .049, .043; evidence below .01. Twenty batches of 10: .051 to .057. A fall
    from .70 to .45 after 5 batches is seen within 20, 40, 60, 80, 100 verdicts by p in .28, .53, .69, .78, .84 of
    streams (evidence .05, .16, .27, .37, .47); from .75 to .35 after 4, .69, .93, .98 (half within 20 verdicts).
    """
    rows = [verdicts_of(batch) for batch in batches]
    rows = [(index, row) for index, row in enumerate(rows) if row.size]
    surplus = max(0, len(rows) - MAX_BATCHES)
    if surplus:
        # The oldest become one: the number of pairs to compare stays small.
        rows = [(0, np.concatenate([row for _, row in rows[: surplus + 1]])), *rows[surplus + 1 :]]
    if len(rows) < 2:
        return Drop()
    counts = np.array([row.size for _, row in rows], dtype=np.float64)
    best = _largest_z([row for _, row in rows], counts, margin)
    evidence = _drop_wealth([row for _, row in rows], margin, surplus)
    if best is None:
        return Drop(log_evidence=evidence)
    z, before, after, split = best
    null = _null_largest(_planned(counts, horizon))
    p_value = float((1 + np.count_nonzero(null >= z)) / (1 + len(null)))
    return Drop(evidence, p_value, before, after, rows[split][0])


def _largest_z(rows: list[Floats], counts: Floats, margin: float) -> tuple[float, float, float, int] | None:
    """The largest z, the means before and after, and the index of the first batch after; None if all are too small."""
    sums = np.r_[0.0, np.cumsum([row.sum() for row in rows])]
    squares = np.r_[0.0, np.cumsum([row @ row for row in rows])]
    sizes = np.r_[0.0, counts.cumsum()]
    first, split = _pairs(len(rows))
    n_before, n_after = sizes[split] - sizes[first], sizes[-1] - sizes[split]
    usable = np.minimum(n_before, n_after) >= MIN_SIDE
    if not usable.any():
        return None
    first, split, n_before, n_after = first[usable], split[usable], n_before[usable], n_after[usable]
    n = n_before + n_after
    mean = (sums[-1] - sums[first]) / n
    # Two more verdicts of the largest variance: a stretch of equal verdicts is not certain, and false alarms stay rare.
    variance = (squares[-1] - squares[first] - n * mean**2 + 0.5) / (n + 2)
    before, after = (sums[split] - sums[first]) / n_before, (sums[-1] - sums[split]) / n_after
    z = (before - after - margin) / np.sqrt(variance * (1 / n_before + 1 / n_after))
    best = int(np.argmax(z))
    return float(z[best]), float(before[best]), float(after[best]), int(split[best])


def _drop_wealth(rows: list[Floats], margin: float, surplus: int) -> float:
    """Log of the average, over references (r, s), of the wealth against "no lower than the reference - margin".

    `surplus` is how many batches the first row holds besides its own.
    """
    odds = one_sided()
    start = np.zeros((1, len(odds)))
    up = np.r_[start, [log_gains(row, odds)[0][-1] for row in rows]].cumsum(axis=0)
    down = np.r_[start, [log_gains(row, -odds)[0][-1] for row in rows]].cumsum(axis=0)
    sizes = np.r_[0.0, np.cumsum([row.size for row in rows])]
    cost_up = np.log1p(np.outer(_LEVELS, np.expm1(odds)))
    cost_down = np.log1p(np.outer(np.clip(_LEVELS - margin, 0, 1), np.expm1(-odds)))
    logs = []
    for split in range(1, len(rows)):
        after = log_sum(down[-1] - down[split] - (sizes[-1] - sizes[split]) * cost_down)
        held = (sizes[split] - sizes[:split])[:, None, None]
        before = log_sum((up[split] - up[:split])[:, None] - held * cost_up)
        # Both are log-convex in the level, so the grid's smallest value is the true one to 0.02 nats.
        smallest = (before + after).min(axis=1) - 2 * log(len(odds))
        # Weights 3 / ((s + 2)(s + 3)) over splits s, even over the s references: they sum to 1 however many may come.
        s = split + surplus
        logs.append(smallest + log(3 / ((s + 2) * (s + 3) * s)))
    return max(0.0, float(log_sum(np.concatenate(logs))))


def _pairs(num_batches: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All (first, split) with first < split < num_batches: the reference is first..split - 1."""
    first, split = np.triu_indices(num_batches, k=1)
    return first, split


def _planned(counts: Floats, horizon: int) -> tuple[float, ...]:
    """Batch sizes up to the horizon: those seen, then their mean, so that equal batches give one and the same tuple."""
    return (*counts.tolist(), *[float(counts.mean())] * (min(horizon, MAX_BATCHES) - len(counts)))


@lru_cache(maxsize=64)
def _null_largest(sizes: tuple[float, ...]) -> Floats:
    """Draws of the largest z over all references and looks when nothing changes; seeded, so always the same."""
    n = len(sizes)
    draws = int(np.clip(24_000_000 // n**3, 2000, 20_000))
    steps = np.sqrt(sizes) * np.random.default_rng(0).standard_normal((draws, n))
    sums = np.c_[np.zeros(draws), steps.cumsum(axis=1)]
    ends = np.r_[0.0, np.cumsum(sizes)]
    largest = np.full(draws, -np.inf)
    for look in range(2, n + 1):
        first, split = _pairs(look)
        before, after = ends[split] - ends[first], ends[look] - ends[split]
        usable = np.minimum(before, after) >= MIN_SIDE
        if not usable.any():
            continue
        first, split, before, after = first[usable], split[usable], before[usable], after[usable]
        gap = (sums[:, split] - sums[:, first]) / before - (sums[:, look, None] - sums[:, split]) / after
        np.maximum(largest, (gap / np.sqrt(1 / before + 1 / after)).max(axis=1), out=largest)
    return largest


def _ends(gains: Floats, counts: Floats, means: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Where the wealth reaches 1 / alpha on either side of the means: it is convex in m and at most 1 at the mean."""
    if not 0 < alpha < 1:
        raise DataError(f"alpha={alpha} is no error rate. Give a share between 0 and 1, such as 0.05.")
    odds = two_sided()
    found = []
    for end in (0.0, 1.0):
        outside, inside = np.full(len(counts), end), means.copy()
        at_end = log_wealth(gains, counts, outside, odds) < log(1 / alpha)
        for _ in range(_HALVINGS):
            middle = (outside + inside) / 2
            rejected = log_wealth(gains, counts, middle, odds) >= log(1 / alpha)
            outside, inside = np.where(rejected, middle, outside), np.where(rejected, inside, middle)
        found.append(np.where(at_end, end, outside))
    return found[0], found[1]
