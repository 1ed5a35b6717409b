import io
import re

import pytest

from keel.cli.progress import Lines, Pace, watching
from keel.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_the_pace_so_far():
    clock = Clock()
    pace = Pace(10, clock)
    assert pace.seconds_left is None
    for _ in range(4):
        clock.now += 3
        pace.advance(1)
    assert pace.seconds_left == 18  # 6 to go at 3 s each
    assert pace.seconds == 12


def test_work_done_before_an_interruption_does_not_count_towards_the_pace():
    clock = Clock()
    pace = Pace(10, clock)
    pace.advance(6)  # the resumed part, all at once
    assert pace.seconds_left is None
    clock.now = 5
    pace.advance(1)
    assert pace.seconds_left == 15


def test_starting_from_nothing_is_not_a_resumption():
    clock = Clock()
    pace = Pace(4, clock)
    pace.advance(0)  # what a stage reports that was not resumed
    clock.now = 2
    pace.advance(1)
    assert pace.seconds_left == 6


def test_an_unknown_total_has_no_time_left():
    pace = Pace(None, Clock())
    pace.advance(3)
    assert pace.seconds_left is None


def test_a_log_gets_a_line_every_tenth_and_no_control_codes():
    stream = io.StringIO()
    with watching(stream) as progress:
        progress.start("sft", 200, "steps")
        for step in range(200):
            progress.advance(1, loss=2.0 - step / 200, note="x")
        progress.say("hello [bold] world")
        progress.finish("perplexity 3.5")
    lines = re.sub(r"[\d.]+ s\b", "0 s", stream.getvalue()).splitlines()
    assert lines[0] == "sft: started, 200 steps"
    assert len(lines) == 1 + 10 + 2
    assert lines[1].startswith("sft: 20/200 steps")
    assert lines[1].endswith("loss 1.91, note x")
    assert lines[-2] == "hello [bold] world"
    assert lines[-1] == "sft: done in 0 s. perplexity 3.5"
    assert "\033" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_a_log_of_few_steps_and_of_unknown_length_stays_short():
    stream = io.StringIO()
    progress = Lines(stream)
    progress.start("a", 3, "updates")
    for _ in range(3):
        progress.advance()
    progress.finish("")
    progress.start("b", None, "records")
    for _ in range(1000):
        progress.advance(5)
    progress.finish("5000 records")
    lines = re.sub(r"[\d.]+ s\b", "0 s", stream.getvalue()).splitlines()
    assert [line.split(",")[0] for line in lines[:5]] == [
        "a: started",
        "a: 1/3 updates",
        "a: 2/3 updates",
        "a: 3/3 updates",
        "a: done in 0 s.",
    ]
    assert lines[5:] == ["b: started", "b: done in 0 s. 5000 records"]


def test_a_terminal_gets_a_bar_with_figures_and_lines_that_stay(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with watching(stream) as progress:
        progress.start("ppo [1]", 4, "updates")
        for _ in range(4):
            progress.advance(1, kl=1.25)
        progress.say("a [line]")
        progress.finish("score 1.0 → 2.0")
    said = stream.getvalue()
    assert "ppo [1]" in said
    assert "4/4 updates" in said
    assert "kl 1.25" in said
    assert "a [line]\n" in said
    assert re.search(r"✓ ppo \[1\] \([\d.]+ s\) score 1\.0 → 2\.0\n", said)


def start_and_fail(progress: Progress) -> None:
    progress.start("sft", 4, "steps")
    raise ValueError("bad")


def test_the_bar_is_put_away_when_the_work_fails(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with pytest.raises(ValueError, match="bad"), watching(stream) as progress:
        start_and_fail(progress)
    assert stream.getvalue().count("\033[?25l") == stream.getvalue().count("\033[?25h") == 1  # cursor hidden, shown
