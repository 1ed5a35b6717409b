"""A rater's work over the API: pairs, judgments, undo, and what a rater does not learn."""

import json
import time

import pytest
from helpers.studio import Studio, pairs

from keel.store.rows import NewItem


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path / "studio.sqlite", golden_share=0.0, repeat_share=0.0)


def judged(person, number, **more):
    task = person.ask("POST", "/projects/p/next", {})["task"]
    body = {"lease": task["lease"], "choice": "left", "seconds": 2.0, "client_key": f"key-{person.name}-{number}"}
    return task, person.ask("POST", "/projects/p/judgments", {**body, **more})


def number_of(task):
    return int(task["prompt_text"].removeprefix("Question ").removesuffix("?"))


def test_the_same_pair_comes_until_it_is_judged_and_then_another(studio):
    studio.add_items(pairs(5))
    rater = studio.person("rater")
    first = rater.ask("POST", "/projects/p/next", {})["task"]
    assert rater.ask("POST", "/projects/p/next", {})["task"] == first
    judged(rater, 1)
    assert rater.ask("POST", "/projects/p/next", {})["task"]["lease"] != first["lease"]


def test_pairs_ahead_are_different_ones_and_stay_the_same(studio):
    studio.add_items(pairs(10))
    rater = studio.person("rater")
    offer = rater.ask("POST", "/projects/p/next", {"ahead": 3})
    leases = [task["lease"] for task in offer["tasks"]]
    assert len(set(leases)) == 4
    assert offer["task"] == offer["tasks"][0]
    assert [task["lease"] for task in rater.ask("POST", "/projects/p/next", {"ahead": 3})["tasks"]] == leases
    assert offer["progress"] == {"done": 0, "left": 10, "today": 0}


def test_nothing_is_left_for_who_has_judged_all_though_others_have_not(studio):
    studio.add_items(pairs(2))
    rater = studio.person("rater")
    for number in range(2):
        judged(rater, number)
    offer = rater.ask("POST", "/projects/p/next", {"ahead": 3})
    assert (offer["task"], offer["progress"]["left"], offer["progress"]["done"]) == (None, 0, 2)


def test_a_judgment_sent_twice_counts_once(studio):
    studio.add_items(pairs(5))
    rater = studio.person("rater")
    task, saved = judged(rater, 1)
    body = {"lease": task["lease"], "choice": "left", "seconds": 2.0, "client_key": "key-rater-1"}
    again = rater.ask("POST", "/projects/p/judgments", body)
    assert again["judgment"] == saved["judgment"]
    assert again["progress"]["done"] == 1


def test_left_and_right_become_the_items_own_a_and_b(studio):
    studio.add_items(pairs(12))
    rater, lead = studio.person("rater"), studio.person("lead")
    lead.ask("PATCH", "/projects/p", {"settings": {"overlap": 1}})
    shown = {}
    for number in range(12):
        task, _ = judged(rater, number)
        shown[task["prompt_text"]] = task["left_text"]
    items = lead.ask("GET", "/projects/p/items")["items"]
    assert {item["judgments"][0]["choice"] for item in items} == {"a", "b"}
    for item in items:
        assert item[item["judgments"][0]["choice"]] == shown[item["prompt"]]


def test_undo_brings_the_pair_back_and_leaves_no_vote(studio):
    studio.add_items(pairs(5))
    rater, lead = studio.person("rater"), studio.person("lead")
    task, _ = judged(rater, 1)
    back = rater.ask("POST", "/projects/p/undo", {"client_key": "key-rater-1"})
    assert back["task"]["lease"] == task["lease"]
    assert back["progress"]["done"] == 0
    assert all(item["votes"] == 0 for item in lead.ask("GET", "/projects/p/items")["items"])
    body = {"lease": task["lease"], "choice": "right", "client_key": "key-rater-1b"}
    assert rater.ask("POST", "/projects/p/judgments", body)["judgment"]["choice"] == "right"
    late = rater.ask("POST", "/projects/p/judgments", {**body, "client_key": "key-rater-1"}, status=200)
    assert late["judgment"]["lease"] == task["lease"]


def test_what_is_released_goes_to_others(studio):
    studio.add_items(pairs(1))
    rater = studio.person("rater")
    rater.ask("POST", "/projects/p/next", {})
    rater.ask("POST", "/projects/p/release", {})
    studio.person("lead").ask("PATCH", "/projects/p", {"settings": {"overlap": 1}})
    assert studio.person("senior").ask("POST", "/projects/p/next", {})["task"]


def test_a_rater_cannot_touch_anothers_lease(studio):
    studio.add_items(pairs(3))
    task = studio.person("rater").ask("POST", "/projects/p/next", {})["task"]
    body = {"lease": task["lease"], "choice": "left", "client_key": "somebody-else"}
    senior = studio.person("senior")
    taken = senior.ask("POST", "/projects/p/judgments", body, status=404)
    unknown = senior.ask("POST", "/projects/p/judgments", {**body, "lease": 12345}, status=404)
    assert taken["error"]["message"].replace(str(task["lease"]), "N") == unknown["error"]["message"].replace(
        "12345", "N"
    )
    senior.ask("POST", "/projects/p/release", {"lease": task["lease"]}, status=404)
    judged(studio.person("rater"), 1)
    senior.ask("POST", "/projects/p/undo", {"client_key": "key-rater-1"}, status=404)


def test_what_a_project_does_not_ask_for_is_refused(studio):
    studio.add_items(pairs(3))
    rater = studio.person("rater")
    studio.person("lead").ask("PATCH", "/projects/p", {"settings": {"ties": False, "both_bad": False}})
    task = rater.ask("POST", "/projects/p/next", {})["task"]
    body = {"lease": task["lease"], "client_key": "refused-1"}
    for choice in ("tie", "both_bad"):
        refused = rater.ask("POST", "/projects/p/judgments", {**body, "choice": choice}, status=422)
        assert refused["error"]["field"] == "choice"
    strength = rater.ask("POST", "/projects/p/judgments", {**body, "choice": "left", "strength": 2}, status=422)
    assert strength["error"]["field"] == "strength"
    assert rater.ask("POST", "/projects/p/judgments", {**body, "choice": "left"})


def test_golden_items_look_like_all_others_and_tell_nothing(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", golden_share=0.5, repeat_share=0.0)
    studio.add_items([*pairs(30), *(NewItem(prompt=f"Gold {n}", a="yes", b="no", gold="a") for n in range(10))])
    rater = studio.person("rater")
    golden = 0
    for number in range(20):
        task, _ = judged(rater, number)
        golden += task["prompt_text"].startswith("Gold")
        assert task["purpose"] == "judge"
        assert not {"gold", "provenance", "swapped", "kind", "golden"} & task.keys()
        assert "generator" not in json.dumps(task)
    assert golden > 3


def test_everything_a_raters_token_can_read_tells_nothing_of_others(studio):
    studio.add_items([*pairs(4), NewItem(prompt="Gold?", a="y", b="n", gold="a", provenance={"a": "secret-model"})])
    for name in ("senior", "lead"):
        for number in range(4):
            judged(studio.person(name), number, rationale="others-rationale")
    rater = studio.person("rater")
    others = [m["pseudonym"] for m in studio.person("lead").ask("GET", "/projects/p/members") if m["name"] != "rater"]
    readable = ["/me", "/projects", "/projects/p", "/projects/p/guide", "/projects/p/progress", "/tokens"]
    told = " ".join(json.dumps(rater.ask("GET", path)) for path in readable)
    told += json.dumps(rater.ask("POST", "/projects/p/next", {"ahead": 4}))
    assert not [
        word for word in ("others-rationale", "generator-", "secret-model", "golden_share", *others) if word in told
    ]


def test_newcomers_are_locked_until_they_agree_with_those_who_passed(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", calibration_items=6, min_kappa=0.5, golden_share=0, repeat_share=0)
    studio.add_items(pairs(12))
    studio.add_member("second")
    lead = studio.person("lead")
    lead.ask("POST", "/projects/p/rounds")
    assert lead.ask("GET", "/projects/p/rounds/next")["step"] == "wait"

    def one_way(person, flip=False):
        for _ in range(6):
            task = person.ask("POST", "/projects/p/next", {})["task"]
            assert task["purpose"] == "calibration"
            wanted = "one" if (number_of(task) % 2 == 0) != flip else "two"
            side = "left" if f"Answer {wanted}" in task["left_text"] else "right"
            key = f"{person.name}-{task['lease']}-calibration"
            person.ask("POST", "/projects/p/judgments", {"lease": task["lease"], "choice": side, "client_key": key})

    for name in ("rater", "second"):
        one_way(studio.person(name))
    assert all(part["kappa"] is None for part in lead.ask("GET", "/projects/p/rounds")[0]["raters"])
    closed = lead.ask("POST", "/projects/p/rounds/1/close", {})
    assert closed["state"] == "passed"
    assert lead.ask("GET", "/projects/p")["state"] == "open"
    lead.ask("POST", "/projects/p/invites", {"role": "rater"})
    with studio.store.writing() as tx:
        user = tx.people.create_user("late", now=1.0)
        tx.people.join(studio.project.id, user.id, "rater", now=1.0)
        studio._token(tx, "late", user.id)
        sloppy = tx.people.create_user("sloppy", now=1.0)
        tx.people.join(studio.project.id, sloppy.id, "rater", now=1.0)
        studio._token(tx, "sloppy", sloppy.id)
    sloppy, late = studio.person("sloppy"), studio.person("late")
    one_way(sloppy, flip=True)
    offer = sloppy.ask("POST", "/projects/p/next", {})
    assert (offer["task"], offer["progress"]["left"], "calibration" in offer["message"]) == (None, 0, True)
    one_way(late)
    assert late.ask("GET", "/projects/p")["unlocked_round"] == 1
    assert late.ask("POST", "/projects/p/next", {})["task"]["purpose"] == "judge"


def test_golden_items_and_repeats_look_like_all_others_in_every_answer(tmp_path):
    studio = Studio(tmp_path / "studio.sqlite", overlap=2, golden_share=0.2, repeat_share=0.1, repeat_after=3)
    studio.add_items([*pairs(6, gold="a"), *pairs(50)[6:]])
    studio.add_member("second")
    seen = {}
    for name, choices in (("rater", ("left",)), ("second", ("skip", "tie"))):
        person, steps, shapes = studio.person(name), set(), set()
        for number in range(30):
            offer = person.ask("POST", "/projects/p/next", {})
            task = offer["task"]
            body = {
                "lease": task["lease"],
                "choice": choices[number % len(choices)],
                "client_key": f"{name}-{number:08}",
            }
            saved = person.ask("POST", "/projects/p/judgments", body)
            steps.add(offer["progress"]["left"] - saved["progress"]["left"])
            shapes.add((task["purpose"], *sorted(task), *sorted(saved), *sorted(saved["judgment"])))
        assert steps == {1}, "the number of pairs left falls by one, whatever was judged"
        assert len(shapes) == 1
        seen[name] = shapes
    with studio.store.reading() as tx:
        assert {vote.purpose for vote in tx.work.history(studio.project.id)} == {"judge", "golden", "repeat"}
    assert "item" not in offer["task"]


def test_leases_expire_after_the_clock_was_set_back(studio):
    studio.add_items(pairs(3))
    studio.add_member("second")
    wall = time.time()
    studio.store._wall = lambda: wall + 86_400 * 365
    judged(studio.person("rater"), 1)
    studio.store._wall = lambda: wall
    held = studio.person("rater").ask("POST", "/projects/p/next", {"ahead": 1})["tasks"]
    assert len(held) == 2
    studio.store._wall = lambda: wall + 3600  # within an hour of the year that the clock has to catch up
    again = studio.person("second").ask("POST", "/projects/p/next", {"ahead": 2})["tasks"]
    assert {number_of(task) for task in held} <= {number_of(task) for task in again}
