from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from helpers.desk_of_raters import Desk, candidates
from hypothesis import given, settings
from hypothesis import strategies as st

from keel.annotate.assignment import b_on_the_left, choose, is_due, short_of_raters
from keel.store.rows import Candidate
from keel.store.settings import ProjectSettings

PLAIN = ProjectSettings(golden_share=0.0, repeat_share=0.0)


def items(*ids, **fields):
    return tuple(Candidate(**{"item_id": i, "skills": (), "priority": 0.0, "missing": 3, **fields}) for i in ids)


@st.composite
def desks(draw):
    """A small project with skills, golden items and raters who come in any order."""
    skills = st.sampled_from([(), (), ("law",), ("code",), ("code", "law")])
    num_items, num_raters = draw(st.integers(1, 40)), draw(st.integers(1, 8))
    return Desk(
        items={i: draw(skills) for i in range(num_items)},
        raters={u: draw(skills) for u in range(num_raters)},
        golden={1000 + g: () for g in range(draw(st.integers(0, 6)))},
        settings=ProjectSettings(
            overlap=draw(st.integers(1, 4)),
            golden_share=draw(st.sampled_from([0.0, 0.05, 0.3])),
            repeat_share=draw(st.sampled_from([0.0, 0.03, 0.3])),
            repeat_after=draw(st.integers(1, 8)),
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
            assert abs(sum(c.swapped for c in mine[:n]) - n / 2) <= 0.5, "sides out of balance"
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
    assert both_ways > 0.76, "by chance 3 in 4 items are seen from both sides"
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
def test_due_tasks_make_up_their_share_and_come_at_places_that_nobody_foresees(share, purpose):
    due = np.array([[is_due(purpose, share, n, rater, 0) for n in range(1500)] for rater in range(12)])
    assert due.mean() == pytest.approx(share, rel=0.05)
    assert due.sum(axis=1).std() <= 1, "every rater gets as many"
    if share == 0.05:
        gaps = np.diff(np.flatnonzero(due[0]))
        assert gaps.std() > 5
        assert gaps.max() < 40
        places = np.bincount(np.nonzero(due)[1] % 20, minlength=20)
        assert places.min() > 0.6 * places.mean()


def test_a_share_of_nothing_and_of_everything():
    assert not any(is_due("golden", 0.0, n, 1, 0) for n in range(50))
    assert all(is_due("golden", 1.0, n, 1, 0) for n in range(50))


def test_items_get_done_rather_than_begun_and_urgent_ones_first():
    begun = (*items(1, 2), *items(3, missing=1), *items(4, priority=5.0))
    assert choose(candidates(open=begun), PLAIN, 0).item_id == 3
    assert choose(candidates(open=(*items(1, 2), *items(4, priority=5.0))), PLAIN, 0).item_id == 4
    assert choose(candidates(open=items(1, missing=0)), PLAIN, 0) is None


def test_an_item_with_skills_goes_only_to_raters_who_have_all_of_them():
    needy = items(1, skills=("code", "law"))
    assert choose(candidates(open=needy, skills=("law",)), PLAIN, 0) is None
    assert choose(candidates(open=needy, skills=("code", "law", "art")), PLAIN, 0).item_id == 1


def test_what_lies_before_the_rater_is_not_given_again():
    assert choose(candidates(open=items(1, 2), in_view=(1,)), PLAIN, 0).item_id == 2
    assert choose(candidates(calibration=items(1, 2), in_view=(1,)), PLAIN, 0).item_id == 2
    assert choose(candidates(calibration=items(1), in_view=(1,), open=items(2)), PLAIN, 0) is None


def test_calibration_comes_first_and_each_rater_has_an_order_of_their_own():
    desk = Desk(items=dict.fromkeys(range(100), ()), raters=dict.fromkeys(range(8), ()), round=tuple(range(50)))
    for user in desk.raters:
        for _ in range(50):
            desk.give(user)
    assert {pick.purpose for _, pick in desk.tasks} == {"calibration"}
    assert all({pick.item_id for pick in mine} == set(range(50)) for mine in desk.given.values())
    assert len({tuple(pick.item_id for pick in mine) for mine in desk.given.values()}) == 8
    assert all(sum(pick.swapped for pick in mine) == 25 for mine in desk.given.values())


def test_disputes_come_before_other_work_the_urgent_first_unless_nobody_is_to_settle_them():
    asked = candidates(role="senior", open=items(1), disputes=(*items(2), *items(3, priority=1.0)))
    settling = PLAIN.model_copy(update={"adjudicate": True})
    assert (choose(asked, settling, 0).item_id, choose(asked, settling, 0).purpose) == (3, "adjudicate")
    assert choose(asked, PLAIN.model_copy(update={"adjudicate": False}), 0).purpose == "judge"


def test_golden_items_do_not_come_where_there_is_nothing_to_hide_them_among():
    always = ProjectSettings(golden_share=0.5, repeat_share=0)
    assert all(choose(candidates(golden=items(9), given={"judge": n}), always, 0) is None for n in range(4))
    asked = [candidates(open=items(1), golden=items(9), given={"judge": n}) for n in range(4)]
    assert sorted(choose(one, always, 0).purpose for one in asked) == ["golden", "golden", "judge", "judge"]


def test_a_repeat_turns_the_sides_and_does_not_pull_them_apart():
    often = ProjectSettings(repeat_share=0.5, golden_share=0)
    past = (*items(7, missing=0, swapped_before=True), *items(8, missing=0, swapped_before=False))
    for n in range(40):
        pick = choose(candidates(open=items(1), repeats=past, given={"judge": n}), often, 0)
        assert pick.swapped == b_on_the_left(n, 1, 0)
        assert pick.purpose == "judge" or (pick.item_id, pick.swapped) in {(7, False), (8, True)}
        if not pick.swapped:
            one_way = candidates(open=items(1), repeats=past[1:], given={"judge": n})
            assert choose(one_way, often, 0).purpose == "judge"


def test_of_every_two_tasks_one_is_swapped_and_a_coin_says_which():
    sides = [b_on_the_left(n, 5, 3) for n in range(2000)]
    assert all(first != second for first, second in zip(sides[::2], sides[1::2], strict=True))
    assert 430 < sum(sides[::2]) < 570


def test_of_equally_urgent_items_one_takes_its_turn_to_stand_the_other_way():
    turns = [choose(candidates(open=items(*range(12)), given={"judge": n}), PLAIN, 0) for n in range(40)]
    by_side = {side: {pick.item_id for pick in turns if pick.swapped == side} for side in (False, True)}
    assert not by_side[False] & by_side[True]


def test_the_same_question_has_the_same_answer():
    question = candidates(open=items(*range(50)))
    assert len({choose(question, PLAIN, 3) for _ in range(5)}) == 1
    assert len({choose(question, PLAIN, seed).item_id for seed in range(40)}) > 15


def test_skills_that_too_few_have_are_named():
    raters = [("law",), ("law", "code"), ()]
    assert short_of_raters([(), ("code",), ("law",), ("code", "law")], raters, 2) == {("code",): 1, ("code", "law"): 1}
    assert short_of_raters([("law",)], raters, 2) == {}
