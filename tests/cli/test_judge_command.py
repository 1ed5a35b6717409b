import os
import pty
import select
import sqlite3
import subprocess
import sys
import termios
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from keel.store.queue import FILE, Queue, QueuedPair

HOSTILE = "Yes [bold]x[/bold] \x1b[2J\x1b]0;title\x07\x9b31m \u202e [link=http://x]y[/link] :smile:"
PAIR = QueuedPair(
    run="ppo-1",
    stage="ppo",
    step=8,
    place=0,
    prompt="Which?\x1b[31m",
    left=HOSTILE,
    right="No.",
    left_finished=True,
    right_finished=False,
    policy_side="left",
)
KEEL = [sys.executable, "-m", "keel.cli.main", "judge"]
PLAIN = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}


def make(folder: Path, count: int, **changes) -> Queue:
    folder.mkdir(exist_ok=True)
    queue = Queue(folder / FILE)
    queue.ask([replace(PAIR, place=place, **changes) for place in range(count)])
    return queue


def judge(folder: Path, keys: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*KEEL, str(folder), "--judge", "ann", *options]
    return subprocess.run(command, input=keys, capture_output=True, text=True, timeout=60, env=PLAIN)


def rows(queue: Queue) -> list[tuple]:
    with closing(sqlite3.connect(queue.path)) as connection:
        return connection.execute("SELECT pair, judge, choice FROM judgments ORDER BY id").fetchall()


def test_letters_from_a_pipe_answer_pair_after_pair(tmp_path):
    queue = make(tmp_path / "run", 6)
    done = judge(tmp_path / "run", "a\nB\n tie\nn\ns\nq\n")
    assert done.returncode == 0
    choices = ["left", "right", "tie", "both_bad", "skip"]
    assert rows(queue) == [(number, "ann", choice) for number, choice in enumerate(choices, start=1)]
    for count in range(6):
        assert f"\n{count} of 6 answered ─" in done.stdout
    assert done.stdout.endswith("\n5 of 6 answered by ann.\n")
    assert done.stderr == f"Next: keel judge {tmp_path / 'run'} --judge ann goes on with the other 1\n"
    assert all(verdict.value is not None for verdict in queue.verdicts("ppo-1", "ppo", 8)[:4])


def test_the_end_of_the_pipe_ends_the_session_and_the_next_one_goes_on(tmp_path):
    queue = make(tmp_path / "run", 3)
    assert judge(tmp_path / "run", "a\nb").returncode == 0
    done = judge(tmp_path / "run", "t\n")
    assert rows(queue) == [(1, "ann", "left"), (2, "ann", "right"), (3, "ann", "tie")]
    assert "3 of 3 answered by ann." in done.stdout
    assert "--follow waits for new pairs" in done.stderr


def test_without_standard_input_nobody_answers(tmp_path):
    queue = make(tmp_path / "run", 1)
    command = [*KEEL, str(tmp_path / "run"), "--judge", "ann"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True, timeout=60, env=PLAIN
    )
    assert done.returncode == 0, done.stderr
    assert "0 of 1 answered by ann." in done.stdout
    assert rows(queue) == []


def test_undo_takes_the_last_answer_back_in_a_new_row_and_shows_its_pair_again(tmp_path):
    queue = make(tmp_path / "run", 2)
    done = judge(tmp_path / "run", "u\na\nu\nb\nq\n")
    assert rows(queue) == [(1, "ann", "left"), (1, "ann", "skip"), (1, "ann", "right")]
    assert "Nothing to take back in this session." in done.stdout
    assert "Taken back." in done.stdout


def test_a_letter_that_means_nothing_is_answered_with_those_that_do(tmp_path):
    queue = make(tmp_path / "run", 1)
    done = judge(tmp_path / "run", "x\n\na\n")
    assert done.stdout.count("a, b: better   t: tie   n: neither is good   s: skip   u: undo   q: quit") == 3
    assert rows(queue) == [(1, "ann", "left")]


def test_nothing_in_the_texts_reaches_the_output_as_a_control_code_or_as_markup(tmp_path):
    make(tmp_path / "run", 1)
    said = judge(tmp_path / "run", "q\n").stdout
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(said)
    assert r"Which?\x1b[31m" in said
    shown = " ".join(part for line in said.splitlines() for part in line.strip("│ ").split())
    assert r"Yes [bold]x[/bold] \x1b[2J\x1b]0;title\x07\x9b31m \u202e [link=http://x]y[/link] :smile:" in shown
    assert "cut off at the length limit" in said


def test_the_screen_does_not_tell_whose_answer_is_whose(tmp_path):
    screens = []
    for side in ("left", "right"):
        make(tmp_path / side, 2, policy_side=side, left_score=1.0, right_score=-1.0)
        screens.append(judge(tmp_path / side, "a\nq\n").stdout)
    assert screens[0] == screens[1]


class Screen:
    """What a process has shown so far, and how far of it was waited for."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.shown, self.read = descriptor, b"", 0

    def wait_for(self, wanted: bytes) -> None:
        end = time.monotonic() + 30
        while wanted not in self.shown[self.read :]:
            assert time.monotonic() < end, self.shown
            if select.select([self.descriptor], [], [], 1.0)[0]:
                self.shown += os.read(self.descriptor, 65536)
        self.read = self.shown.index(wanted, self.read) + len(wanted)


@contextmanager
def process(*arguments: object, **streams: int):
    started = subprocess.Popen([*KEEL, *map(str, arguments)], env=PLAIN, **streams)
    try:
        yield started
        assert started.wait(timeout=30) == 0
    finally:
        started.kill()
        started.wait()


def test_at_a_terminal_one_key_is_enough_and_it_is_left_as_it_was(tmp_path):
    queue = make(tmp_path / "run", 4)
    terminal, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    screen = Screen(terminal)
    with process(tmp_path / "run", "--judge", "ann", stdin=slave, stdout=slave, stderr=slave):
        for key in (b"a", b"\x1b[C", b"\x1b[A", b"t", b"q"):  # b"\x1b[C" is the arrow to the right, b"\x1b[A" one up
            screen.wait_for(b"q: quit")
            time.sleep(0.2)  # what is typed before the pair is on the screen does not count
            os.write(terminal, key)
        screen.wait_for(b"goes on with the other 1")
    after = termios.tcgetattr(slave)
    os.close(terminal)
    os.close(slave)
    assert rows(queue) == [(1, "ann", "left"), (2, "ann", "right"), (3, "ann", "tie")]
    assert after == before
    assert not [code for code in (b"\x1b[2J", b"\x1b]", b"\x07", b"\x9b") if code in screen.shown]
    assert rb"\x1b[2J" in screen.shown


def test_following_waits_for_the_run_to_ask_and_for_new_pairs(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with process(folder, "--judge", "ann", "--follow", **pipes) as started, started.stdin, started.stdout:
        screen = Screen(started.stdout.fileno())
        screen.wait_for(b"Waiting for the run to ask")
        queue = make(folder, 1)
        screen.wait_for(b"0 of 1 answered")
        os.write(started.stdin.fileno(), b"a\n")
        screen.wait_for(b"All answered. Waiting for new pairs")
        queue.ask([replace(PAIR, step=16)])
        screen.wait_for(b"1 of 2 answered")
        os.write(started.stdin.fileno(), b"b\nq\n")
        screen.wait_for(b"2 of 2 answered by ann")
    assert rows(queue) == [(1, "ann", "left"), (2, "ann", "right")]


@pytest.mark.parametrize(
    ("folder", "options", "said"),
    [
        ("nowhere", [], "there is no such folder"),
        ("nowhere", ["--follow"], "there is no such folder"),
        ("empty", [], "not there, the run has not asked for verdicts. keel judge "),
        ("asked", ["--judge", "keel"], "--judge 'keel' cannot be the name of a judge"),
        ("asked", ["--judge", "a\x1bb"], "cannot be the name of a judge"),
        ("damaged", [], "the file is damaged or is no SQLite file"),
    ],
)
def test_what_cannot_be_judged_is_explained(tmp_path, folder, options, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / FILE).write_text("notes " * 1000)
    make(tmp_path / "asked", 1)
    done = judge(tmp_path / folder, "a\n", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "\x1b" not in done.stderr


def test_the_judge_is_whoever_is_logged_in_and_no_torch_is_loaded(tmp_path):
    queue = make(tmp_path / "run", 1)
    program = (
        "import sys; from keel.cli.main import main; status = main(sys.argv[1:]); "
        "sys.exit(status if not {'torch', 'numpy'} & set(sys.modules) else 99)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "judge", str(tmp_path / "run")],
        input=b"t\n",
        capture_output=True,
        timeout=60,
        env={**PLAIN, "LOGNAME": "cleo"},
    )
    assert done.returncode == 0
    assert rows(queue) == [(1, "cleo", "tie")]
