"""A rater over time. Rates over many simulations are in benchmarks/raters.py."""

import numpy as np
import pytest

from keel.core.errors import DataError
from keel.stats.drift import drift, fatigue, sittings_of, steadiness

DAY_S = 86_400.0


def rater(seed, num=600, per_sitting=100, tired=0.0, drop=0.0):
    """Times, golden answers (one in ten), agreement with two others, seconds; right 90 % of the time at first."""
    rng = np.random.default_rng(seed)
    sitting, place = np.divmod(np.arange(num), per_sitting)
    times = np.cumsum(rng.exponential(20, num)) + sitting * DAY_S
    right = 0.9 - tired * np.clip(2 * place / per_sitting - 1, 0, 1) - drop * (np.arange(num) > 0.6 * num)
    said = rng.random(num) < right
    gold = np.where(rng.random(num) < 0.1, said, np.nan)
    others = rng.random((2, num)) < 0.85
    return times, gold, (others == said).mean(axis=0), rng.lognormal(3, 0.5, num)


def test_a_tired_rater_is_found_and_a_steady_one_is_not():
    tired = [steadiness(*rater(seed, tired=0.4), seed=seed) for seed in range(15)]
    steady = [steadiness(*rater(seed), seed=seed) for seed in range(15)]
    assert sum(found.tired for found in tired) >= 14
    assert sum(found.tired for found in steady) <= 3
    assert sum(found.drifted for found in steady) <= 3
    assert not any(found.rushes for found in steady)


def test_a_rater_who_got_worse_for_good_is_found_and_where():
    found = [steadiness(*rater(seed, drop=0.25), seed=seed) for seed in range(10)]
    assert sum(one.drifted for one in found) >= 9
    places = [one.agreement.index for one in found if one.agreement.index is not None]
    assert abs(np.median(places) - 360) < 40


def test_a_rater_who_got_better_is_not_called_drifted():
    times, gold, agreed, seconds = rater(1, drop=0.4)
    found = steadiness(times, gold[::-1], agreed[::-1], seconds)
    assert found.agreement.p_value < 0.01
    assert not found.drifted


def test_one_who_starts_to_rush_is_found_and_seconds_are_in_seconds():
    times, gold, agreed, seconds = rater(2)
    seconds[400:] *= 0.3
    found = steadiness(times, gold, agreed, seconds)
    assert found.rushes
    assert found.seconds.before == pytest.approx(np.exp(3), rel=0.15)
    assert found.seconds.after == pytest.approx(0.3 * np.exp(3), rel=0.15)


def test_fatigue_does_not_see_levels_that_differ_between_sittings():
    sittings = np.repeat(np.arange(10), 20)
    values = np.repeat(np.linspace(1, 0, 10), 20) + np.tile([0.0, 0.1], 100)
    assert fatigue(values, sittings).p_value > 0.2
    falling = fatigue(values - np.tile(np.arange(20), 10) / 20, sittings)
    assert falling.fell
    assert falling.p_value < 1e-6


def test_fatigue_score_is_that_of_exchanging_places_within_sittings():
    rng = np.random.default_rng(3)
    sittings, values = np.repeat(np.arange(4), 15), rng.random(60) - np.tile(np.arange(15), 4) / 40
    place = np.tile(np.arange(15.0), 4)
    observed = abs(((place - 7) * values).sum())
    shuffled = [
        sum(((np.arange(15) - 7) * rng.permutation(values[15 * s : 15 * s + 15])).sum() for s in range(4))
        for _ in range(4000)
    ]
    assert fatigue(values, sittings).p_value == pytest.approx(np.mean(np.abs(shuffled) >= observed), abs=0.02)


def test_sittings_end_with_a_long_pause():
    assert sittings_of([0, 60, 2000, 2010, 9000]).tolist() == [0, 0, 1, 1, 2]
    assert sittings_of([]).tolist() == []
    with pytest.raises(DataError, match="Judgment 3 is older"):
        sittings_of([0, 5, 4])


def test_little_says_nothing():
    assert drift([1, 0] * 9).p_value == 1
    assert fatigue([1.0, np.nan] * 10, np.zeros(20)).p_value == 1
    none = steadiness(np.arange(5.0))
    assert not any((none.drifted, none.tired, none.rushes))
    assert steadiness([]).gold.num_values == 0
    with pytest.raises(DataError, match="seconds has 1 values for 2 judgments"):
        steadiness([0, 1], seconds=[3])


def test_constant_series_say_nothing():
    found = steadiness(np.arange(100.0), np.ones(100), np.ones(100), np.full(100, 5.0))
    assert not any((found.drifted, found.tired, found.rushes))


def test_a_hundred_thousand_judgments_take_a_second():
    found = drift(np.r_[np.ones(60_000), np.zeros(40_000)] + np.random.default_rng(0).normal(size=100_000))
    assert found.index == pytest.approx(60_000, abs=600)
