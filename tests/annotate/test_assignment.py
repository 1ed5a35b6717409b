from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from helpers.desk_of_raters import Desk, Settings
from hypothesis import given, settings
from hypothesis import strategies as st

from keel.annotate.assignment import choose, is_due, short_of_raters
from keel.store.candidates import Candidate, Candidates, Past

PLAIN = Settings(golden_share=0.0, repeat_share=0.0)


def asked(**fields):
    return Candidates(**{"user_id": 1, "role": "rater", **fields})


def items(*ids, **fields):
    return tuple(Candidate(item_id=i, **fields) for i in ids)


@st.composite
def desks(draw):
    """A small project with skills, golden items and raters who come in any order."""
    skills = st.sampled_from([(), (), ("law",), ("code",), ("code", "law")])
    num_items, num_raters = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    return Desk(
        items={i: draw(skills) for i in range(num_items)},
        raters={u: draw(skills) for u in range(num_raters)},
        golden={1000 + g: () for g in range(draw(st.integers(0, 6)))},
        settings=Settings(
            overlap=draw(st.integers(1, 4)),
            golden_share=draw(st.sampled_from([0.0, 0.05, 0.3])),
            repeat_share=draw(st.sampled_from([0.0, 0.03, 0.3])),
            repeat_after=draw(st.integers(0, 8)),
        ),
        seed=draw(st.integers(0, 2**31)),
        priority={i: draw(st.sampled_from([0.0, 1.0])) for i in range(num_items)},
    )


@settings(max_examples=60, deadline=None)
@given(desk=desks(), data=st.data())
def test_laws_of_assignment(desk, data):
    users = st.lists(st.sampled_from(sorted(desk.raters)), min_size=1, max_size=60)
    for user in data.draw(users):
        desk.give(user)
    desk.work(desk.raters)
    for user, mine in desk.given.items():
        first = [c.item_id for c in mine if c.purpose != "repeat"]
        assert len(first) == len(set(first)), "the same item twice"
        repeats = [c.item_id for c in mine if c.purpose == "repeat"]
        assert len(repeats) == len(set(repeats)), "repeated twice"
        for at, choice in enumerate(mine):
            if choice.purpose == "repeat":
                (before,) = [i for i, c in enumerate(mine) if c.item_id == choice.item_id and c.purpose == "judge"]
                assert at - before > desk.settings.repeat_after
                assert choice.swapped != mine[before].swapped
            elif choice.purpose == "judge":
                assert set(desk.items[choice.item_id]) <= set(desk.raters[user])
        for n in range(len(mine) + 1):
            assert abs(sum(c.swapped for c in mine[:n]) - n / 2) <= 2, "sides out of balance"
    votes = Counter(c.item_id for _, c in desk.tasks if c.purpose == "judge")
    for item, skills in desk.items.items():
        able = sum(set(skills) <= set(held) for held in desk.raters.values())
        assert votes[item] == min(desk.settings.overlap, able), "an item starves or has too many votes"


def test_twelve_raters_and_five_hundred_items_get_exactly_the_overlap():
    rng = np.random.default_rng(0)
    desk = Desk(
        items=dict.fromkeys(range(500), ()),
        raters=dict.fromkeys(range(12), ()),
        golden={1000 + g: () for g in range(60)},
    )
    speeds = rng.uniform(0.7, 1.4, 12)
    while desk.waiting:
        desk.give(int(rng.choice(12, p=speeds / speeds.sum())))
    votes = Counter(c.item_id for _, c in desk.tasks if c.purpose == "judge")
    assert set(votes.values()) == {3}
    assert len(votes) == 500
    swapped = Counter(c.item_id for _, c in desk.tasks if c.purpose == "judge" and c.swapped)
    both_ways = np.mean([swapped[i] in (1, 2) for i in range(500)])
    assert both_ways > 0.9, "items are seen from both sides"
    together = Counter(
        pair
        for item in range(500)
        for pair in combinations(sorted(u for u, c in desk.tasks if c.item_id == item and c.purpose == "judge"), 2)
    )
    assert len(together) == 66, "every two raters share items, so that each pair has a kappa"
    shares = Counter(c.purpose for _, c in desk.tasks)
    assert shares["golden"] / len(desk.tasks) == pytest.approx(0.05, abs=0.01)
    assert shares["repeat"] / len(desk.tasks) == pytest.approx(0.03, abs=0.01)


def test_experts_take_what_only_they_can_do_first():
    desk = Desk(
        items={i: ("law",) if i < 20 else () for i in range(200)}, raters={0: ("law",), 1: (), 2: ()}, settings=PLAIN
    )
    for _ in range(30):
        for user in desk.raters:
            desk.give(user)
    experts = [c.item_id for c in desk.given[0]]
    assert set(experts[:20]) == set(range(20))


@pytest.mark.parametrize(("share", "purpose"), [(0.05, "golden"), (0.03, "repeat"), (0.3, "golden"), (0.004, "golden")])
def test_due_tasks_make_up_their_share_and_come_at_unforeseeable_places(share, purpose):
    places, rates = Counter(), []
    size = round(1 / share)
    for seed in range(12):
        history = []
        for n in range(800):
            due = is_due(asked(given=n, history=tuple(history[:200])), purpose, share, seed)
            history.insert(0, Past(item_id=n, purpose=purpose if due else "judge", swapped=False))
            places[n % size] += due
        rates.append(np.mean([past.purpose == purpose for past in history]))
    assert np.mean(rates) == pytest.approx(share, rel=0.05)
    assert np.std(rates) < 0.15 * share
    assert max(places.values()) < 0.2 * sum(places.values()) or size < 10


def test_what_cannot_be_given_is_not_made_up_for_in_a_run_of_golden_items():
    history = tuple(Past(item_id=n, purpose="judge", swapped=False) for n in range(200))
    due = 0
    for n in range(400, 440):
        this = is_due(asked(given=n, history=history), "golden", 0.05, seed=3)
        history = (Past(item_id=1000 + n, purpose="golden" if this else "judge", swapped=False), *history)[:200]
        due += this
    assert due == 2


def test_a_share_of_nothing_and_of_everything():
    assert not any(is_due(asked(given=n), "golden", 0.0, 0) for n in range(50))
    assert all(is_due(asked(given=n), "golden", 1.0, 0) for n in range(50))


def test_items_get_done_rather_than_begun_and_urgent_ones_first():
    open_items = (*items(1, 2), *items(3, votes=1), *items(4, priority=5.0))
    assert choose(asked(open=open_items), PLAIN, 0).item_id == 3
    assert choose(asked(open=(*items(1, 2), *items(4, priority=5.0))), PLAIN, 0).item_id == 4


def test_an_item_with_skills_goes_only_to_raters_who_have_all_of_them():
    needy = items(1, skills=("code", "law"))
    assert choose(asked(open=needy, skills=("law",)), PLAIN, 0) is None
    assert choose(asked(open=needy, skills=("code", "law", "art")), PLAIN, 0).item_id == 1


def test_calibration_comes_first_and_each_rater_has_an_order_of_their_own():
    desk = Desk(items=dict.fromkeys(range(100), ()), raters=dict.fromkeys(range(8), ()), round=tuple(range(50)))
    for user in desk.raters:
        for _ in range(50):
            desk.give(user)
    assert {c.purpose for _, c in desk.tasks} == {"calibration"}
    assert all({c.item_id for c in mine} == set(range(50)) for mine in desk.given.values())
    assert len({tuple(c.item_id for c in mine) for mine in desk.given.values()}) == 8
    for item in range(50):
        swapped = sum(c.swapped for _, c in desk.tasks if c.item_id == item)
        assert 2 <= swapped <= 6


def test_a_rater_who_is_not_unlocked_gets_nothing_but_calibration():
    assert choose(asked(unlocked=False, open=items(1)), PLAIN, 0) is None
    assert choose(asked(unlocked=False, open=items(1), calibration=items(2)), PLAIN, 0).purpose == "calibration"


@pytest.mark.parametrize(
    ("role", "adjudicate", "purpose"),
    [
        ("senior", True, "adjudicate"),
        ("lead", True, "adjudicate"),
        ("rater", True, "judge"),
        ("senior", False, "judge"),
    ],
)
def test_disputes_go_to_those_who_may_settle_them(role, adjudicate, purpose):
    choice = choose(
        asked(role=role, open=items(1), disputes=items(2)),
        Settings(golden_share=0, repeat_share=0, adjudicate=adjudicate),
        0,
    )
    assert choice.purpose == purpose


def test_a_viewer_judges_nothing():
    assert choose(asked(role="viewer", open=items(1), calibration=items(2)), PLAIN, 0) is None


def test_golden_items_do_not_come_where_there_is_nothing_to_hide_them_among():
    assert choose(asked(golden=items(9)), Settings(golden_share=1.0), 0) is None
    assert choose(asked(open=items(1), golden=items(9)), Settings(golden_share=1.0), 0).purpose == "golden"


def test_a_repeat_is_an_item_that_can_be_compared_and_its_sides_change():
    history = tuple(Past(item_id=n, purpose="judge", swapped=n % 2 == 0, repeatable=n == 7) for n in range(30))
    choice = choose(
        asked(given=30, given_swapped=15, history=history, open=items(99)),
        Settings(repeat_share=1.0, repeat_after=5),
        0,
    )
    assert (choice.item_id, choice.purpose, choice.swapped) == (7, "repeat", True)
    early = Settings(repeat_share=1.0, repeat_after=10)
    assert choose(asked(given=30, given_swapped=15, history=history, open=items(99)), early, 0).purpose != "repeat"


def test_sides_swing_back_from_a_lopsided_past():
    assert choose(asked(given=10, given_swapped=8, open=items(1)), PLAIN, 0).swapped is False
    assert choose(asked(given=10, given_swapped=2, open=items(1)), PLAIN, 0).swapped is True
    assert choose(asked(open=items(1, votes=2, swapped=2)), PLAIN, 0).swapped is False


def test_the_same_question_has_the_same_answer():
    question = asked(open=items(*range(50)))
    assert len({choose(question, PLAIN, 3) for _ in range(5)}) == 1
    assert len({choose(question, PLAIN, seed).item_id for seed in range(40)}) > 15


def test_skills_that_too_few_have_are_named():
    raters = [("law",), ("law", "code"), ()]
    assert short_of_raters([(), ("code",), ("law",), ("code", "law")], raters, 2) == {("code",): 1, ("code", "law"): 1}
    assert short_of_raters([("law",)], raters, 2) == {}
