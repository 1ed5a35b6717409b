"""Whether probabilities mean what they say: reliability bins, expected calibration error, temperature."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.arrays import Floats, sigmoid, sum_by
from keel.stats.intervals import wilson

TEMPERATURE_BOUNDS = (0.01, 100.0)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The predictions between `low` and `high` and what came of them."""

    low: float
    high: float
    count: int
    mean_probability: float
    mean_label: float
    label_low: float
    """95 % Wilson interval of `mean_label`."""
    label_high: float


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """The non-empty ones of `bins` equally wide bins of [0, 1]; the last includes 1.

    probabilities and labels are [N] in [0, 1]; a label may be soft, such as the preference .5 of a tie.
    """
    p, y = _checked(probabilities, labels)
    if bins < 1:
        raise DataError(f"{bins} bins cannot hold predictions. Use 1 or more.")
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins)
    predicted = sum_by(index, p, bins)
    observed = sum_by(index, y, bins)
    return [
        ReliabilityBin(
            k / bins,
            (k + 1) / bins,
            int(count[k]),
            float(predicted[k] / count[k]),
            float(observed[k] / count[k]),
            *wilson(float(observed[k]), int(count[k])),
        )
        for k in np.flatnonzero(count)
    ]


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> float:
    """Mean gap between predicted and observed over equally wide bins, weighted by count (Guo et al. 2017, eq. 3).

    In [0, 1]; 0 is perfect. Small sets overstate it: N predictions of a perfect model show up to 0.4 sqrt(bins / N).
    """
    filled = reliability_bins(probabilities, labels, bins)
    total = sum(entry.count for entry in filled)
    return sum(entry.count * abs(entry.mean_probability - entry.mean_label) for entry in filled) / total


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T > 0 that minimises the cross-entropy of sigmoid(logits / T) against labels [N] in [0, 1] (Guo et al. 2017).

    Above 1 the model was too sure of itself. Kept within 0.01 and 100, the ends standing for "no finite optimum":
    logits that order every pair rightly, or that say nothing or the opposite.
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if not np.isfinite(z).all():
        raise DataError(f"{int((~np.isfinite(z)).sum())} of {z.size} logits are not finite; no temperature mends that.")
    _checked(np.full(z.shape, 0.5), y)
    low, high = (float(np.log(1 / bound)) for bound in reversed(TEMPERATURE_BOUNDS))
    # The loss is convex in 1/T, so its slope there has one sign change; bisect over log(1/T) to full precision.
    for _ in range(60):
        middle = (low + high) / 2
        slope = np.dot(sigmoid(z * np.exp(middle)) - y, z)
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if p.shape != y.shape or p.ndim != 1 or p.size == 0:
        raise DataError(f"Calibration needs one label per prediction and at least one, got {p.shape} and {y.shape}.")
    for name, values in (("probability", p), ("label", y)):
        outside = ~((values >= 0) & (values <= 1))
        if outside.any():
            at = int(np.argmax(outside))
            raise DataError(f"Item {at + 1} has the {name} {values[at]:g}; expected a number from 0 to 1.")
    return p, y
