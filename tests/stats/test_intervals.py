import json
from math import isnan, nan

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap
from statsmodels.stats.proportion import proportion_confint

from keel.core.errors import DataError
from keel.stats.intervals import (
    Estimate,
    bootstrap_difference,
    bootstrap_mean,
    mean_estimate,
    sign_test,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (62, 100), (749, 1024)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_equals_statsmodels(successes, n, level):
    expected = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    assert wilson(successes, n, level) == pytest.approx(expected, abs=1e-12)


def test_wilson_takes_half_successes_and_no_data():
    assert wilson(5.5, 11) == pytest.approx(proportion_confint(5.5, 11, method="wilson"), abs=1e-12)
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_ends_are_exact_at_none_and_all():
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


@pytest.mark.parametrize(("successes", "n", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 0.0), (1, 2, 95)])
def test_wilson_refuses_what_is_no_proportion(successes, n, level):
    with pytest.raises(DataError):
        wilson(successes, n, level)


def test_bootstrap_mean_equals_scipy_within_sampling_error():
    values = np.random.default_rng(0).exponential(size=80)
    expected = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    found = bootstrap_mean(values, resamples=20_000)
    assert found == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bootstrap_mean_is_seeded_and_survives_large_sets():
    values = np.random.default_rng(0).normal(size=30_000)
    assert bootstrap_mean(values, seed=3, resamples=300) == bootstrap_mean(values, seed=3, resamples=300)
    low, high = bootstrap_mean(values, resamples=300)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(30_000), rel=0.2)


def test_bootstrap_mean_of_nothing_is_undefined():
    assert all(isnan(end) for end in bootstrap_mean([]))
    with pytest.raises(DataError, match="one value per item"):
        bootstrap_mean([[1.0, 2.0]])


def test_paired_difference_is_tighter_than_two_separate_intervals():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=200)
    first, second = difficulty + 0.2 + 0.1 * rng.normal(size=200), difficulty + 0.1 * rng.normal(size=200)
    low, high = bootstrap_difference(first, second)
    assert 0.15 < low < 0.2 < high < 0.25
    assert bootstrap_mean(first)[0] < bootstrap_mean(second)[1]  # apart they overlap
    with pytest.raises(DataError, match="equal shape"):
        bootstrap_difference(first, second[:-1])


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (9, 1), (1, 9), (30, 12), (600, 500)])
def test_sign_test_equals_scipy(wins, losses):
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, abs=1e-12)


def test_estimate_reads_as_a_sentence_and_as_json():
    assert str(Estimate(0.312, 0.24, 0.38)) == "0.31 (95 % interval 0.24 to 0.38)"
    assert str(Estimate(nan, nan, nan)) == "undefined"
    assert json.dumps(Estimate(nan, nan, nan).to_dict()) == '{"value": null, "low": null, "high": null, "level": 0.95}'


def test_mean_estimate_holds_mean_and_interval():
    estimate = mean_estimate([1.0, 2.0, 3.0, 4.0])
    assert estimate.value == 2.5
    assert estimate.low < 2.5 < estimate.high
    assert isnan(mean_estimate([]).value)
