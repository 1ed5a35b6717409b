"""Whether a run's figure has moved beyond its noise: shifts of level, change points, trends, drift.

Series are in order, one value an update; nan, infinite and absurd (1e100) values are left out. Their noise may be
autocorrelated and their level may drift, so noise is read from differences over one and two updates, which slow drift
hardly touches: for AR(1) noise of variance s^2 and autocorrelation r, half their mean squares are s^2 (1 - r) and
s^2 (1 - r^2). Where there is nothing to go by (short or constant series) the answer is no evidence: p = 1.
"""

from dataclasses import dataclass
from math import inf, log, log1p, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.arrays import Floats
from keel.stats.student import normal_score, two_sided_t

MIN_CHANGE_POINT = 6
PERMUTATIONS = 999
_LARGEST = 1e100
_CLIP = 3.0
"""Differences count up to so many robust standard deviations, lest one jump pass for noise."""
_CLIPPED_SHARE = 0.995
"""What clipping there leaves of the mean square of normal noise."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of a series about its level, and the autocorrelation from one update to the next."""

    spread: float
    autocorrelation: float = 0.0


@dataclass(frozen=True, slots=True)
class Shift:
    """How far the recent level of a figure is from its earlier level."""

    size: float = 0.0
    """(after - before) / spread; positive where it rose, 0 where nothing is known."""
    p_value: float = 1.0
    """Two-sided. For one direction look at the sign of `size` and halve it."""
    before: float = nan
    after: float = nan
    spread: float = nan


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The likeliest single shift in a series."""

    index: int | None = None
    """Position in the given series of the first value at the new level; None where there is no evidence at all."""
    size: float = 0.0
    """In spreads; positive for a rise."""
    p_value: float = 1.0
    """Two-sided, the search over positions paid for."""


@dataclass(frozen=True, slots=True)
class Trend:
    """A fitted line."""

    slope: float = 0.0
    """Per update."""
    error: float = nan
    """Standard error of the slope."""
    p_value: float = 1.0
    """Two-sided."""


def noise(values: ArrayLike) -> Noise:
    """Spread and autocorrelation (0 to 0.9) of a series, robust to drift and to a few jumps; spread 0 on constants.

    Where more than half of the differences are equal, autocorrelation cannot be read and counts as 0.
    """
    series = _finite(values)[0]
    near, robust = _half_mean_square(np.diff(series))
    if not robust or near == 0 or len(series) < 4:
        return Noise(sqrt(near))
    far, _ = _half_mean_square(series[2:] - series[:-2])
    autocorrelation = min(max(far / near - 1, 0.0), 0.9)
    return Noise(sqrt(near / (1 - autocorrelation)), autocorrelation)


def mean_shift(values: ArrayLike, reference_window: int = 10, recent_window: int = 5) -> Shift:
    """The mean of the last `recent_window` values against that of the first `reference_window`; p by a t-test.

    A series too short for both windows is halved first; fewer than 4 values tell nothing. The noise is that of the
    whole series and its autocorrelation counts. Rates of p < .05 with nothing there, at 20 to 200 values: .02 to .04
    on white noise, .05 to .10 on AR(1) of .5. Of rises by 1.5, 2, 3 spreads in the last 5 of 30, it finds 53, 76, 91 %.
    One look at one figure: over a run of looks ask for a smaller p, or use `page_cusum`.
    """
    series = _finite(values)[0]
    n = len(series)
    before, after = min(reference_window, n // 2), min(recent_window, n - n // 2)
    if n < 4 or before < 1 or after < 1:
        return Shift()
    low, high = float(series[:before].mean()), float(series[-after:].mean())
    found = noise(series)
    if not _above_rounding(found.spread, series):
        return Shift(before=low, after=high, spread=0.0)
    weights = np.zeros(n)
    weights[:before] -= 1 / before
    weights[-after:] += 1 / after
    size = (high - low) / found.spread
    # Degrees of freedom of a variance from first differences (von Neumann et al. 1941).
    freedom = max(1, int(2 * (n - 1) ** 2 / (3 * n - 4)))
    t = size / sqrt(weights @ _correlation(n, found.autocorrelation) @ weights)
    return Shift(size, two_sided_t(t, freedom), low, high, found.spread)


def change_point(values: ArrayLike, seed: int = 0) -> ChangePoint:
    """Where the mean most likely shifted: the largest |mean after - mean before| / sqrt(1/k + 1/(n - k)) over k.

    p by 999 permutations, seeded: of the values where their autocorrelation is read as 0 (exact for exchangeable
    noise), else of the innovations of an AR(1) (a sieve bootstrap). At least 2 values on either side; p = 1 below 6
    values. The shift's own spread counts as noise, so the test errs towards no change. Rates of p < .05 with nothing
    there, at 8 to 200 values: .03 to .05 on white noise, .09 to .13 on AR(1) of .5. A shift of 2 spreads half way
    through 20 or 30 values is found in 69 and 89 %, its position to within 2 in 92 %.
    """
    series, places = _finite(values)
    n = len(series)
    found = noise(series)
    if n < MIN_CHANGE_POINT or not _above_rounding(found.spread, series):
        return ChangePoint()
    centred = series - series.mean()
    gaps = _gaps(centred[None])[0]
    best = int(np.argmax(np.abs(gaps)))
    r = found.autocorrelation
    innovations = centred[1:] - r * centred[:-1] if r else centred
    innovations = np.r_[innovations - innovations.mean(), np.zeros(n - len(innovations))]
    draws = np.random.default_rng(seed).permuted(np.tile(innovations, (PERMUTATIONS, 1)), axis=1)
    if r:
        draws[:, 0] /= sqrt(1 - r * r)
        for step in range(1, n):
            draws[:, step] += r * draws[:, step - 1]
    # The tolerance lets permutations that are equal but for rounding count as equal.
    reached = np.abs(_gaps(draws)).max(axis=1) >= abs(gaps[best]) * (1 - 1e-9)
    split = best + 2
    size = float(series[split:].mean() - series[:split].mean()) / found.spread
    return ChangePoint(int(places[split]), size, (1 + int(reached.sum())) / (1 + PERMUTATIONS))


def trend(values: ArrayLike, window: int | None = None) -> Trend:
    """Line fitted by least squares to the last `window` updates (None: all), nan included in the count.

    The standard error is that of AR(1) noise whose autocorrelation is read from the series; where that is 0 this is
    the textbook line. Fewer than 4 values, or a constant: slope 0, p = 1. Rates of p < .05 with nothing there, at 8 to
    200 values: .03 to .05 on white noise, .05 to .11 on AR(1) of .5.
    """
    recent = np.asarray(values, dtype=np.float64).reshape(-1)
    series, places = _finite(recent if window is None else recent[max(0, len(recent) - window) :])
    n = len(series)
    if n < 4 or not _above_rounding(float(np.ptp(series)), series):
        return Trend()
    steps = places - places.mean()
    weights = steps / (steps @ steps)
    slope = float(weights @ series)
    residual = series - series.mean() - slope * steps
    if not _above_rounding(float(np.abs(residual).max()), series):
        return Trend(slope, 0.0, two_sided_t(inf, n - 2))
    correlation = _correlation(n, noise(residual).autocorrelation)
    # A fitted line takes its share of the residuals, the more so the more they are correlated.
    left = n - correlation.mean() * n - steps @ correlation @ weights
    error = sqrt(float(residual @ residual) / left * float(weights @ correlation @ weights))
    return Trend(slope, error, two_sided_t(slope / error, n - 2))


def page_cusum(
    values: ArrayLike, alpha: float = 0.05, updates: int = 100, slack: float = 0.5
) -> tuple[int | None, float]:
    """Where a figure has first drifted upwards (None: nowhere), and the sum there or at the end as a share of its line.

    Page's (1954) sum S = max(0, S + z - slack), self-starting (Hawkins 1987): z is each value's distance from the mean
    of those before it, as a normal score, exactly standard normal for white normal noise of any level and spread. The
    line is set by Siegmund's (1985) approximation so that `updates` values raise a false alarm with probability
    `alpha`. The first 3 values only start it. For falls give -values.

    Measured at alpha .05: .03 to .07 for 30 to 200 updates. It takes the noise as white: on AR(1) of .5 it alarms in
    .29, .55, .74 of runs of 30, 100, 200, so ask `noise` first. A rise of 2 spreads after 15 of 30 values is found in
    98 %, typically 4 values in.
    """
    series, places = _finite(values)
    line = _cusum_line(alpha, updates, slack)
    total, mean, squares = 0.0, 0.0, 0.0
    for seen, value in enumerate(series.tolist()):
        if seen >= 3 and squares > 0 and _above_rounding(sqrt(squares / (seen - 1)), series[:seen]):
            t = sqrt(seen / (seen + 1)) * (value - mean) / sqrt(squares / (seen - 1))
            total = max(0.0, total + normal_score(t, seen - 1) - slack)
            if total >= line:
                return int(places[seen]), total / line
        step = value - mean
        mean += step / (seen + 1)
        squares += step * (value - mean)
    return None, total / line


def _cusum_line(alpha: float, updates: int, slack: float) -> float:
    """The height b - 1.166 where (exp(2 k b) - 2 k b - 1) / (2 k^2), the mean time to a false alarm, is long enough."""
    if not (0 < alpha < 1 and updates >= 1 and slack > 0):
        raise DataError(
            f"A drift test with alpha={alpha}, updates={updates}, slack={slack} does not exist. Give 0 < alpha < 1, "
            "1 update or more, and a slack above 0."
        )
    wanted = updates / -log1p(-alpha) * 2 * slack**2
    x = log(wanted + 1)
    for _ in range(50):
        x = log(wanted + 1 + x)
    return max(x / (2 * slack) - 1.166, slack)


def _gaps(rows: Floats) -> Floats:
    """(mean after - mean before) / sqrt(1/k + 1/(n - k)) for k = 2..n - 2, of rows [R, n] that sum to about 0."""
    n = rows.shape[1]
    k = np.arange(2, n - 1)
    sums = rows.cumsum(axis=1)
    before, total = sums[:, 1 : n - 2], sums[:, -1:]
    return ((total - before) / (n - k) - before / k) / np.sqrt(1 / k + 1 / (n - k))


def _half_mean_square(differences: Floats) -> tuple[float, bool]:
    """Half the mean square about the median, clipped; and whether their MAD is above 0, without which it is plain."""
    if not differences.size:
        return 0.0, False
    centred = differences - np.median(differences)
    robust = 1.4826 * float(np.median(np.abs(centred)))
    if robust <= 1e-9 * float(np.abs(differences).max()):
        return float(np.mean(differences**2)) / 2, False
    clipped = np.clip(centred, -_CLIP * robust, _CLIP * robust)
    return float(np.mean(clipped**2)) / 2 / _CLIPPED_SHARE, True


def _correlation(n: int, autocorrelation: float) -> Floats:
    """[n, n] correlations of AR(1) noise."""
    places = np.arange(n)
    return np.power(autocorrelation, np.abs(places[:, None] - places), dtype=np.float64)


def _above_rounding(size: float, series: Floats) -> bool:
    """Whether `size` is more than the rounding of numbers as large as the series."""
    return size > max(1e-12 * float(np.abs(series).max(initial=0.0)), 1e-100)


def _finite(values: ArrayLike) -> tuple[Floats, Floats]:
    """The known values and their positions in the series, in float64."""
    series = np.asarray(values, dtype=np.float64).reshape(-1)
    known = np.abs(series) < _LARGEST
    return series[known], np.flatnonzero(known).astype(np.float64)
