"""Drawing: long curves keep their spikes, colours become variables, nothing global is touched."""

import re
import subprocess
import sys

import numpy as np
import pytest

from keel.core.errors import ConfigError
from keel.report import plots
from keel.report.curves import Curves
from keel.report.plots import Line, draw, lines, moving_average, panel, thin


def curve(values, broken=()):
    values = np.asarray(values, dtype=float)
    at = np.arange(1.0, len(values) + 1)
    return Curves(
        at=at,
        rounds=np.full(len(values), np.nan),
        columns={"x": values},
        broken={"x": np.asarray(broken, dtype=float)} if len(broken) else {},
    )


def test_thinning_keeps_the_ends_the_spikes_and_the_gaps():
    values = np.sin(np.arange(10_000) / 500)
    values[4321], values[8765] = 9.0, -9.0
    values[6000:6100] = np.nan
    at, thinned = thin(np.arange(10_000.0), values)
    assert len(at) < 1000
    assert (at[0], at[-1]) == (0, 9999)
    assert np.nanmax(thinned) == 9.0
    assert np.nanmin(thinned) == -9.0
    assert np.isnan(thinned[(at >= 6000) & (at < 6100)]).any()


def test_short_series_are_not_thinned():
    at = np.arange(5.0)
    assert thin(at, at)[0] is at


def test_a_moving_average_of_a_constant_is_that_constant():
    np.testing.assert_allclose(moving_average(np.full(200, 3.0)), 3.0)
    # Five values, half width 1: the ends average two, the middle three.
    np.testing.assert_allclose(moving_average(np.array([0.0, 3.0, 6.0, 9.0, 12.0])), [1.5, 3.0, 6.0, 9.0, 10.5])


def test_a_drawing_has_units_a_name_and_no_fixed_colours():
    svg = panel("Title", "Look.", [Line(curves=curve([1, 2, 3]), figure="x")], unit="nats", steps="updates").svg
    assert ">nats</text>" in svg
    assert ">updates</text>" in svg
    assert 'aria-label="Title"' in svg
    assert "var(--blue)" in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "font-family" not in svg


def test_numbers_in_text_are_left_alone():
    line = Line(curves=curve([0.0001, 0.0004]), figure="x")
    svg = draw(lambda axes: lines(axes, [line]), name="small", unit="", steps="")
    assert ">0.0002</text>" in svg


def test_broken_steps_are_crossed_even_when_nothing_else_is_known():
    svg = panel("T", "L", [Line(curves=curve([np.nan, np.nan], broken=[1, 2]), figure="x")], unit="", steps="").svg
    assert "var(--red)" in svg


def test_a_line_with_one_point_is_a_dot():
    svg = panel("T", "L", [Line(curves=curve([1.0]), figure="x")], unit="", steps="").svg
    assert "<use" in svg


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="keel show"):
        plots.require_matplotlib()


def test_reading_and_showing_a_run_loads_neither_matplotlib_nor_torch():
    code = "import sys, keel.report.terminal, keel.report.html; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
