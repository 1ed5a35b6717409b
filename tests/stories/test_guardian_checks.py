"""Judges who look at a policy while it is trained: asked in time, within the budget, heard once."""

from collections import Counter

import pytest
from helpers.guarded_stories import PEOPLE, WORDY, actions, alarmed
from helpers.interrupted import attempt, killed_at
from helpers.recipes import Ran, Workplace

from keel.core.errors import TrainingError
from keel.core.events import read_events
from keel.store.queue import Queue

HEALTHY = {"kl_stop_per_sequence": 1e6}
EVERY_SECOND = {"every": 2, "pairs": 4, "label_budget": 1000}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("checked"))
    place.write("people.py", PEOPLE)
    return place


def run(place: Workplace, to: str, checks: dict, **guardian) -> Ran:
    """8 updates, no alarm but where the test asks for one."""
    settings = {"mode": "advise", **guardian, "checks": checks}
    return place.run(to=to, **alarmed(ppo={"updates": 8}, guardian=settings, thresholds=HEALTHY))


def test_judges_are_asked_in_time_and_within_the_budget_to_the_label(place):
    ran = run(place, "budget", {"judge": "people.py:judge", "every": 2, "pairs": 4, "label_budget": 10})
    asked = ran.events("asked")
    assert [e["step"] for e in asked[:2]] == [2, 4]
    queue = Queue(ran.directory / "judging.sqlite")
    done, every = queue.progress("python")
    assert done == every == sum(e["pairs"] for e in asked) <= 10
    assert ran.events("checked")[-1]["labels_spent"] == done
    spent = [e["labels_spent"] for e in asked]
    assert spent == sorted(spent)
    exact = run(place, "exact", {"judge": "people.py:judge", "every": 2, "pairs": 4, "label_budget": 8})
    assert sum(e["pairs"] for e in exact.events("asked")) <= 8
    nobody = run(place, "nobody", {"judge": "people.py:judge", "every": 2, "pairs": 4, "label_budget": 3})
    assert nobody.events("asked") == nobody.events("checked") == []


def test_both_sides_are_taken_and_no_judge_is_told_which_is_whose(place):
    ran = run(place, "sides", {"judge": "people.py:judge", "every": 1, "pairs": 6, "label_budget": 1000})
    queue = Queue(ran.directory / "judging.sqlite")
    folder = next(path.name for path in (ran.directory / "artifacts").glob("ppo-*"))
    sides = Counter(verdict.policy_side for verdict in queue.verdicts(folder, "ppo", 8))
    assert min(sides["left"], sides["right"]) >= 0.25 * sides.total()


def test_more_pairs_than_prompts_are_pairs_of_different_samples(place):
    ran = place.run(
        to="few",
        **alarmed(
            ppo={"updates": 2, "evaluate_prompts": 2},
            guardian={"checks": {"every": 2, "pairs": 6}},
            thresholds=HEALTHY,
        ),
    )
    pending = Queue(ran.directory / "judging.sqlite").pending()
    assert len({question.prompt for question in pending}) == 2
    assert len({(question.left, question.right) for question in pending}) == len(pending) == 6


def test_a_judge_that_fails_is_told_of_and_the_run_goes_on(place):
    ran = run(place, "away", {**EVERY_SECOND, "judge": "people.py:away"})
    assert len(ran.events("step")) == 8
    said = [v for v in ran.events("verdict") if v["rule"] == "judge_failed"]
    assert [v["step"] for v in said] == [2]
    assert "the service is away" in said[0]["message"]
    assert all(e["labels_spent"] == 0 for e in ran.events("checked"))  # equal answers are ties without a judge


def test_a_judge_that_returns_something_else_ends_the_run_with_its_name(place):
    with pytest.raises(TrainingError, match=r"ppo: guardian\.checks\.judge returned 'left', which is no Comparison"):
        run(place, "rubbish", {**EVERY_SECOND, "judge": "people.py:rubbish"})


def test_people_who_never_answer_hold_nothing_up(place):
    ran = run(place, "silent", EVERY_SECOND)
    assert len(ran.events("step")) == 8
    said = [v for v in ran.events("verdict") if v["rule"] == "judges_silent"]
    assert [v["step"] for v in said] == [4]
    waiting = Queue(ran.directory / "judging.sqlite").pending("ann")
    assert len(waiting) == sum(e["pairs"] for e in ran.events("asked"))


def test_advice_to_ask_asks_nobody(place):
    """A doubt between two checks: only a guardian that may act spends labels on it."""
    checks = {"judge": "people.py:judge", "every": 100, "pairs": 4}
    lines = {**HEALTHY, "ref_perplexity_watch": 1e-4, "ref_perplexity_act": 1e-3}
    found = {}
    for mode in ("advise", "act"):
        found[mode] = place.run(
            to=mode,
            **alarmed(ppo={"updates": 10}, guardian={"mode": mode, "checks": checks}, thresholds=lines),
        )
    asked = {mode: [a for a in actions(ran) if a["action"] == "ask_humans"] for mode, ran in found.items()}
    assert asked["advise"] == []
    assert asked["act"]
    assert found["advise"].events("asked") == []
    assert all(action["taken"] for action in asked["act"])
    assert [e["step"] for e in found["act"].events("asked")] == [action["step"] for action in asked["act"]]


def test_an_alarm_brings_what_verdicts_make_of_the_score_and_later_checks_refine_it(place):
    ran = place.run(to="corrected", **alarmed(**WORDY))
    corrected = [a for a in actions(ran) if "correction" in a]
    first, later = corrected[0], [a for a in corrected if a["action"] == "correct_reward"]
    assert (first["action"], first["before"]["correction"]) == ("roll_back", "score alone")
    assert first["after"]["correction"].startswith("score ")
    assert later
    spent = [a["correction"]["verdicts"] for a in later]
    assert spent == sorted(set(spent))
    assert spent[0] > first["correction"]["verdicts"] >= 30
    steps = ran.events("step")
    assert all(("corrected_score_mean" in s) == (s["step"] > first["step"]) for s in steps)
    measured = [e["step"] for e in ran.events("evaluated")]
    assert all(a["step"] in measured for a in later)  # the policy to beat is measured by the new reward


def test_a_reward_stays_the_score_where_the_recipe_wants_that(place):
    settings = {**WORDY["guardian"], "actions": {"correct_reward": False}}
    ran = place.run(to="score alone", **alarmed(ppo=WORDY["ppo"], guardian=settings))
    assert any(a["action"] == "roll_back" for a in actions(ran))
    assert all("correction" not in a for a in actions(ran))
    assert all("corrected_score_mean" not in s for s in ran.events("step"))


def test_checks_are_further_apart_the_fewer_labels_are_left(place):
    checks = {"judge": "people.py:judge", "every": 1, "pairs": 4, "label_budget": 12}
    asked = {e["step"]: e["pairs"] for e in run(place, "spaced", checks).events("asked")}
    spent, expected = 0, []
    for step in range(1, 9):
        apart = 1 if spent < 6 else 2 if spent < 9 else 4
        if spent + 4 <= 12 and step % apart == 0:
            expected.append(step)
            spent += asked.get(step, 0)
    assert list(asked) == expected
    assert expected[-1] - expected[-2] > 1


def test_what_people_answer_while_a_run_is_down_is_heard_once_at_the_next_check(tmp_path):
    Workplace(tmp_path).write("people.py", PEOPLE)
    checks = {"every": 3, "pairs": 4}
    changes = alarmed(
        guardian={"mode": "advise", "checks": checks}, thresholds=HEALTHY, checkpoint={"every_seconds": 0}
    )
    log = tmp_path / "run" / "events.jsonl"

    def told(event: str) -> list[dict]:
        return [e for e in read_events(log) if e["event"] == event]

    def killed_after_check(number: int) -> None:
        moments = 40
        while len(told("asked")) < number:
            assert killed_at(tmp_path, "run", changes, moments)
            moments += 20  # what comes before the first checkpoint has to fit in

    killed_after_check(1)
    assert [e["step"] for e in told("asked")] == [3]
    queue = Queue(tmp_path / "run" / "judging.sqlite")
    for question in queue.pending("ann"):
        queue.answer(question.id, "ann", "left")
    killed_after_check(2)
    first = told("checked")
    for question in queue.pending("ann"):
        queue.answer(question.id, "ann", "right")
    assert attempt(tmp_path, "run", changes)
    heard = told("checked")
    assert [e["step"] for e in told("asked")] == [3, 6, 9]
    assert [e["step"] for e in heard] == [6, 9]
    assert [e["verdicts"] for e in heard] == [4, 4]
    assert [e["labels_spent"] for e in heard] == [4, 8]
    assert {**heard[0], "time": 0} == {**first[0], "time": 0} if first else True
    assert len(told("step")) == 10
