"""How sure a figure is: Wilson and bootstrap intervals, and the comparison of two scorers on the same items."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keel.core.errors import DataError

_DRAWS_PER_CHUNK = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the interval it is known to; nan where the data cannot tell."""

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        if isnan(self.value):
            return "undefined"
        return f"{self.value:.2f} ({100 * self.level:g} % interval {self.low:.2f} to {self.high:.2f})"

    def to_dict(self) -> dict[str, float | None]:
        """Value and interval for JSON, which has no nan: None stands for it."""
        figures = {"value": self.value, "low": self.low, "high": self.high, "level": self.level}
        return {name: None if isnan(figure) else figure for name, figure in figures.items()}


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927), inside [0, 1] for any n; (0, 1) when n is 0.

    `successes` may be fractional, for ties that count half.
    """
    _check_level(level)
    if n < 0 or not 0 <= successes <= n:
        raise DataError(f"{successes} successes of {n} is not a proportion. Expected 0 <= successes <= n.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and n one end is exactly 0 or 1; rounding would leave 1e-17.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half)


def bootstrap_mean(values: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` [N] (Efron 1979). (nan, nan) when there are none."""
    _check_level(level)
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1:
        raise DataError(f"bootstrap_mean takes one value per item, got an array of shape {sample.shape}.")
    if sample.size == 0:
        return nan, nan
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    chunk = max(1, _DRAWS_PER_CHUNK // sample.size)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        means[start : start + rows] = sample[rng.integers(sample.size, size=(rows, sample.size))].mean(axis=1)
    return percentile_interval(means, level)


def bootstrap_difference(
    first: ArrayLike, second: ArrayLike, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Interval of mean(first - second), both [N] and measured on the same items: what two scorers share cancels."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise DataError(f"Paired values must be of equal shape, got {a.shape} and {b.shape}.")
    return bootstrap_mean(a - b, level, seed, resamples)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of `wins` against `losses` when both are equally likely; ties are left out beforehand.

    With the items that only one of two scorers gets right, this is the exact McNemar test.
    """
    if wins < 0 or losses < 0:
        raise DataError(f"Counts cannot be negative: {wins} wins, {losses} losses.")
    n = wins + losses
    tail, term = 0, 1
    for k in range(min(wins, losses) + 1):
        tail += term
        term = term * (n - k) // (k + 1)  # the next binomial coefficient, exactly
    return min(1.0, 2 * tail / 2**n)


def percentile_interval(replicates: NDArray[np.float64], level: float) -> tuple[float, float]:
    """The middle `level` of bootstrap replicates [B]; nan replicates are left out, (nan, nan) when all are."""
    told = replicates[~np.isnan(replicates)]
    if told.size == 0:
        return nan, nan
    low, high = np.quantile(told, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_estimate(values: Sequence[float] | NDArray[np.float64], level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of `values` with its bootstrap interval."""
    low, high = bootstrap_mean(values, level, seed)
    return Estimate(float(np.mean(values)) if len(values) else nan, low, high, level)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise DataError(f"An interval of level {level} does not exist. Give a share between 0 and 1, such as 0.95.")
