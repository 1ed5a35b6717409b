"""Best of n, by counting: expectations over all subsets of the samples at hand."""

import math
from functools import cache

import numpy as np


def best_of_kl_bound(n: int) -> float:
    """Nats per sequence that best-of-n moves from the policy it samples, at most: ln n - (n - 1)/n.

    Exact when no two responses ever score the same; ties and repeated responses only lower it.
    """
    return math.log(n) - (n - 1) / n


@cache
def chances(size: int, n: int) -> np.ndarray:
    """[size] probability that the item of each rank, lowest first, is the highest of a random subset of n of them."""
    subsets = math.comb(size, n)
    return np.array([math.comb(rank, n - 1) / subsets for rank in range(size)])


def expected_best(scores: np.ndarray, n: int, values: np.ndarray | None = None) -> np.ndarray:
    """[P] the expected value of the best of n, from `scores` [P, N] of N >= n samples each.

    `values` [P, N] (None: the scores themselves) are what the pick is worth. The average over all subsets of n samples,
    which is unbiased for any N (Nakano et al. 2021, arXiv 2112.09332); equal scores are picked equally often.
    """
    size = scores.shape[1]
    if not 1 <= n <= size:
        raise ValueError(f"the best of {n} cannot be taken from {size} samples")
    values = scores if values is None else values
    out = np.empty(len(scores))
    for i, row in enumerate(scores):
        order = np.argsort(row, kind="stable")
        _, group = np.unique(row[order], return_inverse=True)
        shared = np.bincount(group, weights=chances(size, n)) / np.bincount(group)
        out[i] = shared[group] @ values[i, order]
    return out
