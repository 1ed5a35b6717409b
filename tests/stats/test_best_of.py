"""Best of n by counting, against brute force over all subsets."""

import itertools
import math

import numpy as np
import pytest

from keel.stats.best_of import best_of_kl_bound, chances, expected_best


def brute_force(scores: np.ndarray, n: int, values: np.ndarray) -> float:
    """The mean over all subsets of n samples of the value of the best, equal ones sharing."""
    found = []
    for subset in itertools.combinations(range(len(scores)), n):
        chosen = list(subset)
        top = scores[chosen].max()
        found.append(np.mean([values[i] for i in chosen if scores[i] == top]))
    return float(np.mean(found))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_the_expected_best_is_the_mean_over_all_subsets(n):
    rng = np.random.default_rng(n)
    scores = rng.normal(size=(6, 7))
    scores[3:] = rng.integers(0, 3, size=(3, 7))  # with ties
    values = rng.normal(size=(6, 7))
    expected = [brute_force(row, n, value) for row, value in zip(scores, values, strict=True)]
    np.testing.assert_allclose(expected_best(scores, n, values), expected, atol=1e-12)
    np.testing.assert_allclose(expected_best(scores, n), [brute_force(row, n, row) for row in scores], atol=1e-12)


def test_it_is_unbiased_however_many_samples_there_are():
    # A die thrown twice: the highest is k with probability (2k - 1)/36, in the mean 161/36.
    thrown = np.random.default_rng(0).integers(1, 7, size=(40_000, 5)).astype(float)
    assert expected_best(thrown, 2).mean() == pytest.approx(161 / 36, abs=0.02)


def test_the_chances_of_a_rank_are_those_of_drawing_only_lower_ones():
    np.testing.assert_allclose(chances(4, 2), [0, 1 / 6, 2 / 6, 3 / 6])
    np.testing.assert_allclose(chances(5, 1), [0.2] * 5)


def test_more_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="best of 3 cannot be taken from 2 samples"):
        expected_best(np.zeros((1, 2)), 3)


def kl_of_best(outcomes: int, n: int) -> float:
    """The exact KL of best-of-n from equally likely outcomes with scores of their own."""
    chance = np.diff((np.arange(outcomes + 1) / outcomes) ** n)
    return float((chance * np.log(chance * outcomes)).sum())


@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_the_bound_on_the_kl_holds_and_is_close_where_outcomes_are_many(n):
    bound = best_of_kl_bound(n)
    assert bound == pytest.approx(math.log(n) - (n - 1) / n)
    assert kl_of_best(2, n) < kl_of_best(20, n) < kl_of_best(400, n) < bound
    assert bound - kl_of_best(400, n) < 0.0011


def test_the_better_side_of_a_coin_comes_up_three_times_in_four():
    assert kl_of_best(2, 2) == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
