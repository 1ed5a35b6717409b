"""The command `keel watch`: frames, lines, JSON, waiting, quitting."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest
from helpers.guarded_runs import write_guarded
from helpers.report_runs import write_run

from keel.cli.main import main
from keel.core.files import RunLock

KEEL = [sys.executable, "-m", "keel.cli.main", "watch"]


def test_once_prints_all_there_is_and_the_next_step(tmp_path, capsys):
    assert main(["watch", "--once", str(write_guarded(tmp_path / "run", 39))]) == 0
    said = capsys.readouterr()
    assert "KL per token" in said.out
    assert "reward hacking" in said.out
    assert "\x1b" not in said.out
    assert "keel diagnose" in said.err


def test_a_healthy_run_that_is_over_points_to_its_report(tmp_path, capsys):
    assert main(["watch", str(write_run(tmp_path / "run"))]) == 0
    said = capsys.readouterr()
    assert "ppo 60/60: score" in said.out
    assert "Next: keel show" in said.err


def test_once_on_a_folder_without_a_run_is_a_mistake(tmp_path, capsys):
    assert main(["watch", "--once", str(tmp_path / "absent")]) == 2
    assert "no run has written there yet" in capsys.readouterr().err


def test_json_is_one_object_a_line(tmp_path, capsys):
    assert main(["watch", "--json", str(write_guarded(tmp_path / "run", 20))]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    step = next(line for line in lines if line["event"] == "step" and line["step"] == 20)
    assert step["kl_band"] == "healthy"
    assert step["text"].startswith("ppo 20/60: score")
    assert all("samples" not in line and "config" not in line for line in lines)


def test_no_torch_is_loaded(tmp_path):
    folder = write_guarded(tmp_path / "run", 5)
    program = f"import sys; from keel.cli.main import main; main(['watch', '--once', {str(folder)!r}]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)


def test_without_a_terminal_it_waits_follows_and_ends_with_the_run(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([*KEEL, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert "Waiting for a run to begin" in process.stderr.readline()
            with RunLock(folder):
                write_guarded(folder, 3)
                assert "stage started" in process.stdout.readline()
            assert "ppo 3/60" in process.stdout.read()
            assert "resumes it" in process.stderr.read()
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.wait()


def interruptible() -> None:
    """Where the tests themselves run in the background, an interrupt is ignored and the child would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("end", ["q", "arrows", "interrupt"])
def test_on_a_terminal_it_draws_and_leaves_cleanly(tmp_path, end):
    folder = write_guarded(tmp_path / "run", 44)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    with RunLock(folder):
        process = subprocess.Popen(
            [*KEEL, str(folder)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True,
            start_new_session=True, preexec_fn=interruptible,
        )  # fmt: skip
        os.close(theirs)
        try:
            seen = until(ours, b"q quits; the run goes on")
            assert b"KL per token" in seen
            if end == "q":
                os.write(ours, b"q")
            elif end == "arrows":  # what an arrow key sends leaves nothing behind that a q would wait for
                for key in (b"\x1b[A", b"\x1b[C", b"q"):
                    os.write(ours, key)
                    time.sleep(0.3)
            else:
                process.send_signal(signal.SIGINT)
            rest = until(ours, b"looks again")
            assert b"\x1b[?1049l" in rest  # back from the alternate screen
            assert b"Traceback" not in rest
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def test_without_standard_input_it_draws_and_leaves_cleanly(tmp_path):
    folder = write_guarded(tmp_path / "run", 20)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    with RunLock(folder):
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" <&-', "sh", *KEEL, str(folder)],
            stdout=theirs, stderr=theirs, env=environment, start_new_session=True, preexec_fn=interruptible,
        )  # fmt: skip
        os.close(theirs)
        try:
            until(ours, b"q quits; the run goes on")
            process.send_signal(signal.SIGINT)
            assert b"Traceback" not in until(ours, b"looks again")
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def test_a_run_that_had_stopped_is_waited_for_and_ends_with_its_process(tmp_path):
    folder = write_guarded(tmp_path / "run", 20)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen([*KEEL, str(folder)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        until(ours, b"its command resumes it")
        with RunLock(folder):
            write_guarded(folder, 30)
            until(ours, b"update 30 of 60")
        until(ours, b"the run has stopped before its end")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def until(descriptor: int, wanted: bytes, limit_s: float = 30.0) -> bytes:
    seen = b""
    ends = time.monotonic() + limit_s
    while wanted not in seen and time.monotonic() < ends:
        if select.select([descriptor], [], [], 0.2)[0]:
            seen += os.read(descriptor, 65536)
    assert wanted in seen, seen[-2000:]
    return seen
