import json
from collections import Counter
from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from helpers.rating_rooms import HABITS, people, room

from keel.annotate.ballots import Ballot
from keel.annotate.consensus import majority, weighted
from keel.annotate.raters import rater_cards, rater_weights, too_fast
from keel.data.records import Vote


@pytest.fixture(scope="module")
def rooms():
    """Cards of four rooms of 9 good raters and one of each other kind, about 315 votes each: (kind, card)."""
    found = []
    for seed in range(4):
        ballots, gold, words = people(["good"] * 9 + list(HABITS[1:]), 2000, seed)
        found += [(card.rater.split("-")[0], card) for card in rater_cards(ballots, gold, words)]
    return found


@pytest.mark.parametrize(
    ("kind", "habit"),
    [
        ("left", "one_side"),
        ("tie", "one_answer"),
        ("adversarial", "contrary"),
        ("random", "random"),
        ("hasty", "hasty"),
        ("lazy", "hasty"),
        ("leaning", "side_bias"),
    ],
)
def test_raters_who_do_not_read_are_told_apart(rooms, kind, habit):
    assert Counter(card.habit for k, card in rooms if k == kind) == {habit: 4}


def test_tired_drifting_and_poor_raters_are_mostly_found_and_never_taken_for_something_graver(rooms):
    found = 0
    for kind, expected in (
        ("tired", {"tired", "apart", "fine"}),
        ("drifting", {"drifted", "fine", "inconsistent"}),
        ("fickle", {"apart", "inconsistent", "fine"}),
    ):
        habits = [card.habit for k, card in rooms if k == kind]
        assert set(habits) <= expected
        found += sum(habit != "fine" for habit in habits)
    assert found >= 6


def test_good_raters_are_left_alone(rooms):
    habits = [card.habit for kind, card in rooms if kind == "good"]
    assert habits.count("fine") >= 0.9 * len(habits)
    assert all(card.usable for kind, card in rooms if kind == "good")


def test_cards_that_need_attention_come_first_and_are_plain_json():
    ballots, gold, words = people(["good", "good", "left", "good"], 200)
    cards = rater_cards(ballots, gold, words)
    assert [card.habit for card in cards] == ["one_side", "fine", "fine", "fine"]
    plain = json.loads(json.dumps([card.to_dict() for card in cards], allow_nan=False))
    assert plain[0]["advice"].startswith("Chose the left answer in 9")
    assert plain[1]["drift"]["level"] == "ok"


def test_every_advice_is_one_sentence(rooms):
    for _, card in rooms:
        assert card.advice.endswith(".")
        assert ". " not in card.advice, card.advice


def test_whoever_does_not_read_does_not_lower_the_others():
    honest = people(["good"] * 4, 300, seed=1)
    spoilt = people(["good"] * 4 + ["random"] * 2, 300, seed=1)
    kappas = [
        [card.kappa.value for card in rater_cards(*told) if card.rater.startswith("good")] for told in (honest, spoilt)
    ]
    assert sum(kappas[1]) / 4 == pytest.approx(sum(kappas[0]) / 4, abs=0.08)


def test_few_votes_say_nothing():
    (card, *_) = rater_cards(room([0.5, 0.9, 0.9], 20, missing=0.0))
    assert card.habit == "unknown"
    assert card.advice == "Only 20 votes so far: too few to say anything."


def test_a_lone_rater_has_a_card_without_agreement():
    (card,) = rater_cards(room([0.9], 60, missing=0.0))
    assert isnan(card.kappa.value)
    assert card.habit == "fine"
    assert rater_cards([]) == []


def test_shares_of_ties_skips_and_gold():
    ballots = [
        Ballot(rater="x", item_id=1, choice="tie"),
        Ballot(rater="x", item_id=2, choice="skip"),
        Ballot(rater="x", item_id=3, choice="a", purpose="golden"),
        Ballot(rater="x", item_id=4, choice="a", purpose="golden"),
        Ballot(rater="x", item_id=5, choice="skip", purpose="golden"),
        Ballot(rater="x", item_id=6, choice="b", purpose="adjudicate"),
    ]
    (card,) = rater_cards(ballots, {3: "a", 4: "b", 5: "a"})
    assert (card.num_votes, card.num_gold, card.gold_accuracy.value) == (1, 2, 0.5)
    assert card.tie_share == pytest.approx(1 / 3)
    assert card.skip_share == pytest.approx(2 / 5)


def test_repeats_are_compared_with_the_first_answer():
    first = [Ballot(rater="x", item_id=n, choice="a") for n in range(4)]
    again = [Ballot(rater="x", item_id=n, choice="b" if n == 0 else "a", purpose="repeat") for n in range(3)]
    (card,) = rater_cards([*first, *again])
    assert (card.repeats.num_repeats, card.repeats.agreement.value) == (3, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("seconds", "words", "fast"), [(0.5, 3, True), (0.8, 3, False), (9.0, 150, True), (11.0, 150, False)]
)
def test_faster_than_anybody_reads(seconds, words, fast):
    assert too_fast(seconds, words) == fast


def test_weights_follow_kappa_shrunken_and_the_lead():
    ballots = [b for b in room([0.95, 0.95, 0.95, 0.75], 400) if b.rater != "r9"]
    cards = rater_cards(
        [
            *ballots,
            *[replace(b, rater="spam", choice="a" if not b.swapped else "b") for b in ballots if b.rater == "r0"],
        ]
    )
    weights = rater_weights(cards, {"r1": 2.0})
    assert weights["spam"] == 0
    assert weights["r3"] < 0.8 < weights["r0"] < 1.3
    assert weights["r1"] == pytest.approx(2 * weights["r0"], rel=0.2)


def test_votes_weighted_by_the_cards_name_the_better_answer_more_often_than_a_plain_majority():
    habits = [*["good"] * 5, *["random"] * 2, "adversarial", "left", "fickle"]
    right = {"majority": [], "weighted": []}
    for seed in range(4):
        ballots, gold, words = people(habits, 400, seed)
        truth = np.random.default_rng(seed).random(900) < 0.5  # as `people` draws it
        weights = rater_weights(rater_cards(ballots, gold, words))
        cast = {}
        for ballot in ballots:
            if ballot.purpose == "judge":
                cast.setdefault(ballot.item_id, []).append(Vote(ballot.rater, ballot.choice))
        for item, votes in cast.items():
            for method, found in (("majority", majority(votes)), ("weighted", weighted(votes, weights))):
                right[method].append(0.5 + np.sign(found.preference - 0.5) * (truth[item] - 0.5))
    assert np.mean(right["weighted"]) > np.mean(right["majority"]) + 0.05, {m: np.mean(r) for m, r in right.items()}
