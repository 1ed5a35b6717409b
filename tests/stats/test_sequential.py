from math import exp, isnan, log, nan

import numpy as np
import pytest

from keel.core.errors import DataError
from keel.stats.bets import log_gains, log_wealth, one_sided, two_sided
from keel.stats.sequential import (
    MAX_BATCHES,
    Drop,
    confidence_sequence,
    drop_evidence,
    log_evidence,
    log_evidence_path,
    win_rate,
)

ALPHA = 0.05


def verdicts(rng, rate, n=20):
    return (rng.random(n) < rate).astype(float)


# -- the bets


def test_one_bet_at_odds_of_two_on_win_win_loss():
    # b = exp(log 3) - 1 = 2: (1 + 2)(1 + 2)(1 + 0) = 9 against (1 + 2 * 1/2)^3 = 8 at a mean of 1/2
    gains = np.array([[log(9.0)]])
    assert log_wealth(gains, np.array([3.0]), np.array([0.5]), np.array([log(3.0)])) == pytest.approx(log(9 / 8))


def test_for_wins_and_losses_evidence_is_the_mean_likelihood_ratio():
    # 7 wins, 3 losses; alternatives at odds exp(d) times those of .4
    rates = [0.4 * exp(d) / (0.6 + 0.4 * exp(d)) for d in one_sided()]
    ratios = [(p / 0.4) ** 7 * ((1 - p) / 0.6) ** 3 for p in rates]
    assert log_evidence([1] * 7 + [0] * 3, null_at_most=0.4) == pytest.approx(log(np.mean(ratios)), abs=1e-12)


def test_bets_are_even_on_both_sides():
    np.testing.assert_allclose(two_sided(), -two_sided()[::-1], atol=1e-12)


# -- intervals


def test_interval_holds_the_mean_and_is_mirrored_when_wins_and_losses_swap():
    values = np.random.default_rng(0).choice([0.0, 0.5, 1.0], size=80, p=[0.2, 0.2, 0.6])
    low, high = confidence_sequence(values)
    means = values.cumsum() / np.arange(1, 81)
    assert (low <= means).all()
    assert (means <= high).all()
    mirrored_low, mirrored_high = confidence_sequence(1 - values)
    np.testing.assert_allclose(mirrored_low, 1 - high, atol=1e-9)
    np.testing.assert_allclose(mirrored_high, 1 - low, atol=1e-9)


def test_last_interval_depends_on_the_verdicts_but_not_on_their_order():
    values = verdicts(np.random.default_rng(1), 0.6, 60)
    assert win_rate(values) == pytest.approx(win_rate(np.sort(values)), abs=1e-9)
    low, high = confidence_sequence(values)
    assert win_rate(values)[1:] == pytest.approx((low[-1], high[-1]), abs=1e-12)


def test_interval_ends_are_where_the_wealth_is_twenty():
    values = np.array([1.0] * 30 + [0.0] * 10)
    _, low, high = win_rate(values, ALPHA)
    gains = np.log1p(np.outer(values, np.expm1(two_sided()))).sum(axis=0)
    reached = log_wealth(np.stack([gains, gains]), np.array([40.0, 40.0]), np.array([low, high]), two_sided())
    np.testing.assert_allclose(reached, log(20), atol=1e-6)


def test_interval_narrows_with_verdicts_and_widens_with_confidence():
    low, high = confidence_sequence([1.0, 0.0] * 100)
    assert high[199] - low[199] < high[49] - low[49] < high[19] - low[19]
    assert high[199] - low[199] < 0.23
    _, surer_low, surer_high = win_rate([1.0, 0.0] * 100, alpha=0.01)
    assert surer_low < low[-1] < high[-1] < surer_high


def test_ties_narrow_the_interval():
    _, low, high = win_rate([0.5] * 40)
    _, wide_low, wide_high = win_rate([1.0, 0.0] * 20)
    assert wide_low < low < 0.5 < high < wide_high


@pytest.mark.parametrize("kind", ["constant", "drifting", "reacting"])
def test_no_interval_ever_misses_the_average_mean_in_more_than_a_twentieth_of_streams(kind):
    rng = np.random.default_rng(2)
    streams, n = 400, 120
    missed = 0
    for _ in range(streams):
        if kind == "reacting":
            # A policy that does worse after wins: the next mean depends on what was seen.
            means, values = np.empty(n), np.empty(n)
            for i in range(n):
                means[i] = 0.9 if i == 0 or values[:i].mean() < 0.5 else 0.2
                values[i] = rng.random() < means[i]
        else:
            means = np.full(n, 0.7) if kind == "constant" else np.linspace(0.9, 0.2, n)
            values = (rng.random(n) < means).astype(float)
        # The interval leaves out the levels at which the wealth has reached 1 / alpha.
        gains, counts = log_gains(values, two_sided())
        missed += bool((log_wealth(gains, counts, means.cumsum() / counts, two_sided()) >= log(1 / ALPHA)).any())
    assert missed / streams <= ALPHA


# -- evidence against a level


@pytest.mark.parametrize("null", [0.5, 0.7])
def test_evidence_reaches_twenty_to_one_in_less_than_a_twentieth_of_true_nulls(null):
    rng = np.random.default_rng(3)
    paths = [log_evidence_path(verdicts(rng, null, 200), null_at_least=null) for _ in range(600)]
    assert np.mean([path.max() >= log(1 / ALPHA) for path in paths]) <= ALPHA


def test_evidence_is_the_same_from_either_side():
    values = verdicts(np.random.default_rng(4), 0.3, 50)
    assert log_evidence(values, null_at_least=0.5) == pytest.approx(log_evidence(1 - values, null_at_most=0.5))


def test_evidence_grows_against_a_false_null_and_never_for_a_hopeless_one():
    values = verdicts(np.random.default_rng(5), 0.4, 150)
    assert log_evidence(values, null_at_least=0.65) > log(1000)
    assert log_evidence(values, null_at_least=0.0) <= 0
    assert log_evidence(values, null_at_most=1.0) <= 0
    assert log_evidence(values, null_at_least=0.65) > log_evidence(values, null_at_least=0.55)


@pytest.mark.parametrize("nulls", [{}, {"null_at_least": 0.4, "null_at_most": 0.5}, {"null_at_most": 1.5}])
def test_evidence_needs_one_level_between_0_and_1(nulls):
    with pytest.raises(DataError, match="null"):
        log_evidence([1, 0], **nulls)


# -- falls


@pytest.fixture(scope="module")
def looks():
    """The answers at each look of streams of 10 batches of 20."""

    def watch(rates, streams, seed):
        rng = np.random.default_rng(seed)
        answers = []
        for _ in range(streams):
            batches = [verdicts(rng, rate) for rate in rates]
            answers.append([drop_evidence(batches[:seen]) for seen in range(1, len(batches) + 1)])
        return answers

    return watch


@pytest.mark.parametrize("rate", [0.5, 0.65, 0.8])
def test_false_alarms_of_ten_looks_at_a_constant_rate_stay_within_alpha(looks, rate):
    # 20,000 streams gave .048, .047, .048 (see drop_evidence); 100 streams of that hold 10 or fewer in 98 %.
    answers = looks([rate] * 10, streams=100, seed=6)
    assert np.mean([min(answer.p_value for answer in stream) <= ALPHA for stream in answers]) <= 0.1
    assert np.mean([max(answer.log_evidence for answer in stream) >= log(1 / ALPHA) for stream in answers]) <= 0.02


def test_a_rising_rate_is_no_fall(looks):
    answers = looks(np.linspace(0.5, 0.8, 10), streams=60, seed=7)
    assert np.mean([min(answer.p_value for answer in stream) <= ALPHA for stream in answers]) <= ALPHA


def test_a_fall_from_three_quarters_to_a_third_is_seen_within_two_batches(looks):
    answers = looks([0.75] * 4 + [0.35] * 2, streams=60, seed=8)
    assert np.mean([min(answer.p_value for answer in stream[4:]) <= ALPHA for stream in answers]) >= 0.8
    assert np.mean([stream[3].p_value <= ALPHA for stream in answers]) <= 0.05
    assert np.median([stream[-1].since for stream in answers]) == 4


def test_a_fall_after_a_rise_is_measured_from_the_best_not_from_the_start():
    # 10 of 20, then 16, 16, 6: from .8 to .3, where the start alone (.5) would show less
    batches = [[1.0] * wins + [0.0] * (20 - wins) for wins in (10, 16, 16, 6)]
    drop = drop_evidence(batches)
    assert (drop.before, drop.after, drop.since) == (pytest.approx(0.8), pytest.approx(0.3), 3)
    assert drop.p_value < 0.01
    assert drop.log_evidence > 0
    assert drop_evidence(batches, margin=0.4).p_value > 0.2
    assert drop_evidence(batches, margin=0.4).log_evidence < drop.log_evidence


def test_batches_without_verdicts_are_passed_over_and_positions_kept():
    gaps = drop_evidence([[], [1.0] * 20, [nan] * 5, [1.0] * 20, [0.0] * 20])
    whole = drop_evidence([[1.0] * 20, [1.0] * 20, [0.0] * 20])
    assert (gaps.since, whole.since) == (4, 2)
    assert (gaps.p_value, gaps.log_evidence) == (whole.p_value, whole.log_evidence)


def test_very_many_batches_are_pooled_at_the_far_end():
    rng = np.random.default_rng(9)
    batches = [verdicts(rng, 0.7, 10) for _ in range(2 * MAX_BATCHES)] + [np.zeros(10)] * 3
    drop = drop_evidence(batches)
    assert drop.since == 2 * MAX_BATCHES
    assert drop.p_value < 0.001
    assert drop.log_evidence > log(1 / ALPHA)


# -- nothing to go by


def test_without_verdicts_nothing_is_claimed():
    mean, low, high = win_rate([nan, nan])
    assert isnan(mean)
    assert (low, high) == (0.0, 1.0)
    assert confidence_sequence([])[0].shape == (0,)
    assert log_evidence([], null_at_least=0.5) == 0
    assert drop_evidence([]) == Drop()
    assert drop_evidence([[1.0] * 50]) == Drop()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_verdicts_are_no_fall(value):
    drop = drop_evidence([[value] * 20] * 5)
    assert drop.p_value > 0.5
    assert drop.log_evidence == 0


def test_a_single_loss_after_wins_is_too_little_to_compare():
    assert drop_evidence([[1.0] * 20, [0.0]]).p_value == 1.0


@pytest.mark.parametrize("value", [-0.1, 1.2, 3])
def test_a_verdict_outside_0_to_1_is_refused(value):
    with pytest.raises(DataError, match="Verdicts are 1 for"):
        win_rate([1, value, 0])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5])
def test_an_impossible_error_rate_is_refused(alpha):
    with pytest.raises(DataError, match="alpha"):
        win_rate([1, 0], alpha)
