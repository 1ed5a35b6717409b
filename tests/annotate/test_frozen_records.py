import json

import pytest
from helpers.rating_rooms import said

from keel.annotate.freeze import comparison_records, golden_records
from keel.data.formats import DataConfig, read_comparisons
from keel.store.rows import Item


def item(number, **fields):
    plain = {"project_id": 1, "key": f"k{number}", "prompt": f"Q{number}", "a": "x", "b": "y", "kind": "pair"}
    plain |= {"gold": None, "skills": (), "priority": 0.0, "created": 0.0, "removed": None}
    plain |= {"provenance": {"a": {"model": "sft"}, "b": "gpt"}}
    return Item(**{"id": number, **plain, **fields})


ITEMS = [
    item(1),
    item(2, settled="b"),
    item(3),
    item(4, kind="golden", gold="a"),
    item(5, removed=1.0),
    item(6),
]
BALLOTS = said(
    {1: "x a,y a,z b", 2: "x a,y b,z tie", 3: "x skip,y skip", 4: "x a,y a", 5: "x a,y a"},
    swapped=True,
    seconds=9.0,
    guide_version=2,
)


def test_golden_removed_and_unjudged_items_are_left_out_and_seniors_override():
    records = {record["item"]: record for record in comparison_records(ITEMS, BALLOTS, "share")}
    assert set(records) == {"k1", "k2"}
    assert records["k1"]["preference"] == pytest.approx(2 / 3)
    assert records["k2"]["preference"] == 0.0
    assert records["k2"]["settled"]
    vote = records["k1"]["votes"][0]
    assert (vote["rater"], vote["choice"], vote["swapped"], vote["seconds"], vote["guide_version"]) == (
        "x",
        "a",
        True,
        9.0,
        2,
    )


def test_a_settled_pair_that_all_skipped_is_kept_and_one_with_worthless_votes_alone_is_not():
    there = [item(1, settled="b"), item(2), item(3)]
    ballots = said({1: "x skip,y skip", 2: "y b", 3: "x a,y b"})
    records = list(comparison_records(there, ballots, "weighted", {"y": 0.0}))
    assert [(record["item"], record["preference"]) for record in records] == [("k1", 0.0), ("k3", 1.0)]
    assert [record["item"] for record in comparison_records(there, ballots, "share", {"y": 0.0})] == ["k1", "k2", "k3"]


def test_weights_of_raters_count():
    (first, _) = comparison_records(ITEMS, BALLOTS, "weighted", {"z": 4.0})
    assert first["preference"] == pytest.approx(2 / 6)


def test_golden_items_are_records_of_their_own():
    (record,) = golden_records(ITEMS)
    assert (record["item"], record["preference"], record["golden"]) == ("k4", 1.0, True)


def test_records_are_read_back_as_comparisons_with_their_votes(tmp_path):
    path = tmp_path / "frozen.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in comparison_records(ITEMS, BALLOTS, "share")))
    first, settled = read_comparisons(DataConfig(path=str(path)))
    assert (first.prompt, first.a, first.b, first.preference) == ("Q1", "x", "y", pytest.approx(2 / 3))
    assert [(vote.rater, vote.choice) for vote in first.votes] == [("x", "a"), ("y", "a"), ("z", "b")]
    assert first.models == ("sft", "gpt")
    assert (settled.preference, settled.votes) == (0.0, ())
