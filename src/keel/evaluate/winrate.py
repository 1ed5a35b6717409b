"""Which of two policies is preferred, with an interval."""

from collections.abc import Hashable, Sequence

import numpy as np

from keel.stats.intervals import wilson

RESAMPLES = 2000


def win_rate(
    utilities: Sequence[float], opponents: Sequence[float], prompts: Sequence[Hashable] | None = None
) -> dict[str, float]:
    """Share of pairs that the first wins, ties counting half, with a 95 % interval.

    All are [N]; values closer than 1e-9 are a tie. Where `prompts` repeat, answers to one prompt are not independent:
    the interval then comes from resampling prompts with all their answers (cluster bootstrap), else it is Wilson's.
    Where resampling finds no spread (one prompt, or the same outcome everywhere) it is Wilson's for the prompts.
    """
    if len(utilities) != len(opponents) or not len(utilities):
        raise ValueError(f"{len(utilities)} utilities cannot be compared with {len(opponents)}")
    gaps = np.asarray(utilities, dtype=np.float64) - np.asarray(opponents, dtype=np.float64)
    wins = outcomes(gaps)
    if prompts is None or len(set(prompts)) == len(gaps):
        low, high = wilson(float(wins.sum()), len(gaps))
    else:
        low, high = clustered_interval(wins, prompts)
        if low == high:
            count = len(set(prompts))
            low, high = wilson(float(wins.mean()) * count, count)
    return {"rate": float(wins.mean()), "low": low, "high": high, "n": len(gaps)}


def outcomes(gaps: np.ndarray) -> np.ndarray:
    """1 where the first is better, 0 where the second is, 0.5 for a tie: gaps within 1e-9 of zero."""
    return np.where(np.abs(gaps) <= 1e-9, 0.5, (gaps > 0).astype(np.float64))


def clustered_interval(wins: np.ndarray, prompts: Sequence[Hashable], seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `wins` [N] when whole prompts are drawn with replacement."""
    numbers: dict[Hashable, int] = {}
    cluster = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])
    sums = np.bincount(cluster, weights=wins)
    counts = np.bincount(cluster).astype(np.float64)
    drawn = np.random.default_rng(seed).integers(len(numbers), size=(RESAMPLES, len(numbers)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
