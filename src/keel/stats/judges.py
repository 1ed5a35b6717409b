"""A judge (an AI, say) against golden answers: how often right, whether the order of the answers sways it.

Choices are codes: 0 where a is better, 1 for a tie, 2 where b is better, -1 where there is none. `verdict` is what the
judge said with a shown first; `swapped` what it said of the same pair with b shown first, named by the same a and b.
"""

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.agreement import MISSING
from keel.stats.arrays import Floats, Ints
from keel.stats.intervals import Estimate, percentile_interval, sign_test, wilson

A, TIE, B = 0, 1, 2
MAX_BIAS = 0.1
"""A judge is biased whose pull towards one side is beyond doubt and at least this large."""
MIN_CONSISTENCY = 0.6
"""Two honest coin flips agree on half of the pairs; a judge should do better than that, with room."""


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """One judge on the pairs it judged."""

    judge: str
    num_items: int
    """Pairs with a golden answer and at least one verdict."""
    num_verdicts: int
    """Verdicts on these, both orders together."""
    num_both: int
    """Pairs judged in both orders, with a golden answer or without."""
    accuracy: Estimate
    """Share of verdicts that name the golden answer, a tie counting half unless the golden answer is a tie."""
    consistency: Estimate
    """Share of the pairs seen in both orders with the same verdict, with Wilson's interval."""
    position_bias: Estimate
    """Share of verdicts for the answer shown first less that for the second, over both orders: -1 to 1, 0 is none."""
    position_p_value: float
    """Sign test: pairs whose two verdicts favour the first side more often, against those that favour the second."""
    kappa: Estimate
    """Cohen's kappa of the verdicts with the golden answers."""
    flags: tuple[str, ...]
    """What is wrong with the judge, in sentences; empty where nothing is."""


def judge_report(
    gold: ArrayLike,
    verdict: ArrayLike,
    swapped: ArrayLike | None = None,
    *,
    judge: str = "judge",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> JudgeReport:
    """Every figure with its interval; all arrays are [N] codes of choices.

    Accuracy, position bias and kappa are resampled by pair (the two verdicts on a pair go together): one multinomial
    draw over the kinds of pairs, which is the exact bootstrap.
    """
    truth, first = _codes("gold", gold), _codes("verdict", verdict)
    second = np.full(len(first), MISSING) if swapped is None else _codes("swapped", swapped)
    if not truth.shape == first.shape == second.shape:
        raise DataError(f"One code a pair is needed; got {truth.size} gold, {first.size} and {second.size} verdicts.")
    kinds, times = np.unique(np.stack([truth, first, second], axis=1), axis=0, return_counts=True)
    t, v, s = kinds.T
    draws = np.zeros((resamples, len(times)))
    if len(truth):
        draws += np.random.default_rng(seed).multinomial(len(truth), times / len(truth), size=resamples)

    def estimate(measure: "tuple[Floats, Floats]") -> Estimate:
        return Estimate(float(measure[0]), *percentile_interval(measure[1], confidence), confidence)

    golden = t != MISSING
    right = _right(t, v) + _right(t, s)
    asked = golden * ((v != MISSING) * 1.0 + (s != MISSING))
    both = (v != MISSING) & (s != MISSING)
    # With b shown first, a verdict for b is one for the side shown first.
    pull = ((v == A) * 1.0 - (v == B) + (s == B) - (s == A)) / 2
    same = int(times[both & (v == s)].sum())
    num_both = int(times[both].sum())
    to_first, to_second = int(times[both & (pull > 0)].sum()), int(times[both & (pull < 0)].sum())
    weights = times.astype(np.float64)

    def shares(numerator: Floats, denominator: Floats) -> tuple[Floats, Floats]:
        return _ratio(weights @ numerator, weights @ denominator), _ratio(draws @ numerator, draws @ denominator)

    accuracy = estimate(shares(right, asked))
    bias = estimate(shares(pull * both, both * 1.0))
    consistency = Estimate(same / num_both if num_both else nan, *wilson(same, num_both, confidence), confidence)
    kappa = estimate((_kappa(t, v, s, weights), _kappa(t, v, s, draws)))
    p_value = sign_test(to_first, to_second)
    return JudgeReport(
        judge=judge,
        num_items=int(times[asked > 0].sum()),
        num_verdicts=int(weights @ asked),
        num_both=num_both,
        accuracy=accuracy,
        consistency=consistency,
        position_bias=bias,
        position_p_value=p_value,
        kappa=kappa,
        flags=_flags(accuracy, consistency, bias, p_value),
    )


def _flags(accuracy: Estimate, consistency: Estimate, bias: Estimate, p_value: float) -> tuple[str, ...]:
    """Each fault that the intervals leave no doubt of."""
    found = []
    if abs(bias.value) >= MAX_BIAS and p_value < 0.01:
        side = "first" if bias.value > 0 else "second"
        found.append(
            f"favours the answer shown {side}, by {100 * abs(bias.value):.0f} points "
            f"({100 * bias.low:+.0f} to {100 * bias.high:+.0f})"
        )
    if consistency.high < MIN_CONSISTENCY:
        found.append(f"same verdict in both orders on only {100 * consistency.value:.0f} % of the pairs (a coin: 50 %)")
    if accuracy.high < 0.5:
        found.append(f"worse than a coin (right {100 * accuracy.value:.0f} %)")
    elif accuracy.low <= 0.5:
        found.append(f"no better than a coin (right {100 * accuracy.value:.0f} %)")
    return tuple(found)


def _right(truth: Ints, said: Ints) -> Floats:
    """1 for the golden answer, half for a tie where there is a better one, 0 else and where either is missing."""
    known = (truth != MISSING) & (said != MISSING)
    return known * np.where(truth == said, 1.0, np.where(said == TIE, 0.5, 0.0))


def _kappa(truth: Ints, first: Ints, second: Ints, weights: Floats) -> Floats:
    """Cohen's kappa over all verdicts with a golden answer; weights [..., P] say how often each kind of pair occurs."""
    cells = np.zeros((len(truth), 9))
    for said in (first, second):
        known = np.flatnonzero((truth != MISSING) & (said != MISSING))
        cells[known, truth[known] * 3 + said[known]] += 1
    table = (weights @ cells).reshape(*weights.shape[:-1], 3, 3)
    total = table.sum(axis=(-2, -1))
    observed = _ratio(np.trace(table, axis1=-2, axis2=-1), total)
    chance = _ratio((table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1), total**2)
    return _ratio(observed - chance, 1 - chance)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    vanished = np.abs(bottom) < 1e-12
    return np.where(vanished, nan, top / np.where(vanished, 1.0, bottom))


def _codes(name: str, values: ArrayLike) -> Ints:
    codes = np.asarray(values)
    if codes.ndim != 1 or (codes.size and (codes.dtype.kind not in "iu" or not np.isin(codes, [-1, A, TIE, B]).all())):
        raise DataError(f"{name} must hold 0 (a), 1 (tie), 2 (b) or -1 (none), one a pair.")
    return codes.astype(np.int64)
