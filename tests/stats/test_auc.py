import numpy as np
import pytest

from keel.core.errors import DataError
from keel.stats.auc import auc


def test_pairs_of_a_good_and_a_bad_item_by_hand():
    # good 3 and 1, bad 2 and 1: 3 > 2, 3 > 1, 1 < 2, 1 = 1
    assert auc([3.0, 1.0, 2.0, 1.0], [1, 1, 0, 0]).value == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_it_counts_pairs():
    rng = np.random.default_rng(0)
    scores, good = rng.integers(0, 9, 80).astype(float), rng.random(80) < 0.3
    leads = scores[good][:, None] - scores[~good][None, :]
    assert auc(scores, good).value == pytest.approx(((leads > 0) + 0.5 * (leads == 0)).mean())


def test_no_information_is_one_half_and_order_reversed_the_complement():
    good = np.array([1.0, 0.0, 0.75, 0.2])
    assert auc(np.zeros(4), good).value == pytest.approx(0.5)
    scores = np.array([0.3, -1.0, 2.0, 0.1])
    assert auc(scores, good).value == pytest.approx(1 - auc(-scores, good).value)
    assert auc(scores, good).value == pytest.approx(1 - auc(scores, 1 - good).value)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, truth, covered = np.random.default_rng(1), 0.76025, 0  # P(x > y) for means one standard deviation apart
    for _ in range(300):
        scores = np.concatenate([rng.normal(1, 1, 40), rng.normal(0, 1, 60)])
        found = auc(scores, np.arange(100) < 40)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 300 <= 0.99


def test_one_kind_alone_cannot_be_told_apart():
    found = auc([1.0, 2.0], [1, 1])
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("scores", "good"), [([1.0], [1, 0]), ([1.0, 2.0], [2.0, 0.0])])
def test_what_is_no_score_and_share_an_item_is_refused(scores, good):
    with pytest.raises(DataError, match="auc takes"):
        auc(scores, good)
