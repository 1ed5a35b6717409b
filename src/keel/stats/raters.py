"""One rater's habits: the pull of the side shown first, and whether the same question gets the same answer."""

from dataclasses import dataclass
from math import log, nan, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.agreement import MISSING, agreement_report
from keel.stats.arrays import Floats, sigmoid
from keel.stats.intervals import Estimate, sign_test, wilson
from keel.stats.ties import fit_ties


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How much the answer shown first gains by it."""

    num_first: int
    """Judgments in which the answer shown first won."""
    num_second: int
    num_ties: int
    share: Estimate
    """Share of the untied judgments that the first won, with Wilson's interval; .5 is no bias."""
    log_odds: Estimate
    """What being first adds to the log-odds of winning, with Wald's interval; 0 is no bias."""
    p_value: float
    """Two-sided sign test of the untied judgments."""

    @property
    def found(self) -> bool:
        """Whether the interval of `log_odds` leaves out 0."""
        return self.log_odds.low > 0 or self.log_odds.high < 0


@dataclass(frozen=True, slots=True)
class SelfAgreement:
    """A rater's answers to the same items, first time and second time."""

    num_repeats: int
    agreement: Estimate
    """Share answered the same, with Wilson's interval."""
    kappa: Estimate
    """Cohen's kappa of the rater with themself."""


def position_bias(
    outcome: ArrayLike, first: ArrayLike | None = None, second: ArrayLike | None = None, confidence: float = 0.95
) -> PositionBias:
    """The pull of the side shown first, from judgments whose sides were drawn at random.

    outcome [N] is 1 where the answer shown first won, 0 where the second did, .5 for a tie. With `first` and `second`
    [N], the numbers from 0 of what was compared (models, say), `log_odds` is net of how strong these are: Davidson's
    model where there are ties, Bradley and Terry's where there are none. Without them all count as equally strong.
    """
    said = np.asarray(outcome, dtype=np.float64)
    if said.ndim != 1 or not np.isin(said, [0, 0.5, 1]).all():
        raise DataError("Outcomes must be 1 (the first shown won), 0 (the second) or .5 (a tie), one a judgment.")
    won, lost, ties = int((said == 1).sum()), int((said == 0).sum()), int((said == 0.5).sum())
    decided = won + lost
    share = Estimate(won / decided if decided else nan, *wilson(won, decided, confidence), confidence)
    if not decided:
        value, error = nan, nan
    elif first is None or second is None or not won or not lost:
        # Half a judgment on either side keeps a rater who always clicks left finite (Haldane 1956); for such a rater
        # strengths change nothing.
        value, error = log((won + 0.5) / (lost + 0.5)), sqrt(1 / (won + 0.5) + 1 / (lost + 0.5))
    elif ties:
        fit = fit_ties(first, second, said, position_bias=True)
        value, error = fit.position, fit.position_error
    else:
        value, error = _first_mover(np.asarray(first, np.int64), np.asarray(second, np.int64), said)
    half = NormalDist().inv_cdf((1 + confidence) / 2) * error
    estimate = Estimate(value, value - half, value + half, confidence)
    return PositionBias(won, lost, ties, share, estimate, sign_test(won, lost))


def self_agreement(
    before: ArrayLike, after: ArrayLike, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> SelfAgreement:
    """How often a rater says the same again; both [N] codes from 0 of a choice, -1 where there was none."""
    a, b = np.asarray(before), np.asarray(after)
    if a.shape != b.shape or a.ndim != 1:
        raise DataError(f"A repeat needs both answers, got {a.shape} first and {b.shape} second answers.")
    known = (a != MISSING) & (b != MISSING)
    votes = np.stack([a[known], b[known]], axis=1)
    n = len(votes)
    if not n:
        nothing = Estimate(nan, 0.0, 1.0, confidence)
        return SelfAgreement(0, nothing, Estimate(nan, nan, nan, confidence))
    same = int((votes[:, 0] == votes[:, 1]).sum())
    report = agreement_report(votes, confidence=confidence, resamples=resamples, seed=seed)
    return SelfAgreement(n, Estimate(same / n, *wilson(same, n, confidence), confidence), report.pairs[0].kappa)


def _first_mover(first: np.ndarray, second: np.ndarray, won: Floats) -> tuple[float, float]:
    """Position's log-odds and standard error in P(first wins) = sigmoid(strength - strength + position), by Newton.

    A weak penalty (1e-3) on strengths keeps an item that never lost finite.
    """
    if not first.shape == second.shape == won.shape:
        raise DataError(f"Each judgment needs both sides, got {first.shape}, {second.shape} and {won.shape}.")
    size = int(max(first.max(), second.max())) + 1
    design = np.zeros((len(won), size + 1))
    rows = np.arange(len(won))
    design[rows, first] += 1.0
    design[rows, second] -= 1.0
    design[:, size] = 1.0
    penalty = np.r_[np.full(size, 1e-3), 0.0]
    parameters = np.zeros(size + 1)
    for _ in range(100):
        p = sigmoid(design @ parameters)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, design.T @ (won - p) - penalty * parameters)
        # Log-odds move by 2 at most, so that a step of Newton's method cannot overshoot into the flat part.
        parameters = parameters + step * min(1.0, 2 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    p = sigmoid(design @ parameters)
    hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty)
    return float(parameters[size]), float(sqrt(np.linalg.inv(hessian)[size, size]))
