"""Attacks that a policy may find, and some that only a person would write."""

import os
import socket
import sys
from pathlib import Path

import pytest

from keel.core.errors import ConfigError
from keel.verify import sandbox
from keel.verify.code import check
from keel.verify.sandbox import Limits, confined, locks
from keel.verify.settings import CodeConfig

TESTS = ["assert f(2) == 4", "assert isinstance(f(1), int)"]
RIGHT = "\ndef f(x):\n    return x * x\n"


def kernel_locks() -> tuple[str, ...]:
    try:
        return locks()
    except ConfigError:
        return ()


needs_kernel = pytest.mark.skipif("seccomp" not in kernel_locks(), reason="this kernel takes no seccomp filter")


def verdict(code: str, tests=TESTS, **settings):
    asked = CodeConfig(**{"seconds": 1, "require": "kernel" if kernel_locks() else "any", **settings})
    return check("", code, {"tests": tests}, asked)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("while True: pass", "took more than 0.3 s"),
        ("def f(x):\n    while True: pass", "took more than 0.3 s"),
        ("import time\ntime.sleep(60)", "took more than 0.3 s"),
        ("def f(x): return f(x)", "RecursionError"),
        ("def f(x): return [0] * 10**5", "printed more than"),
    ],
)
def test_code_that_never_ends_or_says_too_much_is_stopped(attack, said):
    found = verdict(attack, seconds=0.3 if "took" in said else 5)
    assert found.score == 0
    assert said in found.why


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS knows no limit on memory")
def test_a_memory_bomb_meets_its_limit():
    found = verdict("held = []\nwhile True: held.append(bytearray(10**7))", seconds=5)
    assert "MemoryError" in found.why


def test_a_gigabyte_that_is_printed_goes_nowhere():
    assert verdict("for _ in range(100): print('x' * 10**7)" + RIGHT, seconds=60).score == 1
    found = verdict("while True: print('x' * 10**7)", [{"input": "", "output": "x"}], seconds=60)
    assert found.why == "0 of 1 tests; printed more than 64 KiB"


@pytest.mark.parametrize(
    "attack",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "raise SystemExit",
        "print('2 of 2 tests')\nprint({'end': True})\nimport os\nos._exit(0)",
        "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): os._exit(0)",
        "class Anything(int):\n    def __eq__(self, other): return True\n    def __hash__(self): return 0\ndef f(x): return Anything(1)",
        "class Anything:\n    def __eq__(self, other): return True\ndef f(x): return Anything()",
        "import builtins\nbuiltins.isinstance = lambda *_: True\nbuiltins.AssertionError = ValueError\ndef f(x): return None",
        'import os\nfor n in range(3, 9):\n    try: os.write(n, b\'{"test": 0, "piece": 0, "value": {"complex": []}}\\n\')\n'
        "    except OSError: pass\nos._exit(0)",
        'import json\njson.dumps = lambda value: \'{"test": 0, "piece": 0, "value": {"int": "0x4"}}\'\ndef f(x): return 5',
    ],
    ids=[
        "_exit",
        "exit",
        "SystemExit",
        "printed verdict",
        "exit in the test",
        "equal int",
        "equal",
        "builtins",
        "results of its own",
        "json",
    ],
)
def test_no_answer_passes_by_ending_early_or_changing_what_equality_means(attack):
    assert verdict(attack).score == 0


def test_what_ran_before_the_early_end_still_counts_in_shares():
    found = verdict("import os\ndef f(x):\n    return 4 if x == 2 else os._exit(0)", credit="share")
    assert found.score == 0.5


def test_nothing_of_our_environment_is_there(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    code = "import os\ndef f(): return sorted(os.environ)"
    names = ["LC_ALL", "PYTHONHASHSEED"]
    assert verdict(code, [f"assert f() == {names}"]).score == 1


def test_the_folder_it_starts_in_is_empty_and_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    code = "import os\nheld = os.getcwd()\ndef f(): return held"
    found = verdict(code, ["assert f() == ''"])
    assert found.score == 0
    assert list(tmp_path.iterdir()) == []


def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("secret")
    return path


FORBIDDEN = {
    "writes": "open({there!r}, 'w').write('x')",
    "writes by number": "import os\nos.write(os.open({there!r}, os.O_WRONLY | os.O_CREAT), b'x')",
    "removes": "import os\nos.remove({secret!r})",
    "renames": "import os\nos.rename({secret!r}, {there!r})",
    "makes a folder": "import os\nos.mkdir({there!r})",
    "reads": "open({secret!r}).read()",
    "reads the parent's environment": "open('/proc/{parent}/environ').read()",
    "kills the parent": "import os\nos.kill({parent}, 0)",
    "forks": "import os\nos.fork()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "signals its parent through a pipe": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], 8, {parent})",
    "chooses the signal of a pipe": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], 10, 9)",
    "runs a program": "import os\nos.execv('/bin/true', ['true'])",
    "starts a program": "import subprocess\nsubprocess.run(['/bin/true'])",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', {port}), 1)",
    "datagram": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "local socket": "import socket\nsocket.socket(socket.AF_UNIX)",
}


@pytest.fixture
def places(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.01)
        yield {
            "secret": str(secret_file(tmp_path)),
            "there": str(tmp_path / "there"),
            "parent": os.getpid(),
            "port": server.getsockname()[1],
        }
        with pytest.raises(TimeoutError):
            server.accept()
    assert (tmp_path / "secret.txt").read_text() == "secret"
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("attack", FORBIDDEN)
def test_no_answer_reaches_beyond_itself(attack, places):
    found = verdict(FORBIDDEN[attack].format(**places) + RIGHT)
    assert found.score == 0
    assert "PermissionError" in found.why


@needs_kernel
@pytest.mark.parametrize("attack", FORBIDDEN)
def test_the_kernel_alone_denies_it_without_pythons_hook(attack, places):
    if attack.startswith("reads") and "landlock" not in locks():
        pytest.skip("this kernel has no Landlock, without which files can be read")
    code = FORBIDDEN[attack].format(**places)
    job = {"mode": "tests", "hook": False, "code": code, "values": [], "blocks": []}
    ended = confined(job, b"", Limits(seconds=5))
    assert [line["broken"].partition(":")[0] for line in ended.lines()] == ["PermissionError"]


@needs_kernel
def test_threads_cannot_be_started():
    found = verdict("import threading\nthreading.Thread(target=print).start()" + RIGHT)
    assert "can't start new thread" in found.why


def test_where_the_kernel_has_no_locks_code_is_refused_unless_told(monkeypatch):
    locks.cache_clear()
    monkeypatch.setattr(sandbox, "confined", lambda *_: sandbox.Ended(output=b'{"refused": "the kernel takes none"}\n'))
    with pytest.raises(ConfigError, match="require: any"):
        locks()
    locks.cache_clear()
    monkeypatch.setattr(sandbox, "confined", lambda *_: sandbox.Ended(output=b"", status=127))
    with pytest.raises(ConfigError, match="cannot start a Python interpreter"):
        locks()
    locks.cache_clear()


def test_without_the_kernels_locks_the_hook_stops_accidents():
    assert locks(False) == ("audit hook",)
    assert verdict("open('there', 'w')" + RIGHT, require="any").score == 0
