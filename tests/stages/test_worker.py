"""Reward functions in a process of their own: whatever they do, keel goes on or says what happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keel.core.errors import ConfigError, TrainingError
from keel.stages.worker import Worker
from keel.train.judge import numbers


@pytest.fixture
def worker(tmp_path, request):
    """A worker of the function `f` in the text given."""
    made: list[Worker] = []

    def make(text: str, timeout_seconds: float = 20) -> Worker:
        (tmp_path / "mine.py").write_text(text)
        job = {"python": "mine.py:f", "folder": str(tmp_path)}
        made.append(Worker(job, "ppo.rewards.mine", timeout_seconds))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_function_answers_and_keeps_what_it_remembers(worker):
    asked = worker(
        "held = []\ndef f(prompts, responses):\n    held.append(1)\n    return [len(held) + len(r) for r in responses]"
    )
    assert asked.ask(["p", "p"], ["", "ab"], []) == [1.0, 3.0]
    assert asked.ask(["p"], ["é\ud800"], []) == [4.0]


def test_a_third_argument_named_records_gets_what_stands_beside_each_prompt(worker):
    text = (
        "def f(prompts, responses, records):\n    return [float(r['answer'] == a) for r, a in zip(records, responses)]"
    )
    assert worker(text).ask(["p", "p"], ["4", "5"], [{"answer": "4"}, {"answer": "4"}]) == [1.0, 0.0]
    text = "def f(prompts, responses, scale=2.0):\n    return [scale for _ in responses]"
    assert worker(text).ask(["p"], ["4"], [{"answer": "4"}]) == [2.0]


def test_what_it_prints_is_no_answer(worker, capfd):
    assert worker("def f(p, r):\n    print('hello')\n    return [1]").ask(["p"], ["r"], []) == [1.0]
    assert capfd.readouterr() == ("", "hello\n")


def test_what_it_raises_is_told_with_file_and_line(worker, tmp_path):
    asked = worker(
        "def f(prompts, responses):\n    if responses[0] == 'x':\n        raise ValueError('oh')\n    return [1]"
    )
    with pytest.raises(TrainingError) as stop:
        asked.ask(["p"], ["x"], [])
    assert str(stop.value).startswith(
        f"ppo.rewards.mine: mine.py:f failed at {tmp_path / 'mine.py'}, line 3 (ValueError: oh)"
    )
    assert asked.ask(["p"], ["y"], []) == [1.0], "the process is still there"


def test_what_hangs_is_stopped_and_named(worker):
    asked = worker("import time\ndef f(prompts, responses):\n    time.sleep(600)", 1)
    with pytest.raises(TrainingError) as stop:
        asked.ask(["p"], ["r"], [])
    assert "ppo.rewards.mine has not answered within 1 s (1 responses) and was stopped" in str(stop.value)
    assert "timeout_seconds" in str(stop.value)
    assert asked.process.poll() is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [("import os\ndef f(p, r): os._exit(3)", "with status 3"), ("import os\ndef f(p, r): os.abort()", "by SIGABRT")],
)
def test_a_process_that_dies_is_told_of(worker, text, said):
    with pytest.raises(TrainingError, match=f"ppo.rewards.mine: its process ended {said}"):
        worker(text).ask(["p"], ["r"], [])


@pytest.mark.parametrize(
    ("text", "said"), [("def g(p, r): pass", "mine.py has no function `f`. It has: g"), ("def f(", "SyntaxError")]
)
def test_what_cannot_be_loaded_is_told_at_once(worker, text, said):
    with pytest.raises(ConfigError, match=said):
        worker(text)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "returned None."),
        ("[1.0]", "returned 1 numbers for 2 responses"),
        ("['good', 1]", "returned 'good' where a number was expected"),
        ("{'a': 1}", "returned {'a': 1}"),
        ("[[1], [2]]", r"returned \[1\] where"),
        ("(None, 1)", "returned None where"),
        ("[10**400, 1]", "returned 1000*"),
        ("[type('Odd', (), {'__repr__': lambda self: 1 / 0})(), 1]", "returned a Odd where"),
    ],
)
def test_what_is_no_list_of_numbers_is_shown(worker, returned, said):
    answer = worker(f"def f(prompts, responses):\n    return {returned}").ask(["p", "p"], ["a", "b"], [])
    with pytest.raises(TrainingError, match=said):
        numbers(answer, 2, "f")


def test_arrays_truths_and_what_is_not_finite_come_through(worker):
    text = "import numpy\ndef f(p, r):\n    return numpy.array([1, 2]) if r[0] == 'a' else [True, float('nan')]"
    asked = worker(text)
    assert asked.ask(["p", "p"], ["a", "b"], []) == [1.0, 2.0]
    first, second = asked.ask(["p", "p"], ["b", "b"], [])
    assert first == 1.0
    assert second != second


def test_conditions_on_texts_run_there_so_that_a_slow_pattern_can_be_stopped():
    slow = Worker({"text": {"must": ["(a+)+$"]}}, "ppo.rewards.slow", 2)
    assert slow.ask(["p", "p"], ["aaa", "aab"], []) == [1.0, 0.0]
    with pytest.raises(TrainingError, match=r"ppo.rewards.slow has not answered within 2 s"):
        slow.ask(["p"], ["a" * 40 + "b"], [])


def test_a_long_exception_is_told_in_short(worker):
    with pytest.raises(TrainingError) as stop:
        worker("def f(p, r): raise ValueError('x' * 10**6)").ask(["p"], ["r"], [])
    assert len(str(stop.value)) < 1000


def test_a_slow_pattern_does_not_outlive_keel(tmp_path):
    code = (
        "import os, pathlib, threading\nfrom keel.stages.worker import Worker\n"
        "w = Worker({'text': {'must': ['(a+)+$']}}, 'slow', 60)\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(w.process.pid))\n"
        "threading.Timer(0.5, os._exit, (9,)).start()\nw.ask(['p'], ['a' * 50 + 'b'], [])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.1)
    lived = alive(pid)
    if lived:
        os.kill(pid, signal.SIGKILL)
    assert not lived


def test_it_does_not_outlive_keel_even_in_the_middle_of_a_function(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, pathlib, time\ndef f(p, r):\n"
        f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n    time.sleep(600)\n"
    )
    code = (
        "import os, threading, time\nfrom keel.stages.worker import Worker\n"
        f"w = Worker({{'python': 'mine.py:f', 'folder': {str(tmp_path)!r}}}, 'mine', 60)\n"
        "threading.Timer(0.5, os._exit, (9,)).start()\nw.ask(['p'], ['r'], [])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(pid)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    if status.parent.parent.is_dir() and Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
