"""keel sample, judge-ai, collect and promote as people give them."""

import json
import threading
import time
from contextlib import contextmanager

import pytest
from helpers.projects import begin, judge_all
from helpers.recipes import PROMPTS, model_folder, write_lines
from helpers.served import says, serving

from keel.cli.main import main
from keel.data.snapshot import read_snapshot
from keel.store.rows import NewItem
from keel.store.store import Store


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS[:6]])
    return tmp_path


def pairs() -> list[NewItem]:
    return [NewItem(prompt=f"question {n}?", a=f"good {n}", b=f"bad {n}") for n in range(8)]


def good(item) -> str:
    return "a"


def test_pairs_go_from_a_model_into_a_project_and_are_not_added_twice(place, capsys):
    model_folder(place / "model")
    begin(place / "studio.sqlite", []).close()
    command = (
        "sample --prompts prompts.jsonl --model sft=model -s max_new_tokens=5 --to studio.sqlite::help --priority 2"
    )
    assert main(command.split()) == 0
    assert "6 items added, 0 were there" in capsys.readouterr().out
    assert main(command.split()) == 0
    assert "0 items added, 6 were there" in capsys.readouterr().out
    with Store.open("studio.sqlite") as store, store.reading() as tx:
        project = tx.projects.by_name("help")
        found = list(tx.items.each(project.id))
        assert {item.priority for item in found} == {2.0}
        assert {item.provenance["a"]["model"] for item in found} == {"sft"}
        assert tx.snapshots.facts(project.id)["generators"] == {"sft": 12}


def test_a_served_model_is_named_with_its_address(place, capsys):
    with serving(says(lambda body: f"answer {body['seed']}")) as server:
        words = ["sample", "--prompts", "prompts.jsonl", "--model", f"{server.url}#big", "--out", "here"]
        assert main(words) == 0
        assert "6 pairs of 12 answers (12 drawn now)" in capsys.readouterr().out
    assert (place / "here" / "pairs.jsonl").is_file()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sample", "needs a settings file"),
        ("sample --prompts prompts.jsonl --model http://localhost:1/v1", "#MODEL"),
        ("sample --prompts prompts.jsonl --model m --to studio.sqlite", "STUDIO::PROJECT"),
        ("collect studio.sqlite::help", "no such database"),
        ("collect studio.sqlite::help@x", "makes a new snapshot"),
        ("promote", "a run and a reason"),
        ("promote nowhere --why because", "summary.json"),
        ("judge-ai studio.sqlite::help --name j", "exactly one"),
        ("judge-ai studio.sqlite::help --name j --endpoint http://localhost:1/v1", "#MODEL"),
    ],
)
def test_what_cannot_be_is_one_message(place, capsys, command, said):
    assert main(command.split()) == 2
    found = capsys.readouterr().err
    assert said in found
    assert "Traceback" not in found


def test_votes_are_frozen_and_told_in_figures(place, capsys):
    with begin(place / "studio.sqlite", pairs()) as store:
        judge_all(store, {"ann": good, "bob": lambda item: ("a", "b")[item.id % 2]})
    assert main(["collect", "studio.sqlite::help", "--name", "week-1", "--export", "copies"]) == 0
    said = capsys.readouterr().out
    assert "studio.sqlite::help@week-1" in said
    assert "below 0.40" in said
    assert read_snapshot(place / "copies" / "week-1").name == "week-1"
    assert main(["collect", "studio.sqlite::help", "--name", "again", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["snapshot"] == "studio.sqlite::help@week-1"
    assert (figures["records"], figures["votes"], figures["raters"], figures["gate"]) == (8, 16, 2, "stop")


def test_a_judge_shows_its_card(place, capsys):
    (place / "judges.py").write_text("def judge(questions):\n    return ['first'] * len(questions)\n")
    with begin(place / "studio.sqlite", pairs()) as store:
        judge_all(store, {"ann": good, "bob": good})
    assert main(["judge-ai", "studio.sqlite::help", "--name", "lefty", "--python", "judges.py:judge"]) == 0
    said = capsys.readouterr().out
    assert "8 items judged, 0 (0%) alike both ways" in said
    assert "share for the answer shown first" in said


def test_an_empty_registry_says_so(place, capsys):
    assert main(["promote", "--list"]) == 0
    assert "nothing has been promoted" in capsys.readouterr().out


@contextmanager
def studio(path):
    """A real studio on a port of its own, and an API token of its lead."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `studio` is not installed")
    from helpers.studio import Studio

    made = Studio(path)
    server = uvicorn.Server(uvicorn.Config(made.app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 10
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", made
    finally:
        server.should_exit = True
        thread.join()


def test_pairs_go_to_a_studio_over_http_with_a_token(place, capsys, monkeypatch):
    with serving(says(lambda body: f"answer {body['seed']}")) as server, studio(place / "studio.sqlite") as (url, made):
        words = ["sample", "--prompts", "prompts.jsonl", "--model", f"{server.url}#big", "--to", f"{url}::p"]
        assert main(words) == 2
        assert "--token-env" in capsys.readouterr().err
        monkeypatch.setenv("KEEL_TOKEN", "keel_wrong")
        assert main([*words, "--token-env", "KEEL_TOKEN"]) == 2
        assert "HTTP 401" in capsys.readouterr().err
        monkeypatch.setenv("KEEL_TOKEN", made.tokens["lead"])
        with made.store.reading() as tx:
            before = len(list(tx.items.each(made.project.id)))
        for added, known in ((6, 0), (0, 6)):
            assert main([*words, "--token-env", "KEEL_TOKEN"]) == 0
            assert f"{added} items added, {known} were there" in capsys.readouterr().out
        with made.store.reading() as tx:
            found = list(tx.items.each(made.project.id))
        assert len(found) == before + 6
        assert found[-1].provenance["a"]["endpoint_model"] == "big"


def test_an_address_without_a_studio_is_told(place, capsys, monkeypatch):
    monkeypatch.setenv("KEEL_TOKEN", "keel_x")
    with serving(says(lambda body: f"answer {body.get('seed')}")) as server:
        words = ["sample", "--prompts", "prompts.jsonl", "--model", f"{server.url}#big", "--token-env", "KEEL_TOKEN"]
        assert main([*words, "--to", "http://127.0.0.1:1::p"]) == 2
        assert "no studio answers there" in capsys.readouterr().err
    assert (place / "samples" / "prompts" / "pairs.jsonl").is_file(), "nothing is lost"
