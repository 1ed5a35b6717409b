from math import isnan

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from keel.core.errors import DataError
from keel.stats.ranking import bradley_terry, count_correct, longer_wins_accuracy, preference_accuracy


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def played(num_items=8, games=600, seed=0, soft=False):
    rng = np.random.default_rng(seed)
    strengths = rng.normal(size=num_items)
    first = rng.integers(num_items, size=games)
    second = (first + rng.integers(1, num_items, size=games)) % num_items
    chance = sigmoid(strengths[first] - strengths[second])
    return strengths - strengths.mean(), first, second, chance if soft else (rng.random(games) < chance).astype(float)


def test_accuracy_counts_ties_of_score_half_and_leaves_out_ties_of_preference():
    differences, preference = [2.0, -1.0, 0.0, 5.0, -3.0], [1.0, 0.8, 0.0, 0.5, 0.2]
    # Right, wrong, equal score (half), a tie (left out), right.
    assert count_correct(differences, preference) == (2.5, 4)
    assert preference_accuracy(differences, preference) == 2.5 / 4


def test_accuracy_of_ties_alone_is_undefined():
    assert count_correct([1.0], [0.5]) == (0.0, 0)
    assert isnan(preference_accuracy([1.0], [0.5]))


def test_swapping_both_sides_changes_no_accuracy():
    rng = np.random.default_rng(0)
    differences, preference = rng.integers(-2, 3, size=50).astype(float), rng.choice([0, 0.3, 0.5, 1], size=50)
    assert count_correct(differences, preference) == count_correct(-differences, 1 - preference)


def test_longer_wins():
    assert longer_wins_accuracy([3, 9, 4, 4], [1, 10, 4, 2], [1, 1, 1, 0.5]) == pytest.approx((1 + 0 + 0.5) / 3)


@pytest.mark.parametrize(
    ("differences", "preference", "named"),
    [
        ([1.0, 2.0], [1.0], "One preference per pair"),
        ([1.0, np.nan], [1.0, 0.0], "1 of 2 score differences are not finite"),
        ([1.0, 1.0], [1.0, 1.5], "Pair 2 has the preference 1.5"),
    ],
)
def test_pairs_of_the_wrong_form_are_refused(differences, preference, named):
    with pytest.raises(DataError, match=named):
        preference_accuracy(differences, preference)


def test_strengths_of_two_items_are_the_log_odds():
    # 3 wins to 1: difference log 3.
    strengths = bradley_terry([0, 0, 1, 0], [1, 1, 0, 1], [1, 1, 1, 1])
    assert strengths == pytest.approx([np.log(3) / 2, -np.log(3) / 2])


def test_strengths_equal_scikit_learn_logistic_regression():
    _, first, second, outcome = played()
    design = np.zeros((len(first), 8))
    design[np.arange(len(first)), first] = 1
    design[np.arange(len(first)), second] -= 1
    for l2 in (0.0, 2.0):
        model = LogisticRegression(C=1 / l2 if l2 else np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000)
        expected = model.fit(design, outcome).coef_[0]
        assert bradley_terry(first, second, outcome, l2=l2) == pytest.approx(expected - expected.mean(), abs=1e-4)


def test_strengths_are_recovered_exactly_from_the_true_probabilities():
    strengths, first, second, chance = played(soft=True)
    assert bradley_terry(first, second, chance) == pytest.approx(strengths, abs=1e-8)


def test_swapping_sides_changes_no_strength():
    _, first, second, outcome = played()
    swapped = bradley_terry(second, first, 1 - outcome)
    assert swapped == pytest.approx(bradley_terry(first, second, outcome), abs=1e-9)


def test_item_that_never_lost_has_no_strength_unless_penalised():
    with pytest.raises(DataError, match=r"item 0 has never lost to item\(s\) 1.*l2 > 0"):
        bradley_terry([0, 0], [1, 1], [1, 1])
    strengths = bradley_terry([0, 0], [1, 1], [1, 1], l2=0.1)
    assert strengths[0] > 1 > -1 > strengths[1]


def test_items_that_never_met_are_named():
    with pytest.raises(DataError, match=r"item\(s\) 2, 3"):
        bradley_terry([0, 1, 2, 3], [1, 0, 3, 2], [1, 1, 1, 1])


@pytest.mark.parametrize(
    ("first", "second", "outcome", "named"),
    [
        ([0], [1, 2], [1], "two items and an outcome"),
        ([0], [9], [1], "numbered from 0 to 4"),
        ([0], [1], [2], r"outside \[0, 1\]"),
    ],
)
def test_comparisons_of_the_wrong_form_are_refused(first, second, outcome, named):
    with pytest.raises(DataError, match=named):
        bradley_terry(first, second, outcome, num_items=5)
