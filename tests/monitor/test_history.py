from math import inf, nan

import numpy as np
import pytest

from keel.monitor.history import History, Series, number, numbered, tail


@pytest.mark.parametrize(
    ("value", "known"),
    [(3, 3.0), (0.5, 0.5), (np.float32(0.5), 0.5), (np.int64(4), 4.0), (-1e99, -1e99)],
)
def test_numbers_of_every_kind_are_figures(value, known):
    assert number(value) == known


@pytest.mark.parametrize(
    "value", [None, nan, inf, -inf, "0.5", True, np.True_, [1.0], 1e100, 10**400, 1j, np.complex64(1)]
)
def test_what_is_no_finite_number_is_not_known(value):
    assert np.isnan(number(value))


def test_a_figure_keeps_its_place_where_updates_lack_it():
    series = numbered([{"kl": 1.0}, {}, {"kl": None}, {"kl": "2"}, {"kl": 3}])
    np.testing.assert_array_equal(series.values("kl"), [1.0, nan, nan, nan, 3.0])
    assert series.known("kl").tolist() == [1.0, 3.0]
    assert (series.first("kl"), series.last("kl"), len(series)) == (1.0, 3.0, 5)
    np.testing.assert_array_equal(tail(series.values("kl"), 1), [3.0])
    assert tail([nan, inf], 3).size == 0


def test_an_empty_series_knows_nothing():
    series = Series()
    assert (series.step, len(series)) == (0, 0)
    assert np.isnan([series.first("kl"), series.last("kl")]).all()
    assert series.values("kl").size == 0
    assert not series.lost("kl")


def test_rows_without_a_step_follow_the_one_before():
    series = numbered([{"a": 1}, {"step": 10}, {"step": None}, {"step": "x"}, {"step": 20.0}])
    assert [row["step"] for row in series.rows] == [1, 10, 11, 12, 20]


def test_a_history_until_a_step_knows_nothing_of_later_ones():
    rows = [{"step": step} for step in (0, 5, 10)]
    history = History.of(rows, rows, rows)
    cut = history.until(5)
    assert [cut.steps.step, cut.evaluations.step, cut.checks.step] == [5, 5, 5]
    assert history.until(99).steps.rows == history.steps.rows
    assert [row["step"] for row in history.steps.since(5).rows] == [10]


def test_a_figure_is_lost_when_it_is_nan_or_was_a_number_and_is_null():
    assert numbered([{"loss": nan}]).lost("loss")
    assert numbered([{"loss": 1.0}, {"loss": -inf}]).lost("loss")
    assert numbered([{"loss": 1.0}, {"loss": None}]).lost("loss")
    assert not numbered([{"loss": None}, {"loss": None}]).lost("loss")
    assert not numbered([{"loss": 1.0}, {}]).lost("loss")
    assert not numbered([{"loss": 1.0}, {"loss": "nan"}]).lost("loss")
