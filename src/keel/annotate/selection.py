"""Which pairs to have judged next: those that a reward model's ensemble is divided about, not all of one kind.

Uncertain is not the same as worth asking about. Where all members of an ensemble say one half, raters probably say one
half too, and their votes are coin tosses; where the members differ, a vote decides between them. Their mutual
information tells the two apart (Houlsby et al. 2011, BALD). Pairs on which the members differ in the same way teach the
same thing, so each one taken lowers the others like it.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.core.seed import generator
from keel.stats.arrays import Floats, sigmoid

Method = Literal["disagreement", "uncertainty", "random"]


def uncertainty(differences: ArrayLike) -> Floats:
    """Entropy in nats, [N], of the preference that an ensemble expects: at most log 2, where it is one half.

    differences are score a - score b, [members, N], or [N] for a single reward model.
    """
    return _entropy(sigmoid(_members(differences)).mean(axis=0))


def disagreement(differences: ArrayLike) -> Floats:
    """What one vote tells about which member is right, in nats, [N]; 0 for a single reward model.

    The entropy of the mean preference less the mean of the members' own.
    """
    p = sigmoid(_members(differences))
    return np.maximum(_entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0), 0.0)


def priorities(
    differences: ArrayLike,
    count: int,
    features: ArrayLike | None = None,
    *,
    method: Method = "disagreement",
    diversity: float = 1.0,
    seed: int = 0,
) -> Floats:
    """Priorities in [0, 1], [N], for `Item.priority`: the `count` pairs to take first, from 1 down, the others 0.

    differences are score a - score b by each member, [members, N]. The next pair is the one with the largest value
    times (1 - likeness to any pair taken) ** diversity; likeness is the absolute cosine of `features` [N, D] of the
    pairs (the difference of two answers' embeddings, say), else of the members' deviations from their mean. With
    diversity 0 likeness counts for nothing. Time grows with N times count.
    """
    scores = _members(differences)
    num = scores.shape[1]
    if count < 0:
        raise DataError(f"{count} pairs cannot be chosen. Give 0 or more.")
    count = min(count, num)
    # Equal values, as of one model without an ensemble, are taken in random order.
    jitter = generator(seed, "selection").random(num) * 1e-9
    if method == "random":
        values, diversity = jitter, 0.0
    elif method == "uncertainty":
        values = uncertainty(scores) + jitter
    elif method == "disagreement":
        if len(scores) < 2:
            raise DataError(
                "One reward model cannot disagree with itself. Train an ensemble (reward.members: 3), or choose the "
                "method uncertainty."
            )
        values = disagreement(scores) + jitter
    else:
        raise DataError(f"Method {method!r} is unknown. Choose disagreement, uncertainty or random.")
    order = _greedy(values, _directions(scores, features), count, diversity)
    found = np.zeros(num)
    found[order] = 1 - np.arange(count) / max(1, count)
    return found


def _greedy(values: Floats, directions: Floats | None, count: int, diversity: float) -> list[int]:
    if directions is None or diversity == 0:
        return np.argsort(-values, kind="stable")[:count].tolist()
    likeness = np.zeros(len(values))
    left = values.copy()
    order: list[int] = []
    for _ in range(count):
        best = int(np.argmax(left * (1 - likeness) ** diversity))
        order.append(best)
        left[best] = -1.0
        likeness = np.maximum(likeness, np.minimum(np.abs(directions @ directions[best]), 1.0))
    return order


def _directions(scores: Floats, features: ArrayLike | None) -> Floats | None:
    """[N, D] of length 1, or 0; None where there is nothing to compare by."""
    if features is not None:
        given = np.asarray(features, dtype=np.float64)
        if given.ndim != 2 or len(given) != scores.shape[1] or not np.isfinite(given).all():
            raise DataError(f"Features must be finite numbers [{scores.shape[1]}, D], got shape {given.shape}.")
    elif len(scores) > 2:
        given = (scores - scores.mean(axis=0)).T
    else:
        return None  # two members deviate along one line: all pairs would be alike
    lengths = np.linalg.norm(given, axis=1, keepdims=True)
    return given / np.where(lengths > 0, lengths, 1.0)


def _members(differences: ArrayLike) -> Floats:
    scores = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise DataError(f"Score differences must be finite numbers [members, N], got shape {scores.shape}.")
    return scores


def _entropy(p: Floats) -> Floats:
    """Of a coin with probability p, in nats."""
    inside = np.clip(p, 1e-12, 1 - 1e-12)
    return -(inside * np.log(inside) + (1 - inside) * np.log(1 - inside))
