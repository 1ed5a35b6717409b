from math import inf, isnan, nan

import numpy as np
import pytest

from keel.monitor.history import History, numbered
from keel.monitor.reading import LEAST_UPDATES, SURE, graded, reading, trailing


def series(values, name="figure"):
    return numbered({name: value} for value in values)


def test_a_reading_by_hand():
    # Starts at (1 + 3 + 1 + 3) / 4 = 2; is at (9 + 11) / 2 = 10; half way is 6, passed at the seventh update.
    found = reading(series([1.0, 3.0, 1.0, 3.0, 1.0, 3.0, 9.0, 11.0]), "figure")
    assert (found.before, found.now, found.difference, found.ratio, found.since) == (2.0, 10.0, 8.0, 5.0, 7)
    assert found.figures == {"figure": 10.0, "figure_before": 2.0, "since": 7}
    assert found.times == ", a factor of 5.00"


def test_the_lowest_and_the_highest_level_are_means_that_leave_out_the_newest_values():
    values = [8.0, 8.0, 8.0, 8.0, 2.0, 2.0, 2.0, 2.0, 5.0, 5.0, 5.0, 5.0, 99.0, -99.0]
    assert reading(series(values), "figure", "start").before == 8.0
    assert reading(series(values), "figure", "lowest").before == 2.0
    assert reading(series(values), "figure", "highest").before == 8.0
    assert reading(series(values), "figure").now == 0.0


def test_too_few_known_values_are_no_reading():
    known = [1.0] * (LEAST_UPDATES - 1)
    assert reading(series(known), "figure") is None
    assert reading(series([*known, nan, None, inf, "1"]), "figure") is None
    assert reading(series([*known, 1.0]), "figure") is not None
    assert reading(series(known * 3), "other") is None


def test_steps_are_those_of_the_rows_where_updates_lack_the_figure():
    rows = [{"step": 10 * (i + 1), "figure": None if i % 2 else float(i >= 12)} for i in range(20)]
    assert reading(numbered(rows), "figure").since == 130


def test_since_forgives_one_update_that_falls_back():
    assert reading(series([0.0] * 8 + [1.0, 0.1, 1.0, 1.0]), "figure").since == 9
    assert reading(series([0.0] * 8 + [1.0, 0.1, 0.1, 1.0, 1.0]), "figure").since == 12


def test_since_of_a_figure_that_fell_and_rose_again_is_the_rise():
    found = reading(series([3.0] * 5 + [1.0] * 5 + [3.0] * 5), "figure", "lowest")
    assert (found.before, found.since) == (1.0, 11)


def test_a_constant_has_not_changed():
    found = reading(series([0.3] * 20), "figure", "lowest")
    assert found.errors == 0.0
    assert found.difference == pytest.approx(0.0, abs=1e-12)


def test_there_is_no_ratio_to_nothing_or_less():
    for start in (0.0, -1.0):
        found = reading(series([start] * 6 + [2.0, 2.0]), "figure")
        assert isnan(found.ratio)
        assert found.times == ""


def test_errors_are_the_difference_in_standard_errors_of_its_own_noise():
    rng = np.random.default_rng(0)
    errors = [reading(series(rng.standard_normal(30)), "figure").errors for _ in range(1000)]
    # The noise is known to some 13 % from 30 values, and its autocorrelation is never read as below 0.
    assert np.std(errors) == pytest.approx(1.0, abs=0.15)
    assert np.mean(np.abs(errors) > SURE) < 0.02


def test_a_change_of_many_errors_is_sure_and_its_sign_kept():
    noise = 0.1 * np.random.default_rng(1).standard_normal(30)
    step = np.where(np.arange(30) >= 25, 1.0, 0.0)
    assert reading(series(noise + step), "figure").errors > SURE
    assert reading(series(noise - step), "figure").errors < -SURE
    assert reading(series(noise + step), "figure").since == pytest.approx(26, abs=1)


def test_trailing_means():
    np.testing.assert_allclose(trailing(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 4), [2.5, 3.5])
    np.testing.assert_allclose(trailing(np.array([1.0, 3.0]), 4), [2.0])


@pytest.mark.parametrize(
    ("size", "level", "confidence"),
    [
        (0.99, "ok", 0.0),
        (1.0, "watch", 0.5),
        (1.5, "watch", 0.725),
        (2.0, "act", 0.95),
        (3.0, "act", 0.99),
        (1e9, "act", 0.99),
        (-5.0, "ok", 0.0),
        (nan, "ok", 0.0),
    ],
)
def test_confidence_rises_from_the_watch_line_to_the_act_line(size, level, confidence):
    found = graded(size, 1.0, 2.0)
    assert found == (level, pytest.approx(confidence))


def test_one_line_for_both_levels_acts_at_once():
    assert graded(0.99, 1.0, 1.0) == ("ok", 0.0)
    assert graded(1.0, 1.0, 1.0) == graded(7.0, 1.0, 1.0) == ("act", 0.95)


def test_the_lowest_is_looked_for_where_the_policy_was_no_further_than_now():
    # out to a KL of 5 with a perplexity of 2.4, and half of the way back
    kl = [0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 5.0, 5.0, 5.0, 5.0, 4.0, 2.0, 1.0, 1.0]
    perplexity = [3.8, 3.9, 3.7, 3.8, 3.5, 3.0, 2.4, 2.4, 2.5, 2.4, 2.8, 3.3, 3.6, 3.6]
    rows = [{"ref_perplexity": p, "kl_nats_per_sequence": k} for p, k in zip(perplexity, kl, strict=True)]
    back = reading(History.of(rows).steps, "ref_perplexity", "lowest")
    assert back.before == pytest.approx((3.7 + 3.8 + 3.5 + 3.0) / 4)  # the last four with a mean KL of no more than 1
    assert back.ratio < 1.05
    strayed = reading(
        History.of([row | {"kl_nats_per_sequence": 9.0} for row in rows]).steps, "ref_perplexity", "lowest"
    )
    assert strayed.before == pytest.approx(2.425)
    unknown = [{"ref_perplexity": p} for p in perplexity]
    assert reading(History.of(unknown).steps, "ref_perplexity", "lowest").before == pytest.approx(2.425)
