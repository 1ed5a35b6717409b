"""What verdicts make of a score: prices that were planted are found, a score that is right is left alone."""

import json

import numpy as np
import pytest

from keel.core.errors import DataError
from keel.stats.arrays import sigmoid
from keel.stats.correction import CLIP, FORM, LEAST_VERDICTS, Correction, fit_correction

SURPRISAL = FORM.index("surprisal")


def judged(worth: float, price: float, count: int = 80, seed: int = 0, unit: float = 1.0):
    """Pairs whose judges weigh the score with `worth` and surprisal with `price`, each in standard deviations."""
    rng = np.random.default_rng(seed)
    scores = 3.0 + unit * rng.standard_normal((count, 2))
    form = 20.0 + 5.0 * rng.standard_normal((count, 2, len(FORM)))
    utility = worth * (scores - 3.0) / unit + price * (form[:, :, SURPRISAL] - 20.0) / 5.0
    values = (rng.random(count) < sigmoid(utility[:, 0] - utility[:, 1])).astype(float)
    return scores, form, values, utility


def fitted(*data) -> Correction:
    found = fit_correction(*data)
    assert found is not None
    return found


def agreement(rewards: np.ndarray, utility: np.ndarray) -> float:
    return float(np.corrcoef(rewards, utility)[0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_a_price_that_judges_have_and_the_score_lacks_is_found(seed):
    scores, form, values, _ = judged(worth=0.5, price=-2.0, seed=seed)
    found = fitted(scores, form, values)
    assert found.gain > 5
    assert found.verdicts == 80
    assert int(np.argmin(found.prices)) == SURPRISAL
    fresh, new, _, utility = judged(worth=0.5, price=-2.0, seed=seed + 100)
    told = agreement(found.rewards(fresh[:, 0], new[:, 0]), utility[:, 0])
    assert told > 0.85
    assert told > agreement(fresh[:, 0], utility[:, 0]) + 0.3
    assert found.words.split(", ")[1].startswith("surprisal -")


@pytest.mark.parametrize("seed", range(5))
def test_a_score_that_is_right_gains_nothing_and_stays_what_it_was(seed):
    scores, form, values, utility = judged(worth=1.5, price=0.0, count=120, seed=seed)
    found = fitted(scores, form, values)
    assert found.gain < 2
    assert agreement(found.rewards(scores[:, 0], form[:, 0]), utility[:, 0]) > 0.85


def test_a_score_that_judges_dislike_is_never_turned_round():
    scores, form, values, _ = judged(worth=-2.0, price=-1.0, count=200)
    found = fitted(scores, form, values)
    assert found.slope == 0.0
    assert found.prices[SURPRISAL] < 0


def test_rewards_have_mean_0_and_spread_1_over_the_references_answers():
    scores, form, values, _ = judged(worth=0.5, price=-2.0)
    rewards = fitted(scores, form, values).rewards(scores[:, 1], form[:, 1])
    assert rewards.mean() == pytest.approx(0, abs=1e-9)
    assert rewards.std() == pytest.approx(1)


def test_the_unit_of_the_score_does_not_matter():
    one, thousand = (judged(worth=1.0, price=-1.0, unit=unit) for unit in (1.0, 1000.0))
    a = fitted(*one[:3]).rewards(one[0][:, 0], one[1][:, 0])
    b = fitted(*thousand[:3]).rewards(thousand[0][:, 0], thousand[1][:, 0])
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_what_lies_beyond_all_that_was_judged_counts_no_more():
    scores, form, values, _ = judged(worth=1.0, price=-1.0)
    found = fitted(scores, form, values)
    at = found.score_mean + CLIP * found.score_std
    near, far = found.rewards([at, 1e6], np.stack([form[0, 0], form[0, 0]]))
    assert near == pytest.approx(far)


def test_too_few_verdicts_or_scores_without_a_difference_give_nothing():
    scores, form, values, _ = judged(worth=1.0, price=0.0, count=LEAST_VERDICTS)
    assert fit_correction(scores, form, values) is not None
    assert fit_correction(scores[1:], form[1:], values[1:]) is None
    assert fit_correction(np.ones_like(scores), form, values) is None


def test_ties_features_that_never_vary_and_absurd_ones_are_survived():
    scores, form, _, _ = judged(worth=1.0, price=0.0)
    form[:, :, 0], form[0, 0, SURPRISAL] = 7.0, 1e12
    found = fitted(scores, form, np.full(80, 0.5))
    assert np.isfinite(found.rewards(scores[:, 0], form[:, 0])).all()
    assert found.prices[0] == 0.0


def test_pairs_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"features \[N, 2, 7\], got \(4, 2\) and \(4, 2, 3\)"):
        fit_correction(np.ones((4, 2)), np.ones((4, 2, 3)), np.ones(4))


def test_a_correction_survives_json_to_the_same_bits():
    scores, form, values, _ = judged(worth=0.5, price=-2.0)
    found = fitted(scores, form, values)
    again = Correction.of(json.loads(json.dumps(found.record())))
    assert again == found
    np.testing.assert_array_equal(again.rewards(scores[:, 0], form[:, 0]), found.rewards(scores[:, 0], form[:, 0]))
