"""Role by view: what tells of others' votes is told to those alone who are not asked about that item any more."""

import json

import pytest
from helpers.postgres import postgres_server
from helpers.studio import Person, Studio, pairs

from keel.store.rows import NewItem
from keel.studio.api import snapshots
from keel.studio.figures import Kept

READERS = ("viewer", "rater", "senior", "lead", "admin")
JUDGES = ("rater", "senior", "lead")
VIEWS = (
    "/items",
    "/items?state=open",
    "/disputes",
    "/disputes?state=parked",
    "/agreement",
    "/raters",
    "/rounds",
    "/rounds/next",
    "/golden",
    "/progress",
    "/forecast",
    "/snapshots",
    "/audit",
    "/members",
)
REASON = "only-the-voter-knows-this"


@pytest.fixture(scope="module")
def server():
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def studio(request, tmp_path):
    if request.param == "postgresql":
        server = request.getfixturevalue("server")
        url = server.url(server.database())
    else:
        url = tmp_path / "studio.sqlite"
    studio = Studio(url, overlap=2, golden_share=0.5, repeat_share=0.0, lease_seconds=600)
    yield studio
    studio.store.close()


def say(person: Person, choice: str = "left", **more) -> str:
    """Judge the next pair; its prompt."""
    task = person.ask("POST", "/projects/p/next", {})["task"]
    body = {"lease": task["lease"], "choice": choice, "client_key": f"vote-of-{person.name}-{task['lease']}", **more}
    person.ask("POST", "/projects/p/judgments", body)
    return task["prompt_text"]


def told(person: Person, view: str) -> str:
    """What a view tells this person; empty where it is closed to them."""
    reply = person.http.get(f"/api/v1/projects/p{view}")
    assert reply.status_code in (200, 403), reply.text
    return reply.text if reply.status_code == 200 else ""


def offered(person: Person) -> set[str]:
    """Prompts of all that a person is given until nothing waits; each is skipped."""
    found = set()
    while task := person.ask("POST", "/projects/p/next", {})["task"]:
        found.add(task["prompt_text"])
        body = {"lease": task["lease"], "choice": "skip", "client_key": f"skip-of-{person.name}-{task['lease']}"}
        person.ask("POST", "/projects/p/judgments", body)
    return found


def exported(lead: Person, kind: str) -> list[dict]:
    return [json.loads(line) for line in lead.http.get(f"/api/v1/projects/p/export?kind={kind}").text.splitlines()]


def test_no_view_tells_anybody_what_was_said_of_a_pair_that_waits_for_votes(studio):
    studio.add_items(pairs(3))
    studio.add_member("voter")
    say(studio.person("voter"), rationale=REASON, flag=REASON)
    for reader in READERS:
        for view in VIEWS:
            text = told(studio.person(reader), view)
            assert REASON not in text, (reader, view)
            if view.startswith("/items") and text:
                assert [item["judgments"] for item in json.loads(text)["items"]] == [None] * 3


def test_a_lead_reads_votes_when_all_are_in(studio):
    studio.add_items(pairs(1))
    studio.add_member("second")
    say(studio.person("rater"), rationale=REASON)
    say(studio.person("second"))
    assert REASON in told(studio.person("lead"), "/items")
    assert REASON in told(studio.person("admin"), "/items")
    for reader in ("viewer", "rater", "senior"):
        assert REASON not in told(studio.person(reader), "/items")


@pytest.mark.parametrize("judge", JUDGES)
def test_known_answers_probe_those_alone_who_cannot_read_them(studio, judge):
    studio.add_items([*pairs(6), *(NewItem(prompt=f"known {i}", a="x", b="y", gold="a") for i in range(6))])
    person = studio.person(judge)
    met = {prompt for prompt in offered(person) if prompt.startswith("known")}
    reads = '"gold":"a"' in told(person, "/items").replace(" ", "")
    assert (bool(met), reads) == ((True, False) if judge == "rater" else (False, True))


def test_an_admin_who_judges_as_a_rater_meets_no_known_answers(studio):
    studio.add_items([*pairs(6), *(NewItem(prompt=f"known {i}", a="x", b="y", gold="a") for i in range(6))])
    studio.person("lead").ask("POST", "/projects/p/members", {"name": "admin", "role": "rater"})
    assert {prompt for prompt in offered(studio.person("admin")) if prompt.startswith("known")} == set()


@pytest.mark.parametrize("kind", ["comparisons", "history", "snapshot"])
def test_whoever_could_read_exported_votes_is_not_given_those_pairs(studio, kind):
    studio.add_items(pairs(4))
    studio.add_member("voter")
    said = {say(studio.person("voter"), rationale=REASON) for _ in range(2)}
    lead = studio.person("lead")
    if kind == "snapshot":
        lead.ask("POST", "/projects/p/snapshots", {"name": "early"})
        assert REASON not in told(lead, "/items")
        assert lead.http.get("/api/v1/projects/p/snapshots/early/download").text
    else:
        assert len(exported(lead, kind)) == 2
    rest = {item.prompt for item in pairs(4)} - said
    assert offered(lead) == rest
    assert offered(studio.person("senior")) == rest
    assert offered(studio.person("rater")) >= said
    assert REASON in told(lead, "/items")


def test_exporting_known_answers_reveals_no_votes(studio):
    studio.add_items([*pairs(1), NewItem(prompt="known", a="x", b="y", gold="a")])
    studio.add_member("voter")
    say(studio.person("voter"), rationale=REASON)
    lead = studio.person("lead")
    assert [record["golden"] for record in exported(lead, "golden")] == [True]
    assert REASON not in told(lead, "/items")


def test_a_snapshot_tells_only_the_votes_that_it_holds(studio):
    studio.add_items([*pairs(4), NewItem(prompt="known", a="x", b="y", gold="a")])
    studio.person("lead").ask("PATCH", "/projects/p", {"settings": {"golden_share": 0.0}})
    studio.add_member("voter")
    lead, voter = studio.person("lead"), studio.person("voter")
    early = say(voter)
    lead.ask("POST", "/projects/p/snapshots", {"name": "early"})
    lead.ask("POST", "/projects/p/snapshots", {"name": "known", "kind": "golden"})
    say(voter)
    assert lead.http.get("/api/v1/projects/p/snapshots/known/download").text
    with studio.store.reading() as tx:
        assert not any(item.revealed for item in tx.items.each(studio.project.id, "pair"))
    assert lead.http.get("/api/v1/projects/p/snapshots/early/download").text
    with studio.store.reading() as tx:
        assert [item.prompt for item in tx.items.each(studio.project.id, "pair") if item.revealed] == [early]


def test_votes_that_arrive_while_an_export_begins_are_revealed_with_it(studio, monkeypatch):
    studio.add_items(pairs(2))
    told = snapshots._history

    def late(store, visit):
        say(studio.person("rater"))
        yield from told(store, visit)

    monkeypatch.setattr(snapshots, "_history", late)
    (row,) = exported(studio.person("lead"), "history")
    with studio.store.reading() as tx:
        assert tx.items.get(row["item"]).revealed


def test_a_lead_is_not_given_again_what_they_hold_after_an_export(studio):
    studio.add_items(pairs(1))
    lead = studio.person("lead")
    task = lead.ask("POST", "/projects/p/next", {})["task"]
    say(studio.person("rater"))
    assert len(exported(lead, "history")) == 1
    body = {"lease": task["lease"], "choice": "left", "client_key": "after-reading"}
    refused = lead.ask("POST", "/projects/p/judgments", body, status=409)
    assert "Go on with the next one" in refused["error"]["message"]
    assert lead.ask("POST", "/projects/p/next", {})["task"] is None
    studio.add_member("second")
    assert offered(studio.person("second")) == {task["prompt_text"]}


def test_disagreement_is_named_only_where_the_votes_may_be_read(studio):
    ids = studio.add_items(pairs(30))
    studio.person("lead").ask("PATCH", "/projects/p", {"settings": {"overlap": 3}})
    studio.add_member("second")
    for number in range(30):
        say(studio.person("rater"), "left")
        say(studio.person("second"), ("left", "right")[number % 2])
    found = json.loads(told(studio.person("senior"), "/agreement"))
    assert (found["disputed"], found["items"]) == ([], 30)
    assert "carry" not in found["verdict"]["remedy"]
    studio.add_member("third")
    say(studio.person("third"))
    studio.app.state.figures = Kept()
    with studio.store.reading() as tx:
        open_ids = {item.id for item in tx.items.each(studio.project.id) if item.state == "open"}
    assert len(open_ids) == 29
    disputed = set(json.loads(told(studio.person("senior"), "/agreement"))["disputed"])
    assert disputed <= set(ids) - open_ids


def test_votes_of_a_calibration_round_are_told_when_it_is_closed(studio):
    studio.add_items(pairs(4))
    lead = studio.person("lead")
    lead.ask("PATCH", "/projects/p", {"settings": {"calibration_items": 2}})
    studio.add_member("second")
    lead.ask("POST", "/projects/p/rounds")
    for name in ("rater", "second"):
        for _ in range(2):
            say(studio.person(name), rationale=REASON)
    assert not any(REASON in told(lead, view) for view in VIEWS)
    lead.ask("POST", "/projects/p/rounds/1/close", {"left_out": []})
    assert REASON in told(lead, "/items")
