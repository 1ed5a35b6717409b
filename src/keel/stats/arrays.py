"""Array types of the statistics, and the two array functions that several of them need."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


def sum_by(groups: Ints, values: Floats | Ints, num_groups: int) -> Floats:
    """Sums of `values` [N] by group number [N], as [num_groups]."""
    # numpy's own annotation says that bincount gives integers, also with weights.
    return np.asarray(np.bincount(groups, weights=values, minlength=num_groups), dtype=np.float64)


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-values)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * values))
