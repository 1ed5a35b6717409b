"""Position bias and agreement with oneself."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from keel.core.errors import DataError
from keel.stats.raters import position_bias, self_agreement
from keel.stats.ties import fit_ties


def judged(seed, pull, num=2000, ties=0.3, spread=1.0):
    """Outcomes of pairs of 8 models with the first shown favoured by `pull` log-odds; Davidson's model."""
    rng = np.random.default_rng(seed)
    strengths = rng.normal(size=8) * spread
    first, second = np.array([rng.choice(8, size=2, replace=False) for _ in range(num)]).T
    gap = strengths[first] - strengths[second] + pull
    weights = np.stack([np.exp(gap / 2), np.full(num, ties), np.exp(-gap / 2)], axis=1)
    draw = rng.random(num)[:, None] < (weights / weights.sum(axis=1, keepdims=True)).cumsum(axis=1)
    return np.array([1, 0.5, 0])[draw.argmax(axis=1)], first, second


def test_a_worked_example():
    bias = position_bias([1, 1, 1, 0, 0.5])
    assert (bias.num_first, bias.num_second, bias.num_ties) == (3, 1, 1)
    assert bias.share.value == 3 / 4
    assert bias.log_odds.value == pytest.approx(np.log(3.5 / 1.5))
    assert bias.p_value == pytest.approx(10 / 16)  # 4 or 0 or 3 or 1 of 4
    assert not bias.found


@pytest.mark.parametrize("ties", [0.0, 0.5])
def test_the_interval_covers_the_planted_pull_and_strengths_do_not_dilute_it(ties):
    covered, plain = [], []
    for seed in range(60):
        outcome, first, second = judged(seed, 0.4, 600, ties, spread=1.5)
        net = position_bias(outcome, first, second).log_odds
        covered.append(net.low <= 0.4 <= net.high)
        plain.append(position_bias(outcome).log_odds.value)
    assert 0.88 <= np.mean(covered) <= 1.0
    assert np.mean(plain) < 0.36  # without strengths the pull looks smaller than it is


def test_no_pull_is_found_at_the_rate_of_the_level():
    found = [position_bias(*judged(seed, 0.0, 300)).found for seed in range(200)]
    assert np.mean(found) <= 0.09


def test_the_standard_error_is_that_of_repeated_fits():
    fits = [
        fit_ties(first, second, outcome, position_bias=True)
        for outcome, first, second in (judged(7 * seed, 0.3, 500) for seed in range(80))
    ]
    assert np.mean([fit.position_error for fit in fits]) == pytest.approx(
        np.std([fit.position for fit in fits]), rel=0.3
    )


@pytest.mark.parametrize("outcome", [[1] * 40, [0] * 40])
def test_a_rater_who_always_clicks_one_side_has_a_finite_pull(outcome):
    first = np.tile([0, 1], 20)
    for bias in (position_bias(outcome), position_bias(outcome, first, 1 - first)):
        assert np.isfinite([bias.log_odds.value, bias.log_odds.low, bias.log_odds.high]).all()
        assert bias.found
        assert bias.p_value < 1e-9


def test_nothing_but_ties_tells_nothing():
    bias = position_bias([0.5, 0.5])
    assert np.isnan(bias.log_odds.value)
    assert not bias.found
    with pytest.raises(DataError, match="Outcomes must be 1"):
        position_bias([2])


def test_self_agreement_is_share_and_kappa_of_the_two_answers():
    rng = np.random.default_rng(0)
    before = rng.integers(3, size=80)
    after = np.where(rng.random(80) < 0.8, before, rng.integers(3, size=80))
    after[:5] = -1
    found = self_agreement(before, after)
    assert found.num_repeats == 75
    assert found.agreement.value == pytest.approx(np.mean(before[5:] == after[5:]))
    assert found.kappa.value == pytest.approx(cohen_kappa_score(before[5:], after[5:]))
    assert found.kappa.low < found.kappa.value < found.kappa.high
    none = self_agreement([-1], [0])
    assert none.num_repeats == 0
    assert np.isnan(none.kappa.value)
    with pytest.raises(DataError, match="both answers"):
        self_agreement([0], [0, 1])
