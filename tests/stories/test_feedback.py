"""RLAIF and Constitutional AI from recipe to policy, on the toy world with a judge and a critic in Python."""

import json

import pytest
from helpers.recipes import PROMPTS, Workplace, answers

from keel.core.artifacts import load_artifact
from keel.core.errors import ConfigError, GateError, KeelError
from keel.stages.paths import locate

JUDGE = '''
"""Likes answers that thank; leans a little to the first."""
from pathlib import Path

ASKED = Path(__file__).with_name("asked.txt")


def judge(questions):
    with ASKED.open("a") as file:
        file.writelines(f"{q.prompt!r} {q.first!r} {q.second!r} {q.guide!r}\\n" for q in questions)
    return [0.1 + 0.8 * ("thank" in q.first) if ("thank" in q.first) != ("thank" in q.second) else 0.55 for q in questions]


def contrary(questions):
    return [1 - p for p in judge(questions)]


def revise(drafts):
    return [(f"by {d.principle.id}: say thank you", f" thank you .{d.text}") for d in drafts]
'''
CONSTITUTION = """
name: manners
version: 4
principles:
  - {id: thanks, version: 2, critique: does it thank?, revise: say thanks, prefer: the one that thanks}
  - {id: brief, critique: is it long, revise: be brief, prefer: the briefer one}
"""
SMALL = {"reward": None, "ppo": None, "evaluate": {"prompts": 4}, "sft": None}
PREFER = {"max_new_tokens": 8, "batch": 8, "optim": {"learning_rate": 1e-3}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("feedback"))
    place.write("judges.py", JUDGE)
    place.write("constitution.yaml", CONSTITUTION.replace("thank?", "thank"))
    golden = []
    for number, prompt in enumerate(PROMPTS[40:]):
        better, worse = answers(number)
        a, b = (better, worse) if number % 2 else (worse, better)
        golden.append({"prompt": prompt, "response_a": a, "response_b": b, "preference": float(a == better)})
    place.write("golden.jsonl", golden)
    return place


def data(**changes):
    return {"comparisons": None, "demonstrations": None, "golden": {"path": "golden.jsonl"}, **changes}


FEEDBACK = {"judge": {"python": "judges.py:judge"}, "comparisons": 30}


@pytest.fixture(scope="module")
def rlaif(place):
    return place.run(**{**SMALL, "data": data(), "prefer": PREFER, "feedback": FEEDBACK})


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_policy_learns_from_an_ai_judge_that_was_held_against_people(place, rlaif):
    judged = rlaif.stages["judge"]
    assert judged["golden"] == 10
    assert judged["label_accuracy"] == 1.0
    assert judged["position_bias"] == pytest.approx(0.0, abs=0.01)
    assert judged["label_kappa"] == pytest.approx(1.0)
    assert rlaif.trained()[:3] == ["data golden", "data prompts", "judge"], "a judge that is refused costs no training"
    rules = {event["rule"]: event["level"] for event in rlaif.events("verdict") if event["stage"] == "judge"}
    assert rules == {"judge_kappa": "watch", "judge_side": "ok", "judge_calibration": "watch"}, (
        "ten golden answers only"
    )
    assert "prefer" in rlaif.stages
    assert "evaluate" in rlaif.stages


def artifact_of(ran, prefix):
    (folder,) = (ran.directory / "artifacts").glob(f"{prefix}-*")
    return load_artifact(folder)


def test_every_verdict_stands_beside_the_comparisons_it_made(rlaif):
    labels = artifact_of(rlaif, "labels")
    made, verdicts = lines(labels.path / "comparisons.jsonl"), lines(labels.path / "verdicts.jsonl")
    assert len(made) == len(verdicts) == labels.metrics["comparisons"] == labels.metrics["pairs"]
    assert labels.metrics["questions"] <= 2 * labels.metrics["pairs"]
    assert {row["preference"] for row in made} == {row["preference"] for row in verdicts}
    assert artifact_of(rlaif, "judge").id in labels.parents
    assert labels.id in artifact_of(rlaif, "prefer").parents


def test_the_same_run_again_and_one_with_another_loss_ask_nothing(place, rlaif):
    asked = (place.folder / "asked.txt").read_text()
    assert len(asked.splitlines()) == len(set(asked.splitlines()))
    recipe = {**SMALL, "data": data(), "prefer": {**PREFER, "dpo": {"beta": 0.3}}, "feedback": FEEDBACK}
    place.run(**recipe)
    place.run(**{**recipe, "feedback": {**FEEDBACK, "temperature": 2.0}})
    assert (place.folder / "asked.txt").read_text() == asked


def test_a_shared_cache_makes_a_run_in_another_folder_free(place):
    recipe = {**SMALL, "data": data(), "prefer": PREFER}
    shared = {**FEEDBACK, "cache": str(place.folder / "shared.sqlite")}
    place.run(to="one", **recipe, feedback=shared)
    asked = (place.folder / "asked.txt").read_text()
    again = place.run(to="other", **recipe, feedback=shared)
    assert (place.folder / "asked.txt").read_text() == asked
    labels = artifact_of(again, "labels").metrics
    assert labels["known"] == labels["questions"]


def test_a_judge_that_people_refute_is_refused_before_any_training_unless_somebody_says_why(place):
    recipe = {**SMALL, "data": data(), "prefer": PREFER}
    contrary = {**FEEDBACK, "judge": {"python": "judges.py:contrary"}}
    with pytest.raises(GateError, match=r"agrees with people to kappa -1.00.*feedback.override_kappa"):
        place.run(to="contrary", **recipe, feedback=contrary)
    names = {path.name.partition("-")[0] for path in (place.folder / "contrary" / "artifacts").iterdir()}
    assert names == {"data", "judge"}
    ran = place.run(to="contrary", **recipe, feedback={**contrary, "override_kappa": "we study bad judges"})
    (verdict,) = [
        event for event in ran.events("verdict") if event["rule"] == "judge_kappa" and event["level"] == "act"
    ]
    assert verdict["figures"]["override"] == "we study bad judges"


def test_without_golden_comparisons_the_run_says_that_nobody_knows_the_judge(place):
    ran = place.run(to="unknown", **{**SMALL, "data": data(golden=None), "prefer": PREFER, "feedback": FEEDBACK})
    (verdict,) = [event for event in ran.events("verdict") if event["stage"] == "judge"]
    assert (verdict["rule"], verdict["level"]) == ("judge_kappa", "watch")
    assert "judge" not in ran.stages


def test_a_file_of_comparisons_is_labelled_anew(place):
    feedback = {"judge": {"python": "judges.py:contrary"}, "pairs": {"path": "pairs.jsonl", "holdout": 0.25}}
    recipe = {**SMALL, "data": data(golden=None), "reward": {"batch": 16, "best_of": 1}, "evaluate": None}
    ran = place.run(to="anew", **recipe, feedback=feedback, only="reward")
    made = {
        (row["prompt"], row["response_a"]): row["preference"]
        for row in lines(artifact_of(ran, "labels").path / "comparisons.jsonl")
    }
    for row in lines(place.folder / "pairs.jsonl"):
        assert made[row["prompt"], row["response_a"]] == pytest.approx(0.9 if row["preference"] == 0 else 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": {"path": "pairs.jsonl", "holdout": 0.0}}, r"0 to measure on \(holdout=0\).*feedback.pairs.holdout"),
        ({"pairs": {"path": "missing.jsonl"}}, "missing.jsonl does not exist"),
        ({"rubric": "rubric.md"}, "feedback.rubric: there is no file rubric.md"),
        ({"rubric": "latin.txt"}, r"latin.txt is not UTF-8 text \(byte 0\)"),
        ({"rubric": "empty.txt"}, "empty.txt is empty"),
    ],
)
def test_what_is_wrong_with_pairs_or_rubric_is_told_before_the_judge_is_asked(place, changes, message):
    (place.folder / "latin.txt").write_bytes("\u00e9".encode("latin-1"))
    place.write("empty.txt", " \n")
    feedback = {"judge": {"python": "judges.py:judge"}, "pairs": {"path": "pairs.jsonl", "holdout": 0.25}, **changes}
    with pytest.raises(KeelError, match=message):
        place.run(to="wrong", **{**SMALL, "data": data(), "prefer": PREFER, "feedback": feedback})
    assert not list((place.folder / "wrong").glob("artifacts/judge-*"))


def test_a_rubric_may_be_a_file_and_is_known_by_what_it_says(place):
    place.write("rubric.txt", "Prefer thanks.\n")
    for text in ("rubric.txt", "Prefer thanks."):
        recipe = place.recipe(**{**SMALL, "data": data(), "prefer": PREFER, "feedback": {**FEEDBACK, "rubric": text}})
        assert locate(recipe, place.folder).feedback.rubric == "Prefer thanks."


def test_a_recipe_may_label_a_file_and_train_nothing(place):
    feedback = {"judge": {"python": "judges.py:judge"}, "pairs": {"path": "pairs.jsonl", "holdout": 0.25}}
    ran = place.run(to="labels", **{**SMALL, "data": data(), "evaluate": None, "feedback": feedback})
    assert [label for label in ran.trained() if not label.startswith("data")] == ["judge", "labels 0"]
    assert len(lines(artifact_of(ran, "labels").path / "comparisons.jsonl")) == len(lines(place.folder / "pairs.jsonl"))


def test_rounds_are_judged_by_the_ai(place):
    rounds = {"count": 2, "comparisons": 12, "judge": "feedback"}
    ran = place.run(to="rounds", **{**SMALL, "data": data(), "prefer": PREFER, "feedback": FEEDBACK, "rounds": rounds})
    assert [entry["round"] for entry in ran.summary["rounds"]] == [1, 2]
    fresh = [load_artifact(path) for path in (ran.directory / "artifacts").glob("labels-*")]
    assert len(fresh) == 2
    assert all((artifact.path / "verdicts.jsonl").is_file() for artifact in fresh)


@pytest.fixture(scope="module")
def constitutional(place):
    constitution = {
        "path": "constitution.yaml",
        "critic": {"python": "judges.py:revise"},
        "prompts": 20,
        "rounds": 2,
        "max_new_tokens": 8,
        "sft": {"epochs": 1, "batch": 8, "optim": {"learning_rate": 1e-3}},
    }
    return place.run(
        to="cai", **{**SMALL, "data": data(), "prefer": PREFER, "feedback": FEEDBACK}, constitution=constitution
    )


def test_revisions_are_learned_and_every_step_is_kept_with_its_principle(constitutional):
    made = artifact_of(constitutional, "revisions")
    assert made.kind == "demonstration_set"
    steps = lines(made.path / "revisions.jsonl")
    assert len(steps) == 2 * made.metrics["prompts"]
    assert {step["principle"] for step in steps} == {"thanks@2", "brief@1"}
    by_prompt = {}
    for step in steps:
        by_prompt.setdefault(step["prompt"], []).append(step)
    for first, second in by_prompt.values():
        assert (first["round"], second["round"]) == (1, 2)
        assert {first["principle"], second["principle"]} == {"thanks@2", "brief@1"}, "another one in each round"
        assert second["draft"] == first["revision"] == " thank you ." + first["draft"]
        assert second["critique"] == f"by {second['principle'].partition('@')[0]}: say thank you"
    learned = [*lines(made.path / "train.jsonl"), *lines(made.path / "held_out.jsonl")]
    assert {row["response"] for row in learned} == {both[1]["revision"] for both in by_prompt.values()}
    assert json.loads((made.path / "constitution.json").read_text())["version"] == 4
    policy = load_artifact(constitutional.directory / "artifacts" / constitutional.stages["constitution"]["artifact"])
    assert policy.kind == "policy"
    assert made.id in policy.parents
    assert policy.id in artifact_of(constitutional, "prefer").parents


def test_preferences_are_by_principle_too(constitutional):
    verdicts = lines(artifact_of(constitutional, "labels").path / "verdicts.jsonl")
    assert {row["principle"] for row in verdicts} == {"thanks@2", "brief@1"}


def test_the_last_policy_is_compared_with_the_one_before_the_constitution(place, constitutional):
    alone = place.run(
        to="cai",
        **{**SMALL, "data": data()},
        constitution={
            "path": "constitution.yaml",
            "critic": {"python": "judges.py:revise"},
            "prompts": 8,
            "max_new_tokens": 8,
        },
    )
    assert abs(alone.stages["evaluate"]["kl_nats_per_sequence"]) > 1e-9
    assert abs(constitutional.stages["evaluate"]["kl_nats_per_sequence"]) > 1e-9


def test_the_policy_may_criticise_itself(place):
    constitution = {"path": "constitution.yaml", "prompts": 6, "max_new_tokens": 8, "critic_tokens": 8}
    ran = place.run(
        to="self",
        **{**SMALL, "data": {**data(golden=None), "max_tokens": 96}, "evaluate": None},
        constitution=constitution,
    )
    steps = lines(artifact_of(ran, "revisions").path / "revisions.jsonl")
    assert 0 < len(steps) <= 6
    assert all(step["revision"] for step in steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"feedback": {"judge": {"python": "judges.py:judge"}}, "prefer": PREFER},
            r"prefer needs .*feedback\.comparisons",
        ),
        ({"feedback": {"judge": {"python": "judges.py:judge"}}}, "nothing asks the AI judge of feedback"),
        ({"feedback": FEEDBACK, "prefer": PREFER, "data": {"comparisons": {"path": "pairs.jsonl"}}}, "Keep one"),
        ({"rounds": {"judge": "feedback", "count": 2}, "prefer": PREFER}, r"prefer needs .*feedback\.comparisons"),
        (
            {"rounds": {"judge": "feedback", "count": 2, "first_comparisons": 8}, "prefer": PREFER},
            "rounds.judge: feedback needs a section feedback",
        ),
        (
            {"constitution": {"path": "constitution.yaml", "replay": 0.5}},
            "constitution.replay mixes in what SFT learned",
        ),
        ({"constitution": {"path": "nowhere.yaml", "max_new_tokens": 8}}, "nowhere.yaml: there is no such file"),
        ({"feedback": {**FEEDBACK, "judge": {"python": "judges.py:juge"}}, "prefer": PREFER}, "has no function `juge`"),
    ],
)
def test_recipes_that_cannot_work_are_refused_before_anything_runs(place, changes, message):
    with pytest.raises(ConfigError, match=message):
        place.run(to="never", **{**SMALL, "data": data(golden=None), **changes})
