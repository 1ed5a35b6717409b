"""The terminal view: every kind of run, any width, any encoding, nothing that steers the terminal."""

import io

import numpy as np
import pytest
from helpers.report_runs import KINDS, write_run
from rich.console import Console

from keel.report.terminal import PLAIN_BLOCKS, Ink, show


def shown(folder, width=100, encoding="utf-8"):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    show(folder, Console(file=stream, width=width, highlight=False, force_terminal=False))
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_is_shown(tmp_path, kind):
    text = shown(write_run(tmp_path / "run", kind))
    assert "perplexity of 1.54" in " ".join(text.split())


def test_the_view_holds_ladder_alarms_samples_and_costs(tmp_path):
    text = shown(write_run(tmp_path / "run", "hacked"))
    for words in (
        "KL per token",
        "KL per answer",
        "held-out score",
        "stop",
        "21 times",
        "wonderful question",
        "updating",
    ):
        assert words in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_curves_are_never_cut(tmp_path, width):
    text = shown(write_run(tmp_path / "run"), width=width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_an_ascii_terminal_gets_ascii_bars(tmp_path):
    text = shown(write_run(tmp_path / "run"), encoding="ascii")
    row = [line for line in text.splitlines() if "KL per answer" in line][-1]
    assert "?" not in row
    assert set("@#") & set(row)


def test_hostile_text_is_shown_not_obeyed(tmp_path):
    text = shown(write_run(tmp_path / "run", "hostile"), width=200)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[31mred" in text
    assert "[bold]markup[/bold]" in text


def test_figures_that_were_not_numbers_are_counted(tmp_path):
    assert "3 not a number" in shown(write_run(tmp_path / "run", "with_nan"))


def test_a_curve_rises_from_the_lowest_to_the_highest_block():
    ink = Ink(blocks=PLAIN_BLOCKS, width=8)
    assert ink.curve(np.arange(8.0)) == PLAIN_BLOCKS
    assert ink.curve(np.array([1.0, np.nan, 1.0])) == "_ _"
    assert ink.curve(np.array([np.nan])) == ""
    assert len(ink.curve(np.arange(1000.0))) == 8


def test_a_small_share_still_shows_as_a_bar():
    assert Ink(blocks=PLAIN_BLOCKS, width=10).bar(0.001) == "@"
    assert Ink(blocks=PLAIN_BLOCKS, width=10).bar(1.0) == "@" * 10
