"""Which of two policies is preferred, with an interval."""

from collections.abc import Sequence

from keel.stats.intervals import wilson


def win_rate(utilities: Sequence[float], opponents: Sequence[float]) -> dict[str, float]:
    """Share of pairs that the first wins, ties counting half, with a 95 % Wilson interval.

    Both are [N], one utility a prompt; values closer than 1e-9 are a tie.
    """
    if len(utilities) != len(opponents) or not utilities:
        raise ValueError(f"{len(utilities)} utilities cannot be compared with {len(opponents)}")
    gaps = [a - b for a, b in zip(utilities, opponents, strict=True)]
    wins = sum(gap > 1e-9 for gap in gaps) + 0.5 * sum(abs(gap) <= 1e-9 for gap in gaps)
    low, high = wilson(wins, len(gaps))
    return {"rate": wins / len(gaps), "low": low, "high": high, "n": len(gaps)}
