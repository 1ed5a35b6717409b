import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.rating_rooms import room

from keel.annotate.calibration import close_round, left_to_do, measure_newcomer, new_round, next_step
from keel.core.errors import ConflictError, DataError
from keel.store.rows import Item, Round
from keel.store.settings import ProjectSettings

SETTINGS = ProjectSettings()
RATERS = [f"r{k}" for k in range(6)]
SKILLS = {rater: ("law",) if rater == "r0" else () for rater in RATERS}


def item(number, **fields):
    plain = {"project_id": 1, "key": str(number), "prompt": "p" * number, "a": "x", "b": "y", "kind": "pair"}
    plain |= {"gold": None, "skills": (), "priority": 0.0, "provenance": {}, "created": 0.0, "removed": None}
    return Item(**{"id": number, **plain, **fields})


def round_of(item_ids=range(50), **fields):
    plain = {"id": 1, "project_id": 1, "number": 1, "guide_version": 1, "state": "open", "opened": 0.0, "closed": None}
    return Round(**{**plain, "item_ids": tuple(item_ids), "figures": {}, **fields})


def calibrated(accuracies, seed=0, num_items=50):
    votes = room(accuracies, num_items, seed, missing=0.0, ties=0.05)
    return [replace(ballot, purpose="calibration", round_id=1, rationale="so it is") for ballot in votes]


ITEMS = [item(n) for n in range(1, 201)]


def test_from_the_first_round_to_the_unlocked_project():
    steps = [next_step([], 0, {}, SETTINGS)[0], next_step([], 1, {}, SETTINGS)[0]]
    first = new_round([], 1, ITEMS, SKILLS, SETTINGS, seed=0)
    assert (first.number, first.guide_version, len(set(first.item_ids))) == (1, 1, 50)
    opened = round_of(first.item_ids)
    votes = [replace(b, item_id=first.item_ids[b.item_id]) for b in calibrated([0.75] * 6)]
    part = [b for b in votes if not (b.rater == "r3" and b.item_id in first.item_ids[:7])]
    left = left_to_do(opened, part, RATERS)
    assert left == {**dict.fromkeys(RATERS, 0), "r3": 7}
    steps.append(next_step([opened], 1, left, SETTINGS)[0])
    with pytest.raises(ConflictError, match=r"r3 has 7 of 50 left. Wait for them, or close it without them by name"):
        close_round(opened, part, RATERS, SETTINGS)
    steps.append(next_step([opened], 1, left_to_do(opened, votes, RATERS), SETTINGS)[0])
    result = close_round(opened, votes, RATERS, SETTINGS)
    assert not result.passed
    assert result.unlocked == ()
    assert result.alpha.low < result.alpha.value < 0.6
    failed = replace(opened, state="failed", closed=9.0, figures=result.to_dict())
    steps.append(next_step([failed], 1, {}, SETTINGS)[0])
    with pytest.raises(ConflictError, match="failed with version 1 of the guide, which has not changed since"):
        new_round([failed], 1, ITEMS, SKILLS, SETTINGS, seed=0)
    steps.append(next_step([failed], 2, {}, SETTINGS)[0])
    second = new_round([failed], 2, ITEMS, SKILLS, SETTINGS, seed=0)
    assert second.number == 2
    assert not set(second.item_ids) & set(first.item_ids)
    again = round_of(second.item_ids, id=2, number=2, guide_version=2)
    better = [replace(b, item_id=second.item_ids[b.item_id], round_id=2) for b in calibrated([0.97] * 6)]
    result = close_round(again, [*votes, *better], RATERS, SETTINGS)
    assert result.passed
    assert result.unlocked == tuple(RATERS)
    passed = replace(again, state="passed", closed=99.0)
    steps.append(next_step([failed, passed], 2, {}, SETTINGS)[0])
    assert steps == ["write_guide", "open_round", "wait", "close_round", "change_guide", "open_round", "done"]


@pytest.mark.parametrize(
    ("rounds", "guide", "raters", "message"),
    [
        ([], 0, SKILLS, "There is no guide yet"),
        ([round_of()], 1, SKILLS, "round 1 is still open. Close it"),
        ([round_of(state="passed")], 1, SKILLS, "after a change of the guide"),
        ([], 1, {"r0": ()}, "this project has 1 active. Invite others"),
    ],
)
def test_a_step_out_of_turn_says_what_to_do(rounds, guide, raters, message):
    with pytest.raises(ConflictError, match=message):
        new_round(rounds, guide, ITEMS, raters, SETTINGS, 0)


def test_closing_twice_and_closing_with_one_rater_are_refused():
    with pytest.raises(ConflictError, match=r"closed already \(passed\)"):
        close_round(round_of(state="passed"), [], RATERS, SETTINGS)
    with pytest.raises(ConflictError, match="votes of 1 rater"):
        close_round(round_of(), calibrated([0.9]), ["r0"], SETTINGS)


def test_too_few_items_are_counted():
    with pytest.raises(DataError, match=r"there are 40. Import 10 more, or set calibration_items to 40"):
        new_round([], 1, ITEMS[:40], SKILLS, SETTINGS, 0)


def test_items_of_a_round_suit_everybody_are_new_and_spread_over_lengths():
    unsuited = [
        item(301, skills=("law",)),
        item(302, kind="golden", gold="a"),
        item(303, removed=5.0),
        item(304, votes=2),
    ]
    rounds = [new_round([], 1, [*ITEMS, *unsuited], SKILLS, SETTINGS, seed) for seed in range(30)]
    chosen = [item_id for drawn in rounds for item_id in drawn.item_ids]
    assert max(chosen) <= 200
    assert all(max(np.diff(sorted(drawn.item_ids))) <= 7 for drawn in rounds), "one of every four lengths"
    assert len(set(chosen)) > 190, "which one, the seed decides"
    assert rounds[0] == new_round([], 1, [*ITEMS, *unsuited][::-1], SKILLS, SETTINGS, 0)


def test_items_made_for_calibration_are_taken_first():
    own = [item(n, kind="calibration") for n in range(400, 460)]
    assert min(new_round([], 1, [*ITEMS, *own], SKILLS, SETTINGS, 0).item_ids) >= 400


def test_a_rater_clearly_below_is_locked_and_the_others_go_on():
    result = close_round(round_of(), calibrated([0.97] * 5 + [0.5]), RATERS, SETTINGS)
    assert result.passed
    assert result.need_help == ("r5",)
    assert result.unlocked == tuple(RATERS[:5])
    assert result.alpha.value > result.alpha_of_all.value
    assert "Still locked and in need of help: r5" in result.message
    (helped,) = [rater for rater in result.raters if not rater.passed]
    assert "unrelated to those of the others" in helped.advice


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        (lambda said, n: {"a": "b", "b": "a"}.get(said, said), "the other way round"),
        (lambda said, n: "tie" if n % 8 else said, "Calls a tie far more often"),
    ],
)
def test_advice_names_the_habit(change, advice):
    votes = [
        replace(b, choice=change(b.choice, b.item_id)) if b.rater == "r5" else b for b in calibrated([0.99] * 6, seed=3)
    ]
    result = close_round(round_of(), votes, RATERS, SETTINGS)
    assert advice in next(r.advice for r in result.raters if r.rater == "r5")


def test_when_most_are_below_nobody_is_unlocked():
    result = close_round(round_of(), calibrated([0.97] * 2 + [0.5] * 4), RATERS, SETTINGS)
    assert not result.passed
    assert result.unlocked == ()
    assert result.alpha == result.alpha_of_all


def test_raters_not_waited_for_stay_locked():
    votes = [b for b in calibrated([0.97] * 6) if not (b.rater == "r2" and b.item_id > 3)]
    result = close_round(round_of(), votes, RATERS, SETTINGS, left_out=["r2"])
    assert result.left_out == ("r2",)
    assert "r2" not in result.unlocked
    assert len(result.unlocked) == 5


def test_disagreements_come_with_choices_and_reasons_the_most_disputed_first():
    figures = json.loads(json.dumps(close_round(round_of(), calibrated([0.85] * 6), RATERS, SETTINGS).to_dict()))
    shares = [item["contribution"] for item in figures["disagreements"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert {voice["rationale"] for item in figures["disagreements"] for voice in item["said"]} == {"so it is"}


def test_a_round_where_all_say_the_same_shows_nothing():
    votes = [replace(b, choice="a") for b in calibrated([0.9] * 3)]
    result = close_round(round_of(), votes, RATERS[:3], SETTINGS)
    assert not result.passed
    assert "all votes say the same" in result.message


def test_good_rooms_pass_and_poor_ones_do_not():
    passed = {
        accuracy: np.mean(
            [close_round(round_of(), calibrated([accuracy] * 6, s), RATERS, SETTINGS).passed for s in range(6)]
        )
        for accuracy in (0.8, 0.96)
    }
    assert passed[0.8] == 0
    assert passed[0.96] == 1


def test_a_newcomer_is_measured_against_those_who_passed():
    passed = round_of(state="passed")
    votes = calibrated([0.97] * 5 + [0.5])
    assert measure_newcomer(passed, votes, "r4", RATERS[:4], SETTINGS).passed
    refused = measure_newcomer(passed, votes, "r5", RATERS[:4], SETTINGS)
    assert not refused.passed
    assert refused.advice
    with pytest.raises(ConflictError, match="has 50 of 50 items of round 1 left"):
        measure_newcomer(passed, votes, "new", RATERS, SETTINGS)
    with pytest.raises(ConflictError, match="was not passed"):
        measure_newcomer(round_of(), votes, "r5", RATERS, SETTINGS)
