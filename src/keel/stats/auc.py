"""How well a score tells two kinds of items apart."""

from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.intervals import Estimate


def auc(scores: ArrayLike, good: ArrayLike, level: float = 0.95) -> Estimate:
    """How often a good item has a higher score than a bad one, over all pairs of the two; equal scores count half.

    The area under the ROC curve, with the interval of Hanley and McNeil 1982 (eq. 1 and 2). scores is [N]; good is [N]
    in [0, 1], how likely each item is a good one. nan, with an interval of 0 to 1, when one kind is missing.
    """
    values, share = np.asarray(scores, dtype=np.float64), np.asarray(good, dtype=np.float64)
    if values.shape != share.shape or values.ndim != 1:
        raise DataError(f"auc takes one score and one share an item, got shapes {values.shape} and {share.shape}.")
    if share.size and not (share.min() >= 0 and share.max() <= 1):
        raise DataError(f"auc takes shares in [0, 1], got {share.min():g} to {share.max():g}.")
    total_good, total_bad = share.sum(), (1 - share).sum()
    if total_good == 0 or total_bad == 0:
        return Estimate(float("nan"), 0.0, 1.0, level)
    _, place = np.unique(values, return_inverse=True)
    at_good, at_bad = (np.bincount(place, weights=weights) for weights in (share, 1 - share))
    below = at_bad.cumsum() - at_bad
    area = float((at_good * (below + at_bad / 2)).sum() / (total_good * total_bad))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (total_good - 1) * (q1 - area**2) + (total_bad - 1) * (q2 - area**2)
    half = NormalDist().inv_cdf((1 + level) / 2) * sqrt(max(spread, 0.0) / (total_good * total_bad))
    return Estimate(area, max(0.0, area - half), min(1.0, area + half), level)
