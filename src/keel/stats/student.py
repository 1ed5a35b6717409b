"""Student's t distribution, for the p-values of short series."""

from math import atan, cos, pi, sin, sqrt
from statistics import NormalDist


def two_sided_t(t: float, freedom: int) -> float:
    """P(|T| >= |t|) of Student's t with a whole number of degrees of freedom (finite sums, Abramowitz and Stegun
    26.7.3 and 26.7.4); at least 1e-16, below which the sums cannot tell.
    """
    angle = atan(abs(t) / sqrt(freedom))
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = 0.0
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= cos(angle) ** 2 * (k + 1) / (k + 2)
    inside = 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
    return min(1.0, max(1e-16, 1 - inside))


def normal_score(t: float, freedom: int) -> float:
    """The standard normal value that is exceeded as often as `t` of Student's t; within 8.3 of 0."""
    score = -NormalDist().inv_cdf(two_sided_t(t, freedom) / 2)
    return score if t > 0 else -score
