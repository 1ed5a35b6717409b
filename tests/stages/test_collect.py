"""From judgments to a snapshot: what counts, what is kept, and that the same judgments are the same snapshot."""

import json

import pytest
from helpers.projects import begin, join, judge_all

from keel.core.errors import ConfigError, ConflictError, MissingError
from keel.data.formats import DataConfig, read_comparisons
from keel.data.snapshot import read_snapshot
from keel.stages.collect import collect
from keel.stages.place import Place, names_place
from keel.stages.studio_snapshots import export, opened
from keel.store.rows import Draft, NewItem

SOURCE = {"model": "sft", "path": "runs/help", "content": "ab" * 32}


def pairs(count: int = 12) -> list[NewItem]:
    return [
        NewItem(prompt=f"question {n}?", a=f"good {n}", b=f"bad {n}", provenance={"a": SOURCE, "b": "big"})
        for n in range(count)
    ]


def good(item) -> str:
    return "a"


def true(item) -> str:
    return "a" if item.id % 4 < 2 else "b"


def wrong_now_and_then(item) -> str:
    return {"a": "b", "b": "a"}[true(item)] if item.id % 12 == 1 else true(item)


def always_left(item) -> str:
    return "b" if item.id % 2 == 0 else "a"


def wavering(item) -> str:
    return ("a", "tie", "b")[item.id % 3]


@pytest.fixture
def store(tmp_path):
    with begin(tmp_path / "studio.sqlite", pairs()) as store:
        yield store


def read(store, snapshot) -> list[dict]:
    with store.reading() as tx:
        return list(tx.snapshots.read(snapshot))


def test_a_record_holds_the_votes_their_sides_and_where_the_answers_come_from(store):
    names = judge_all(store, {"ann": good, "bob": good, "cem": wavering})
    made = collect(store, "help", name="week-1")
    records = read(store, made.snapshot)
    assert len(records) == made.figures["records"] == 12
    assert made.figures["votes"] == 36
    assert made.figures["ties"] == 4
    (tied,) = [r for r in records if r["prompt"] == "question 0?"]
    assert tied["preference"] == pytest.approx({"tie": 5 / 6, "a": 1.0, "b": 2 / 3}[tied["votes"][2]["choice"]])
    assert [vote["rater"] for vote in tied["votes"]] == [names[name] for name in ("ann", "bob", "cem")]
    assert all({"swapped", "seconds", "at", "guide_version"} <= vote.keys() for vote in tied["votes"])
    assert tied["provenance"] == {"a": SOURCE, "b": "big"}
    assert (tied["model_a"], tied["model_b"]) == ("sft", "big")
    manifest = made.snapshot.manifest
    assert manifest["guide_version"] == 1
    assert {rater["rater"] for rater in manifest["raters"]} == set(names.values())
    assert manifest["content"] == {"sft@abababababab": 12, "big": 12}
    assert '"ann"' not in json.dumps([dict(manifest), records]), "people stand under their pseudonyms"


@pytest.mark.parametrize("labels", ["share", "majority", "weighted", "dawid_skene"])
def test_votes_become_the_preference_that_was_asked_for(store, labels):
    judge_all(store, {"ann": good, "bob": good, "cem": wavering})
    made = collect(store, "help", labels=labels)
    found = {record["preference"] for record in read(store, made.snapshot)}
    assert found == {1.0} if labels == "majority" else len(found) > 1
    assert made.snapshot.manifest["labels"] == labels


def test_labels_are_made_as_the_project_says_unless_told_otherwise(tmp_path):
    with begin(tmp_path / "studio.sqlite", pairs(), labels="majority") as store:
        judge_all(store, {"ann": good, "bob": good, "cem": wavering})
        made = collect(store, "help")
        assert made.snapshot.manifest["labels"] == "majority"
        assert collect(store, "help", labels="share").snapshot.manifest["labels"] == "share"


def test_weighted_votes_count_by_the_raters_cards_and_the_leads_weight(tmp_path):
    with begin(tmp_path / "studio.sqlite", pairs(60)) as store:
        names = judge_all(store, {"ann": true, "bob": wrong_now_and_then, "eve": always_left})
        with store.writing() as tx:
            project = tx.projects.by_name("help")
            tx.people.set_skills(project.id, tx.people.user_by_name("bob").id, (), weight=2.0)
        made = collect(store, "help", labels="weighted")
        weights = made.snapshot.manifest["weights"]
        assert weights[names["eve"]] == 0, "somebody who always takes the left answer"
        assert weights[names["bob"]] == pytest.approx(2 * weights[names["ann"]], rel=0.2)
        records = read(store, made.snapshot)
        assert len(records) == 60
        told = {record["prompt"]: record["preference"] for record in records}
        assert told["question 0?"] == pytest.approx(
            weights[names["ann"]] / (weights[names["ann"]] + weights[names["bob"]])
        )
        assert told["question 1?"] == 0.0
        assert "weights" not in collect(store, "help", labels="share").snapshot.manifest


def test_the_same_judgments_are_the_same_snapshot_here_and_in_a_folder(store, tmp_path):
    judge_all(store, {"ann": good, "bob": wavering})
    first, again = collect(store, "help", name="one"), collect(store, "help", name="two")
    assert (first.fresh, again.fresh) == (True, False)
    assert again.snapshot.name == "one"
    folder = export(store, first.snapshot, tmp_path / "copies")
    assert read_snapshot(folder).content_hash == first.snapshot.content_hash
    assert len(read_comparisons(DataConfig(path=str(folder)))) == 12


def test_another_vote_is_another_snapshot_and_gets_a_name_of_its_own(store):
    judge_all(store, {"ann": good, "bob": wavering})
    first = collect(store, "help")
    judge_all(store, {"cem": good})
    second = collect(store, "help")
    assert first.snapshot.content_hash != second.snapshot.content_hash
    assert second.snapshot.name == f"{first.snapshot.name}.2"


def test_a_seniors_decision_stands_above_the_votes(store):
    judge_all(store, {"ann": good, "bob": wavering, "cem": lambda item: "b"})
    join(store, "dora", role="senior")
    with store.writing() as tx:
        project, dora = tx.projects.by_name("help"), tx.people.user_by_name("dora")
        disputed = tx.items.find(project.id, state="disputed").items[0]
        tx.work.settle(disputed.id, dora.id, Draft(choice="b"), "settled", 9000.0)
    (record,) = [r for r in read(store, collect(store, "help").snapshot) if "settled" in r]
    assert (record["preference"], len(record["raters_said"])) == (0.0, 3)
    assert "votes" not in record, "read as votes they would be counted again"


def test_golden_items_are_a_snapshot_of_their_own(store):
    judge_all(store, {"ann": good, "bob": good})
    with store.writing() as tx:
        project = tx.projects.by_name("help")
        for item in tx.items.find(project.id).items[:3]:
            tx.items.set_gold(item.id, "b", now=9000.0)
    golden, votes = collect(store, "help", golden=True), collect(store, "help")
    assert [record["preference"] for record in read(store, golden.snapshot)] == [0.0] * 3
    assert all("votes" not in record for record in read(store, golden.snapshot))
    told = {record["item"] for record in read(store, golden.snapshot)}
    assert told.isdisjoint(record["item"] for record in read(store, votes.snapshot))


def test_low_agreement_is_told_with_names(store):
    names = judge_all(store, {"ann": good, "bob": wavering, "cem": lambda item: ("b", "a")[item.id % 2]})
    made = collect(store, "help")
    assert made.gate.verdict.level == "stop"
    assert made.snapshot.manifest["gate"]["level"] == "stop"
    assert len(names) == made.figures["num_raters"]


def test_skips_alone_make_no_record_and_nothing_no_snapshot(store):
    with pytest.raises(ConflictError, match="nothing to freeze"):
        collect(store, "help")
    judge_all(store, {"ann": lambda item: "skip"})
    with pytest.raises(ConflictError, match="nothing to freeze"):
        collect(store, "help")
    with pytest.raises(ConflictError, match="golden item"):
        collect(store, "help", golden=True)


def test_an_unknown_project_is_answered_with_those_there_are(store):
    with pytest.raises(MissingError, match="There are: help"):
        collect(store, "hepl")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("studio.sqlite::help", ("studio.sqlite", "help", None)),
        ("/a b/c.sqlite::help@week-1", ("/a b/c.sqlite", "help", "week-1")),
        (
            "postgresql+psycopg://me@db:5432/keel::help-2@0123abcd",
            ("postgresql+psycopg://me@db:5432/keel", "help-2", "0123abcd"),
        ),
        ("http://localhost:8080::help", ("http://localhost:8080", "help", None)),
        ("http://[::1]:8080::help", ("http://[::1]:8080", "help", None)),
    ],
)
def test_places(text, parts):
    place = Place.of(text)
    assert (place.studio, place.project, place.snapshot) == parts
    assert place.address == text
    assert names_place(text)


@pytest.mark.parametrize("text", ["help", "::help", "studio.sqlite::", "studio.sqlite::Help Desk", "s::help@"])
def test_what_names_no_project_is_told_how_to(text):
    with pytest.raises(ConfigError, match="STUDIO::PROJECT"):
        Place.of(text)


def test_a_password_is_never_shown():
    assert "secret" not in str(Place.of("postgresql://me:secret@db/keel::help"))


def test_a_database_that_is_not_there_is_not_begun(tmp_path):
    from keel.core.errors import ArtifactError

    with pytest.raises(ArtifactError, match="no such database"):
        opened(Place.of(f"{tmp_path / 'new.sqlite'}::help"))
    assert not (tmp_path / "new.sqlite").exists()
