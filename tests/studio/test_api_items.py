"""Imports and what becomes of them: formats, faults in files, golden items, disputes, snapshots."""

import json

import pytest
from helpers.studio import Studio, pairs

from keel.data.formats import DataConfig, read
from keel.stages.collect import collect


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path / "studio.sqlite", golden_share=0.0, repeat_share=0.0, overlap=2)


def sent(person, content, kind="application/x-ndjson", **query):
    return person.http.post("/api/v1/projects/p/items", content=content, headers={"content-type": kind}, params=query)


def test_pairs_come_as_a_list_as_lines_or_as_a_table(studio):
    lead = studio.person("lead")
    one = {"prompt": "One?", "a": "yes", "b": "no", "provenance": {"a": "m1", "b": "m2"}, "priority": 2}
    assert lead.ask("POST", "/projects/p/items", [one])["added"] == 1
    two = {"prompt": [{"role": "user", "content": "Two?"}], "response_a": "yes", "response_b": "no"}
    assert sent(lead, json.dumps(two).encode()).json()["added"] == 1
    table = b"prompt,response_a,response_b,preference\nThree?,yes,no,a\n"
    assert sent(lead, table, "text/csv").json()["added"] == 1
    found = lead.ask("GET", "/projects/p/items")
    assert [item["priority"] for item in found["items"]] == [2, 0, 0]
    assert found["items"][1]["prompt"] == [{"role": "user", "content": "Two?"}]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Q", "chosen": "good", "rejected": "bad"},
        {"chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nHuman: Q\n\nAssistant: bad"},
        {
            "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}],
            "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}],
        },
        {"prompt": "Q", "response_a": "good", "response_b": "bad", "preference": "a"},
    ],
    ids=["preference", "hh", "implicit", "comparison"],
)
def test_formats_that_keel_reads_are_imported_and_their_verdict_stays_behind(studio, record):
    lead = studio.person("lead")
    assert sent(lead, json.dumps(record).encode()).json()["added"] == 1
    item = lead.ask("GET", "/projects/p/items")["items"][0]
    assert {item["a"].strip(), item["b"].strip()} == {"good", "bad"}
    assert item["gold"] is None


def test_what_a_file_says_is_better_can_be_the_known_answer(studio):
    line = json.dumps({"prompt": "Q", "chosen": "good", "rejected": "bad"}).encode()
    lead = studio.person("lead")
    assert sent(lead, line, gold="true").status_code == 201
    item = lead.ask("GET", "/projects/p/items")["items"][0]
    assert item["kind"] == "golden"
    assert item[item["gold"]] == "good"


def test_the_same_pair_is_not_there_twice_whichever_answer_comes_first(studio):
    lead = studio.person("lead")
    pair = {"prompt": "Q", "a": "x", "b": "y"}
    lead.ask("POST", "/projects/p/items", [pair])
    again = lead.ask("POST", "/projects/p/items", [pair, {**pair, "a": "y", "b": "x"}])
    assert (again["added"], again["already_there"]) == (0, 2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"prompt": "Q", "a": "x", "b": "y"}\n{"prompt": "Q2", "a": "x"}\n', "line 2"),
        (b'{"prompt": "Q", "a": "x", "b": "y"}\n{broken\n', "line 2"),
        (b'{"prompt": "Q", "a": "x", "b": "y", "gold": "maybe"}\n', "gold"),
        (b'{"prompt": "Q", "completion": "only one answer"}\n', "comparisons"),
        (
            b'{"prompt": "Q", "a": "x", "b": "y"}\n{"prompt": "Q", "a": "x", "b": "y\\u0000"}\n',
            "line 2: answer b: holds a NUL",
        ),
        (b'{"prompt": "Q", "chosen": "x", "rejected": "y\\u0000"}\n', "jsonl:1: answer b: holds a NUL"),
        (b'{"prompt": "Q", "a": "x", "b": "\\ud800"}\n', "surrogate"),
        (b'{"colour": "red"}\n', "colour"),
        (b"\x00\x01\x02\x03", ""),
        (b"", "empty"),
    ],
)
def test_a_file_with_a_fault_is_told_where_and_nothing_of_it_is_imported(studio, content, told):
    lead = studio.person("lead")
    reply = sent(lead, content)
    assert reply.status_code == 422, reply.text
    message = reply.json()["error"]["message"]
    assert told in message
    assert "/tmp" not in message
    assert lead.ask("GET", "/projects/p/items")["total"] == 0


def test_a_compressed_file_is_not_unpacked(studio):
    assert sent(studio.person("lead"), b"\x1f\x8b", file="pairs.jsonl.gz").status_code == 422


def test_an_item_of_another_project_is_out_of_reach(studio):
    admin = studio.person("admin")
    admin.ask("POST", "/projects", {"name": "other", "title": "Other"})
    ids = admin.ask("POST", "/projects/other/items", [{"prompt": "Q", "a": "x", "b": "y"}])["item_ids"]
    lead = studio.person("lead")
    assert lead.status("DELETE", f"/projects/p/items/{ids[0]}") == 404
    assert lead.status("PUT", f"/projects/p/items/{ids[0]}/gold", {"gold": "a"}) == 404


def vote(person, choice_of):
    number = 0
    while task := person.ask("POST", "/projects/p/next", {})["task"]:
        number += 1
        side = "left" if choice_of(task["left_text"]) else "right"
        key = f"vote-{person.name}-{task['lease']}"
        person.ask("POST", "/projects/p/judgments", {"lease": task["lease"], "choice": side, "client_key": key})
    return number


def test_a_dispute_is_settled_and_frozen_as_the_senior_decided(studio, tmp_path):
    studio.add_items(pairs(4))
    studio.add_member("second")
    vote(studio.person("rater"), lambda text: "one" in text)
    vote(studio.person("second"), lambda text: ("one" in text) != ("to 0." in text))
    senior, lead = studio.person("senior"), studio.person("lead")
    (dispute,) = senior.ask("GET", "/projects/p/disputes")
    assert {said["choice"] for said in dispute["votes"]} == {"a", "b"}
    assert dispute["item"]["provenance"] is None
    senior.ask("POST", f"/projects/p/disputes/{dispute['item']['id']}/settle", {"choice": "b", "rationale": "Truer."})
    assert senior.ask("GET", "/projects/p/disputes") == []
    made = lead.ask("POST", "/projects/p/snapshots", {"name": "first"})
    assert made["records"] == 4
    lines = lead.http.get("/api/v1/projects/p/snapshots/first/download").text
    (tmp_path / "first.jsonl").write_text(lines)
    records = read(DataConfig(path=str(tmp_path / "first.jsonl")), "comparisons").records
    settled = next(record for record in records if "to 0." in record.a)
    assert settled.preference == 0.0
    assert all(record.preference > 0.5 for record in records if record is not settled)
    again = lead.ask("POST", "/projects/p/snapshots", {"name": "second"})
    assert again["name"] == "first"
    history = lead.http.get("/api/v1/projects/p/export?kind=history").text.splitlines()
    assert len(history) == 9
    assert "rater" in json.loads(history[0])


def test_pairs_on_which_seniors_agree_are_offered_as_golden_until_they_are(studio):
    ids = studio.add_items(pairs(3))
    studio.add_member("other", "senior")
    vote(studio.person("senior"), lambda text: "one" in text)
    vote(studio.person("other"), lambda text: ("one" in text) != ("to 0." in text))
    lead = studio.person("lead")
    told = lead.ask("GET", "/projects/p/golden")
    assert (told["golden"], told["answers"], told["verdict"]["level"]) == (0, {}, "warn")
    assert {(one["item"], one["gold"], one["seniors"]) for one in told["candidates"]} == {(i, "a", 2) for i in ids[1:]}
    assert len(lead.ask("GET", "/projects/p/golden?count=1")["candidates"]) == 1
    lead.ask("PUT", f"/projects/p/items/{ids[1]}/gold", {"gold": "a"})
    told = lead.ask("GET", "/projects/p/golden")
    assert (told["golden"], told["answers"]) == (1, {"a": 1})
    assert [one["item"] for one in told["candidates"]] == [ids[2]]


def test_votes_on_which_nobody_agrees_are_frozen_with_the_verdict_as_by_keel_collect(studio):
    studio.add_items(pairs(40))
    studio.add_member("second")
    vote(studio.person("rater"), lambda text: "one" in text)
    vote(studio.person("second"), lambda text: ("one" in text) != (int(text.split("to ")[1].rstrip(".")) % 2 == 0))
    lead = studio.person("lead")
    made = lead.ask("POST", "/projects/p/snapshots", {"name": "first"})
    assert made["verdict"]["level"] == made["manifest"]["gate"]["level"] == "stop"
    assert "below 0.40" in made["verdict"]["message"]
    assert made["manifest"]["labels"] == "share"
    again = collect(studio.store, "p", name="second")
    assert (again.fresh, again.snapshot.name) == (False, "first"), "the same votes by either door"
    other = lead.ask("POST", "/projects/p/snapshots", {"name": "third", "labels": "dawid_skene"})
    assert other["content_hash"] != made["content_hash"]
    lead.ask("PATCH", "/projects/p", {"settings": {"labels": "dawid_skene"}})
    assert lead.ask("POST", "/projects/p/snapshots", {"name": "fourth"})["name"] == "third"
    assert not collect(studio.store, "p").fresh
    now, frozen = (lead.http.get(f"/api/v1/projects/p/{path}").text for path in ("export", "snapshots/third/download"))
    assert [json.loads(line) for line in now.splitlines()] == [json.loads(line) for line in frozen.splitlines()]
    assert lead.ask("GET", "/projects/p/agreement")["verdict"]["level"] == "stop"
    assert len(lead.ask("GET", "/projects/p/raters")) == 2


def test_progress_tells_a_lead_of_all_and_a_rater_of_themselves(studio):
    studio.add_items(pairs(4))
    vote(studio.person("rater"), lambda text: True)
    mine = studio.person("rater").ask("GET", "/projects/p/progress")
    assert mine["mine"]["done"] == 4
    assert [value for key, value in mine.items() if key != "mine"] == [None] * (len(mine) - 1)
    whole = studio.person("viewer").ask("GET", "/projects/p/progress")
    assert (whole["votes"], whole["votes_wanted"], whole["today"]) == (4, 8, 4)
    assert studio.person("viewer").ask("GET", "/projects/p/forecast")["usd_spent"] == 0.4
