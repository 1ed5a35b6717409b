from math import isnan, nan

import numpy as np
import pytest
from scipy import stats

from keel.core.errors import DataError
from keel.stats.change import ChangePoint, Trend, change_point, mean_shift, noise, page_cusum, trend
from keel.stats.student import normal_score, two_sided_t

EMPTY = [[], [1.0], [nan] * 12, [1.0, 2.0, 3.0], [0.1] * 9, [1e20] * 12, [-3.0] * 200, [1e300, -1e300] * 6]


def ar1(rng, rows, n, autocorrelation):
    """[rows, n] of variance 1."""
    series = rng.standard_normal((rows, n))
    for i in range(1, n):
        series[:, i] = autocorrelation * series[:, i - 1] + np.sqrt(1 - autocorrelation**2) * series[:, i]
    return series


# -- Student's t


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 197])
def test_tail_and_normal_score_equal_scipy(freedom):
    for t in (0.0, 0.3, -2.1, 6.0):
        assert two_sided_t(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-13)
        assert normal_score(t, freedom) == pytest.approx(stats.norm.ppf(stats.t.cdf(t, freedom)), abs=1e-6)


# -- noise


def test_noise_of_white_and_of_autocorrelated_series_is_recovered():
    rng = np.random.default_rng(0)
    white, red = noise(ar1(rng, 1, 5000, 0.0)[0]), noise(ar1(rng, 1, 5000, 0.5)[0])
    assert (white.spread, white.autocorrelation) == (pytest.approx(1, abs=0.05), pytest.approx(0, abs=0.06))
    assert (red.spread, red.autocorrelation) == (pytest.approx(1, abs=0.06), pytest.approx(0.5, abs=0.06))


def test_noise_is_not_raised_by_drift_nor_by_one_jump():
    series = np.random.default_rng(1).standard_normal(200)
    plain = noise(series).spread
    assert noise(series + np.linspace(0, 10, 200)).spread == pytest.approx(plain, rel=0.1)
    assert noise(series + 50 * (np.arange(200) >= 100)).spread == pytest.approx(plain, rel=0.15)


# -- shifts


def test_shift_of_a_step_by_hand():
    # 0 ten times, 1 ten times: one difference of 19 is 1, so the spread is sqrt(1 / 19 / 2) = 0.162
    shift = mean_shift([0] * 10 + [1] * 10)
    assert (shift.before, shift.after) == (0.0, 1.0)
    assert shift.spread == pytest.approx(np.sqrt(1 / 38))
    assert shift.size == pytest.approx(np.sqrt(38))
    # t = sqrt(38) / sqrt(1/10 + 1/5); 2 * 19^2 / 56 = 12 degrees of freedom
    assert shift.p_value == pytest.approx(2 * stats.t.sf(np.sqrt(38 / 0.3), 12), rel=1e-3)


def test_shift_takes_the_first_and_the_last_values_and_halves_a_short_series():
    values = [1.0, 3.0, 2.0, 9.0, 7.0, 5.0, 6.0, 7.0]
    assert (mean_shift(values, 2, 2).before, mean_shift(values, 2, 2).after) == (2.0, 6.5)
    assert (mean_shift(values).before, mean_shift(values).after) == (3.75, 6.25)


@pytest.mark.parametrize(("autocorrelation", "low", "high"), [(0.0, 0.02, 0.08), (0.5, 0.02, 0.12)])
def test_shift_finds_nothing_in_noise_nineteen_times_in_twenty(autocorrelation, low, high):
    series = ar1(np.random.default_rng(2), 1500, 60, autocorrelation)
    assert low <= np.mean([mean_shift(row).p_value < 0.05 for row in series]) <= high


def test_shift_finds_a_rise_of_three_spreads_in_the_last_five_updates():
    series = np.random.default_rng(3).standard_normal((200, 30)) + 3 * (np.arange(30) >= 25)
    found = [mean_shift(row) for row in series]
    assert np.mean([shift.p_value < 0.01 and shift.size > 0 for shift in found]) > 0.8


# -- change points


def test_change_point_of_a_step_is_its_first_new_value():
    found = change_point([0.0] * 10 + [1.0] * 10)
    assert found.index == 10
    assert found.size == pytest.approx(np.sqrt(38))
    # only the two orders with the step in the middle reach it, of 184,756
    assert found.p_value == pytest.approx(0.001, abs=0.0011)


def test_change_point_counts_positions_of_missing_values():
    assert change_point([nan, 0.0, 0.1, 0.0, nan, 0.1, 0.0, 5.0, nan, 5.1, 5.0, 5.1, 5.0]).index == 7


def test_change_point_p_value_equals_all_permutations_of_six_values():
    # (4, 6, 5, 8, 7, 9): the largest gap is enumerated over all 720 orders
    values = np.array([4.0, 6.0, 5.0, 8.0, 7.0, 9.0])
    assert noise(values).autocorrelation == 0

    def largest(row):
        return max(abs(row[k:].mean() - row[:k].mean()) / np.sqrt(1 / k + 1 / (6 - k)) for k in (2, 3, 4))

    orders = np.array(np.meshgrid(*[range(6)] * 6)).reshape(6, -1).T
    orders = orders[[len(set(order)) == 6 for order in orders.tolist()]]
    exact = np.mean([largest(values[order]) >= largest(values) - 1e-9 for order in orders])
    assert change_point(values).p_value == pytest.approx(exact, abs=0.035)


@pytest.mark.parametrize(("autocorrelation", "low", "high"), [(0.0, 0.02, 0.08), (0.5, 0.04, 0.17)])
def test_change_point_finds_nothing_in_noise_nineteen_times_in_twenty(autocorrelation, low, high):
    series = ar1(np.random.default_rng(4), 800, 20, autocorrelation)
    assert low <= np.mean([change_point(row).p_value < 0.05 for row in series]) <= high


def test_change_point_finds_two_spreads_half_way():
    series = np.random.default_rng(5).standard_normal((100, 30)) + 2 * (np.arange(30) >= 15)
    found = [change_point(row) for row in series]
    assert np.mean([point.p_value < 0.05 for point in found]) > 0.75
    assert np.median([point.index or 0 for point in found]) == 15


def test_fewer_than_six_values_have_no_change_point():
    assert change_point([0.0, 0.0, 9.0, 9.0, 9.0]) == ChangePoint()


# -- trends


def test_trend_equals_the_textbook_line_where_noise_is_white():
    series = np.random.default_rng(6).standard_normal((20, 25)) + 0.1 * np.arange(25)
    compared = 0
    for row in series:
        fitted = stats.linregress(np.arange(25), row)
        found = trend(row)
        assert found.slope == pytest.approx(fitted.slope, abs=1e-12)
        if noise(row - fitted.intercept - fitted.slope * np.arange(25)).autocorrelation == 0:
            compared += 1
            assert found.error == pytest.approx(fitted.stderr, rel=1e-9)
            assert found.p_value == pytest.approx(fitted.pvalue, abs=1e-12)
    assert compared >= 5


def test_trend_over_a_window_counts_missing_updates():
    # 3 per update; the nan keeps its place
    assert trend([50.0, 0.0, 3.0, nan, 9.0, 12.0], window=5).slope == pytest.approx(3.0)


def test_an_exact_line_is_certain_and_a_constant_is_none():
    assert trend([1.0, 2.0, 3.0, 4.0, 5.0]).p_value < 1e-12
    assert trend([2.0] * 9) == Trend()


@pytest.mark.parametrize(("autocorrelation", "low", "high"), [(0.0, 0.02, 0.08), (0.5, 0.02, 0.13)])
@pytest.mark.parametrize("n", [10, 40])
def test_trend_finds_nothing_in_noise_nineteen_times_in_twenty(n, autocorrelation, low, high):
    series = ar1(np.random.default_rng(7), 1000, n, autocorrelation)
    assert low <= np.mean([trend(row).p_value < 0.05 for row in series]) <= high


# -- drift, one value at a time


def test_drift_is_a_false_alarm_in_a_twentieth_of_runs_of_white_noise():
    runs = np.random.default_rng(8).standard_normal((400, 100)) * 7 - 3
    assert 0.02 <= np.mean([page_cusum(run)[0] is not None for run in runs]) <= 0.08


def test_drift_is_found_soon_after_it_begins_and_not_in_the_other_direction():
    runs = np.random.default_rng(9).standard_normal((100, 60)) + 2 * (np.arange(60) >= 30)
    positions = [page_cusum(run)[0] for run in runs]
    found = [position for position in positions if position is not None]
    assert len(found) >= 95
    assert 30 <= np.median(found) <= 38
    assert np.mean([page_cusum(-run)[0] is not None for run in runs]) <= 0.08


def test_an_alarm_does_not_depend_on_what_comes_later():
    run = np.r_[np.random.default_rng(10).standard_normal(20), np.full(20, 4.0)]
    position, _ = page_cusum(run)
    assert position is not None
    assert page_cusum(run[: position + 1])[0] == position
    assert page_cusum(run[:position])[0] is None


@pytest.mark.parametrize("setting", [{"alpha": 0.0}, {"alpha": 2.0}, {"updates": 0}, {"slack": 0.0}])
def test_a_drift_test_that_does_not_exist_is_refused(setting):
    with pytest.raises(DataError, match="drift test"):
        page_cusum([1.0, 2.0], **setting)


# -- laws of all


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize("n", [8, 30, 120])
def test_p_values_depend_neither_on_the_unit_nor_on_the_zero_of_a_figure(n, scale):
    series = np.random.default_rng(n).standard_normal(n) + np.linspace(0, 2, n)
    moved = scale * (series + 20)
    assert mean_shift(moved).p_value == pytest.approx(mean_shift(series).p_value, rel=1e-6)
    assert mean_shift(moved).size == pytest.approx(mean_shift(series).size, rel=1e-6)
    assert change_point(moved).p_value == pytest.approx(change_point(series).p_value, abs=1e-9)
    assert change_point(moved).index == change_point(series).index
    assert trend(moved).slope == pytest.approx(scale * trend(series).slope, rel=1e-6)
    assert trend(moved).p_value == pytest.approx(trend(series).p_value, rel=1e-6)
    assert page_cusum(moved)[0] == page_cusum(series)[0]


def test_a_falling_figure_is_the_mirror_of_a_rising_one():
    series = np.random.default_rng(11).standard_normal(40) + np.linspace(0, 2, 40)
    up, down = mean_shift(series), mean_shift(-series)
    assert (down.size, down.p_value) == (pytest.approx(-up.size), pytest.approx(up.p_value))
    assert change_point(-series).size == pytest.approx(-change_point(series).size)
    assert change_point(-series).p_value == change_point(series).p_value
    assert trend(-series).slope == pytest.approx(-trend(series).slope)


@pytest.mark.parametrize("series", EMPTY)
def test_where_there_is_nothing_to_go_by_nothing_is_claimed(series):
    shift = mean_shift(series)
    assert (shift.size, shift.p_value) == (0.0, 1.0)
    assert change_point(series) == ChangePoint()
    assert (trend(series).slope, trend(series).p_value) == (0.0, 1.0)
    assert page_cusum(series) == (None, 0.0)
    assert noise(series).spread >= 0
    assert not isnan(noise(series).spread)


def test_missing_and_infinite_values_are_left_out():
    series = np.random.default_rng(12).standard_normal(30)
    holes = np.insert(series, [3, 9, 20], [nan, np.inf, -np.inf])
    assert mean_shift(holes) == mean_shift(series)
    assert change_point(holes).p_value == change_point(series).p_value
