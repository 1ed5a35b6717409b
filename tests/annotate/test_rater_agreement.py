import json
from math import isnan

import numpy as np
import pytest
from helpers.rating_rooms import room, said

from keel.annotate.agreement import (
    disputed_items,
    gate,
    heat_map,
    kappa_with_others,
    rater_effects,
)
from keel.annotate.ballots import Ballot, Table, ballots_cast, ballots_in, ballots_of, table_of
from keel.core.errors import DataError, GateError
from keel.data.records import Comparison, Vote
from keel.stats.agreement import cohen_kappa, krippendorff_alpha
from keel.store.rows import Judgment, Membership


def judgment(number, user, item, choice, **fields):
    plain = {"lease_id": number, "project_id": 1, "purpose": "judge", "strength": None, "flag": None, "rationale": None}
    plain |= {"seconds": 3.0, "swapped": False, "guide_version": 1, "client_key": str(number), "created": float(number)}
    return Judgment(**{**plain, "id": number, "user_id": user, "item_id": item, "choice": choice, **fields})


def member(user, name):
    return Membership(user_id=user, project_id=1, role="rater", pseudonym=name)


def test_ballots_carry_pseudonyms_and_leave_out_what_was_taken_back():
    rows = [judgment(2, 7, 5, "b"), judgment(1, 8, 5, "withdrawn"), judgment(3, 8, 5, "tie", rationale="same")]
    found = ballots_of(rows, [member(7, "heron"), member(8, "wren")])
    assert [(b.rater, b.choice) for b in found] == [("heron", "b"), ("wren", "tie")]
    with pytest.raises(DataError, match="user 9, who is no member of project 1"):
        ballots_of([judgment(4, 9, 5, "a")], [member(7, "heron")])


@pytest.mark.parametrize(
    ("choice", "swapped", "won"),
    [
        ("a", False, 1.0),
        ("a", True, 0.0),
        ("b", True, 1.0),
        ("tie", True, 0.5),
        ("skip", True, None),
        ("a", None, None),
    ],
)
def test_which_side_won(choice, swapped, won):
    assert Ballot(rater="r", item_id=1, choice=choice, swapped=swapped).left_won == won


def test_the_table_holds_blind_votes_only_and_the_last_one_counts():
    ballots = [*said({3: "r1 a", 1: "r0 b"}), *said({3: "r1 b"}), *said({9: "r0 a"}, purpose="golden")]
    table = table_of([*ballots, *said({1: "r1 skip"})])
    assert (table.item_ids, table.raters) == ((1, 3), ("r0", "r1"))
    assert table.votes.tolist() == [[2, -1], [-1, 2]]


def test_ballots_of_a_file_of_comparisons():
    comparison = Comparison("p", "one", "two", 0.5, votes=(Vote("x", "a", 2.0), Vote("y", "skip")))
    assert [(b.rater, b.item_id, b.code, b.strength) for b in ballots_in([comparison])] == [
        ("x", 0, 0, 2.0),
        ("y", 0, -1, None),
    ]


def test_kappa_with_others_is_cohens_with_quadratic_weights_over_all_pairs():
    table = table_of(room([0.9, 0.8, 0.7], 120))
    for column, estimate in enumerate(kappa_with_others(table)):
        pairs = [
            (mine, other)
            for row in table.votes.tolist()
            if (mine := row[column]) >= 0
            for at, other in enumerate(row)
            if at != column and other >= 0
        ]
        assert estimate.value == pytest.approx(cohen_kappa(*np.array(pairs).T, weights="quadratic"))
        assert estimate.low < estimate.value < estimate.high


def test_kappa_with_others_covers_the_truth():
    (truth, *_) = kappa_with_others(table_of(room([0.9, 0.9, 0.7], 20000, seed=99)))
    estimates = [kappa_with_others(table_of(room([0.9, 0.9, 0.7], 150, seed=s)))[0] for s in range(100)]
    assert np.mean([e.low <= truth.value <= e.high for e in estimates]) >= 0.9


def test_kappa_with_others_is_undefined_without_shared_items_or_without_two_answers():
    lonely = Table(np.array([[0, -1], [-1, 2]]), (1, 2), ("x", "y"))
    unanimous = Table(np.array([[0, 0], [0, 0]]), (1, 2), ("x", "y"))
    assert all(isnan(e.value) for table in (lonely, unanimous) for e in kappa_with_others(table))


def test_the_heat_map_is_symmetric_and_puts_trouble_last():
    picture = heat_map(room([0.9, 0.55, 0.9, 0.9], 200))
    assert picture.raters[-1] == "r1"
    for i in range(4):
        assert picture.cells[i][i] is None
        for j in range(i):
            assert picture.cells[i][j] is picture.cells[j][i]
    json.dumps(picture.to_dict(), allow_nan=False)


def test_a_heat_map_of_one_rater_or_none_is_empty():
    assert heat_map([]).cells == ()
    assert heat_map(said({1: "r0 a"})).cells == ((None,),)


def test_disputed_items_add_up_and_tell_who_said_what_and_why():
    # a against b costs 4 / (2 - 1), a against a tie 1; three votes aab cost 2 * 4 / 2
    ballots = said({1: "x a,y b", 2: "x a,y tie", 3: "x a,y a,z b", 4: "x a,y a", 5: "x b"}, rationale="because")
    found = disputed_items(ballots)
    assert [item.item_id for item in found] == [1, 3, 2]
    assert sum(item.contribution for item in found) == pytest.approx(1)
    assert found[0].contribution == pytest.approx(4 / 9)
    assert [(v.rater, v.choice, v.rationale) for v in found[0].voices] == [("x", "a", "because"), ("y", "b", "because")]
    assert [item.item_id for item in disputed_items(ballots, 1)] == [1]


def test_without_the_items_that_carry_the_disagreement_alpha_rises():
    ballots = room([0.85] * 4, 200)
    worst = {item.item_id for item in disputed_items(ballots, 20)}
    before, after = (
        krippendorff_alpha(table_of([b for b in ballots if b.item_id not in left_out]).votes, "ordinal")
        for left_out in (set(), worst)
    )
    assert after > before + 0.1


def test_the_rater_who_lowers_agreement_is_named_and_no_other():
    named, wrongly = 0, 0
    for seed in range(20):
        effects = rater_effects(room([0.9, 0.9, 0.9, 0.6], 200, seed=seed))
        named += any(e.named for e in effects if e.rater == "r3")
        wrongly += any(e.named for e in effects if e.rater != "r3")
    assert named >= 17
    assert wrongly == 0


def test_equal_raters_are_not_named():
    assert sum(e.named for seed in range(20) for e in rater_effects(room([0.8] * 4, 200, seed=seed))) <= 1


@pytest.mark.parametrize(("accuracy", "level"), [(0.7, "stop"), (0.86, "watch"), (0.97, "ok")])
def test_the_gate(accuracy, level):
    checked = gate(room([accuracy] * 4, 400))
    assert checked.verdict.level == level
    assert checked.passed == (level != "stop")


def test_a_gate_that_stops_names_raters_and_items_and_says_what_to_do():
    checked = gate(room([0.8, 0.8, 0.8, 0.45], 300))
    assert checked.verdict.level == "stop"
    assert checked.responsible == ("r3",)
    assert len(checked.items) == 10
    assert "Talk first to r3 (kappa " in checked.verdict.remedy
    assert f"Items {checked.items[0].item_id}, " in checked.verdict.remedy
    assert not checked.passed


def test_items_can_be_called_by_other_names_than_their_numbers():
    ballots = room([0.6] * 3, 100)
    first = gate(ballots).items[0].item_id
    assert "Items question seven, " in gate(ballots, item_names={first: "question seven"}).verdict.remedy


def test_a_table_of_codes_becomes_ballots_and_back():
    votes = np.array([[0, 2, -1], [1, -1, 2]])
    found = ballots_cast(votes, ["ann", "bob", "eve"])
    assert [(b.item_id, b.rater, b.choice) for b in found][:2] == [(0, "ann", "a"), (0, "bob", "b")]
    assert table_of(found).votes.tolist() == votes.tolist()


def test_where_nobody_stands_out_the_guide_is_to_blame():
    assert "No single rater stands out" in gate(room([0.68] * 5, 300)).verdict.remedy


def test_going_on_needs_a_reason_that_is_kept():
    ballots = room([0.6] * 3, 100)
    checked = gate(ballots, override="a pilot, thrown away afterwards")
    assert checked.passed
    assert checked.verdict.level == "watch"
    assert "Overridden: a pilot" in checked.verdict.message
    assert checked.verdict.figures["override"] == "a pilot, thrown away afterwards"
    with pytest.raises(GateError, match="no reason is given"):
        gate(ballots, override="  ")


def test_a_gate_without_shared_items_does_not_know():
    assert gate(said({1: "x a", 2: "y b"})).verdict.level == "watch"
    assert gate([]).report is None
