"""Strengths from comparisons that may end in a tie, and that may favour the side shown first.

With d = strength i - strength j + position:

- Rao and Kupper 1967: P(i) = sigmoid(d - eta), P(j) = sigmoid(-d - eta), tie the rest; eta = log(theta) > 0 is the gap
  below which raters see no difference.
- Davidson 1970: P(i) : P(j) : P(tie) = exp(d / 2) : exp(-d / 2) : nu.
"""

from dataclasses import dataclass
from math import exp, inf, log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.arrays import Floats, sigmoid

TieModel = Literal["rao_kupper", "davidson"]


@dataclass(frozen=True, slots=True)
class TieFit:
    """Strengths and the habits of the raters."""

    model: TieModel
    strengths: Floats
    """[M] log-strengths, mean 0."""
    tie: float
    """theta >= 1 of Rao and Kupper, nu >= 0 of Davidson."""
    position: float
    """Log-odds that the first item gains by being first; 0 where it was not asked for."""
    position_error: float
    """Standard error of `position`, from the expected information; 0 where it was not asked for."""
    log_likelihood: float


def fit_ties(
    first: ArrayLike,
    second: ArrayLike,
    outcome: ArrayLike,
    model: TieModel = "davidson",
    num_items: int | None = None,
    *,
    position_bias: bool = False,
) -> TieFit:
    """Maximum likelihood by Fisher scoring.

    first and second [N] are item numbers from 0, outcome [N] is 1 where the first won, 0 where the second, .5 for a
    tie. Without any tie, or with nothing but ties, the tie parameter has no optimum: DataError.
    """
    if model not in ("rao_kupper", "davidson"):
        raise DataError(f"Tie model {model!r} is unknown. Choose rao_kupper or davidson.")
    i, j = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    kind = np.searchsorted([0.0, 0.5, 1.0], np.asarray(outcome, dtype=np.float64))
    if not np.isin(np.asarray(outcome), [0, 0.5, 1]).all():
        raise DataError("Outcomes must be 1 (first won), 0 (second won) or .5 (tie).")
    if not i.shape == j.shape == kind.shape or not i.size:
        raise DataError(f"Each comparison needs two items and an outcome, got {i.shape}, {j.shape} and {kind.shape}.")
    ties = float((kind == 1).mean())
    if ties in (0.0, 1.0):
        raise DataError(f"{ties:.0%} of the comparisons are ties, so a tie model has no optimum. Use bradley_terry.")
    size = int(max(i.max(), j.max())) + 1 if num_items is None else num_items
    pairs, pair = np.unique(i * size + j, return_inverse=True)
    # [pairs, 3]: second won, tie, first won
    counts = np.bincount(pair * 3 + kind, minlength=3 * len(pairs)).reshape(-1, 3).astype(np.float64)
    design = np.zeros((len(pairs), size + 1))
    design[np.arange(len(pairs)), pairs // size] = 1.0
    design[np.arange(len(pairs)), pairs % size] -= 1.0
    design[:, size] = float(position_bias)
    start = log((1 + ties) / (1 - ties)) if model == "rao_kupper" else log(2 * ties / (1 - ties))
    parameters = _fisher_scoring(model, design, counts, np.r_[np.zeros(size + 1), start], size, position_bias)
    strengths = parameters[:size] - parameters[:size].mean()
    log_likelihood = -_loss(model, design, counts, parameters)
    error = 0.0
    if position_bias:
        covariance = np.linalg.pinv(_slopes(model, design, counts, parameters, size, position_bias)[1], hermitian=True)
        error = sqrt(max(0.0, covariance[size, size]))
    return TieFit(model, strengths, exp(parameters[-1]), float(parameters[size]), error, log_likelihood)


def _slopes(
    model: TieModel, design: Floats, counts: Floats, parameters: Floats, size: int, position_bias: bool
) -> tuple[Floats, Floats]:
    """Gradient of the log-likelihood and its expected information, directions that change nothing pinned."""
    log_p, by_gap, by_tie = _outcomes(model, design @ parameters[:-1], parameters[-1])
    expected = counts.sum(axis=1)[:, None] * np.exp(log_p)
    gradient = np.r_[design.T @ (counts * by_gap).sum(axis=1), (counts * by_tie).sum()]
    information = np.empty((size + 2, size + 2))
    information[:-1, :-1] = (design * (expected * by_gap**2).sum(axis=1)[:, None]).T @ design
    information[-1, :-1] = information[:-1, -1] = design.T @ (expected * by_gap * by_tie).sum(axis=1)
    information[-1, -1] = (expected * by_tie**2).sum()
    # Shifting all strengths changes nothing, nor does an unused position: pin both directions.
    information[:size, :size] += 1 / size
    if not position_bias:
        information[size, size] += 1.0
    return gradient, information


def _fisher_scoring(
    model: TieModel, design: Floats, counts: Floats, parameters: Floats, size: int, position_bias: bool
) -> Floats:
    loss = _loss(model, design, counts, parameters)
    for _ in range(200):
        gradient, information = _slopes(model, design, counts, parameters, size, position_bias)
        step = np.linalg.lstsq(information, gradient)[0]
        scale = 1.0
        while (lower := _loss(model, design, counts, parameters + scale * step)) > loss and scale > 1e-10:
            scale /= 2
        if scale <= 1e-10:
            break
        parameters, loss = parameters + scale * step, lower
        if np.abs(scale * step).max() < 1e-10:
            break
    return parameters


def _loss(model: TieModel, design: Floats, counts: Floats, parameters: Floats) -> float:
    if model == "rao_kupper" and parameters[-1] <= 0:
        return inf
    return -float((counts * _outcomes(model, design @ parameters[:-1], parameters[-1])[0]).sum())


def _outcomes(model: TieModel, gap: Floats, tie: float) -> tuple[Floats, Floats, Floats]:
    """Log-probability of (second won, tie, first won), [..., 3], and its slopes by gap and tie parameter."""
    if model == "davidson":
        logits = np.stack([-gap / 2, np.full_like(gap, tie), gap / 2], axis=-1)
        log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        p = np.exp(log_p)
        by_gap = np.array([-0.5, 0.0, 0.5]) - ((p[..., 2] - p[..., 0]) / 2)[..., None]
        return log_p, by_gap, np.array([0.0, 1.0, 0.0]) - p[..., 1:2]
    above, below = sigmoid(gap + tie), sigmoid(gap - tie)
    lost, won = 1 - above, below
    slope_above, slope_below = above * (1 - above), below * (1 - below)
    tied = above - below
    log_p = np.stack([-np.logaddexp(0, gap + tie), np.log(tied), -np.logaddexp(0, tie - gap)], axis=-1)
    by_gap = np.stack([lost - 1, (slope_above - slope_below) / tied, 1 - won], axis=-1)
    by_tie = np.stack([lost - 1, (slope_above + slope_below) / tied, won - 1], axis=-1)
    return log_p, by_gap, by_tie
