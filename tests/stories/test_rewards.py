"""Rewards of every kind in one run: each logged by its name, none able to lose what was made."""

import json

import pytest
from helpers.recipes import PROMPTS, Workplace
from helpers.served import serving

from keel.core.errors import ConfigError, DataError, EndpointError, TrainingError

PLAIN = {"sft": None, "reward": None, "evaluate": None, "data": {"demonstrations": None, "comparisons": None}}
"""RL alone."""


@pytest.fixture
def desk(tmp_path):
    place = Workplace(tmp_path)
    place.write("prompts.jsonl", [{"prompt": prompt, "answer": number % 3} for number, prompt in enumerate(PROMPTS)])
    return place


def rewarded(desk, *parts, to="run", **ppo):
    return desk.run(to=to, **PLAIN, ppo={"rewards": list(parts), **ppo})


def test_parts_of_every_kind_stand_in_the_log_under_their_names(desk):
    desk.write(
        "mine.py",
        "def short(prompts, responses, records):\n    return [-len(r.split()) + 0 * t['answer'] for r, t in zip(responses, records)]\n",
    )

    def remote(request, body):
        scores = [float(record["answer"]) for record in body["records"]]
        request.reply(200, json.dumps({"scores": scores}).encode())

    with serving(remote) as server:
        ran = rewarded(
            desk,
            {"name": "short", "python": "mine.py:short", "weight": 0.1},
            {"name": "maths", "maths": {}},
            {"name": "form", "tags": {}},
            {"name": "json", "json_object": {}},
            {"name": "wording", "text": {"must": ["thank"], "ends_properly": True, "credit": "share"}},
            {"name": "served", "remote": {"url": server.url, "batch": 3}, "weight": 0.5},
        )
    first = ran.events("step")[0]
    assert {f"score_{name}" for name in ("short", "maths", "form", "json", "wording", "served")} <= set(first)
    assert first["score_form"] == first["score_json"] == 0, "a constant part changes nothing"
    assert -8 <= first["score_short"] <= 0
    assert 0 <= first["score_served"] <= 2
    total = sum(
        weight * first[f"score_{name}"]
        for name, weight in {"short": 0.1, "maths": 1, "wording": 1, "served": 0.5}.items()
    )
    assert first["score_mean"] == pytest.approx(total, abs=1e-5)


def test_reward_models_of_other_runs_make_an_ensemble_beside_a_verifier(desk):
    other = {"ppo": None, "evaluate": None}
    folders = []
    for seed in (0, 1):
        made = desk.run([f"seed={seed}"], only="reward", to=f"reward{seed}", **other)
        folders.append(str(made.artifact("reward").path / "model"))
    ran = rewarded(
        desk,
        {"name": "liked", "models": folders, "aggregate": "mean_minus_std", "std_weight": 0.5},
        {"name": "maths", "maths": {}, "weight": 2},
    )
    steps = ran.events("step")
    assert all(step["score_disagreement"] >= 0 for step in steps)
    assert steps[0]["score_mean"] == pytest.approx(steps[0]["score_liked"] + 2 * steps[0]["score_maths"], abs=1e-5)


def test_a_prompt_without_its_answer_is_named_before_anything_is_trained(desk):
    desk.write("prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    with pytest.raises(DataError) as stop:
        rewarded(desk, {"name": "maths", "maths": {}})
    assert "ppo.rewards.maths cannot judge the prompt 'how is my " in str(stop.value)
    assert "columns: {answer: <its name>}" in str(stop.value)
    with pytest.raises(DataError, match=r"ppo.rewards.code cannot judge .* has no tests"):
        rewarded(desk, {"name": "code", "code": {"require": "any"}})
    assert {event["stage"] for event in Events(desk.folder / "run").read("stage_started")} <= {"data prompts"}


def test_code_is_run_against_the_tests_of_its_prompt(desk):
    rows = [{"prompt": prompt, "tests": ["assert f(1) == 1"]} for prompt in PROMPTS]
    desk.write("prompts.jsonl", rows)
    part = {"name": "code", "code": {"require": "any", "workers": 2, "seconds": 2}}
    ran = rewarded(desk, part, updates=1, prompts=2, evaluate_prompts=2)
    assert [step["score_code"] for step in ran.events("step")] == [0.0]


def test_a_function_that_hangs_stops_the_run_which_then_goes_on_from_where_it_was(desk):
    desk.write(
        "mine.py",
        "import pathlib, time\nslow = pathlib.Path(__file__).with_name('slow')\ncalls = []\n"
        "def f(prompts, responses):\n    calls.append(1)\n"
        "    time.sleep(600 if slow.exists() and len(calls) == 4 else 0)\n"
        "    return [float(len(r)) for r in responses]\n",
    )
    slow = desk.write("slow", "")
    part = {"name": "length", "python": "mine.py:f", "timeout_seconds": 2}
    same = {"rewards": [part], "updates": 3, "evaluate_every": 3}
    again = {**PLAIN, "checkpoint": {"every_seconds": 0}}
    with pytest.raises(TrainingError, match=r"ppo.rewards.length has not answered within 2 s \(8 responses\)"):
        desk.run(**again, ppo=same)
    slow.unlink()
    ran = desk.run(**again, ppo={**same, "rewards": [{**part, "timeout_seconds": 60}]})
    assert [event["step"] for event in ran.events("step")] == [1, 2, 3], "no update is done twice"


class Events:
    def __init__(self, folder) -> None:
        self.folder = folder

    def read(self, event):
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [found for found in map(json.loads, lines) if found["event"] == event]


def test_an_address_that_is_down_stops_the_run_and_a_second_try_resumes_it(desk):
    answers = []

    def remote(request, body):
        answers.append(1)
        if len(answers) > 3 and not up:
            request.reply(404, b"gone")
        else:
            request.reply(200, json.dumps({"scores": [float(len(text)) for text in body["responses"]]}).encode())

    up: list[int] = []
    with serving(remote) as server:
        part = {"name": "far", "remote": {"url": server.url, "retries": 0}}
        same = {"rewards": [part], "updates": 3, "evaluate_every": 3}
        again = {**PLAIN, "checkpoint": {"every_seconds": 0}, "ppo": same}
        with pytest.raises(EndpointError, match="refuses with HTTP 404"):
            desk.run(**again)
        done = [event["step"] for event in Events(desk.folder / "run").read("step")]
        up.append(1)
        ran = desk.run(**again)
    assert done == [1, 2]
    assert [event["step"] for event in ran.events("step")] == [1, 2, 3], "no update is done twice"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([{"name": "a"}], "give exactly one of model, models, python"),
        ([{"name": "a", "maths": {}, "python": "b.py:f"}], "found python and maths"),
        ([{"name": "a", "maths": {}}, {"name": "a", "tags": {}}], "two parts are named a"),
        ([{"name": "mean", "maths": {}}], "score_mean would be read as a figure of something else"),
        ([{"name": "dog_std", "maths": {}}], "score_dog_std would be read as"),
        ([{"name": "a b", "maths": {}}], "name"),
        ([{"name": "a", "maths": {}, "aggregate": "min"}], "are settings of `models`"),
        ([{"name": "a", "models": ["one"]}], "models"),
        ([{"name": "a", "text": {}}], "asks nothing"),
        ([{"name": "a", "maths": {}, "weight": float("nan")}], "a finite number"),
        ([{"name": "a", "maths": {}, "weight": float("inf")}], "a finite number"),
        ([{"name": "a", "python": "b.py:f", "timeout_seconds": float("inf")}], "a finite number"),
        ([], "nothing is rewarded"),
    ],
)
def test_parts_that_cannot_be_are_refused(desk, parts, said):
    with pytest.raises(ConfigError, match=said):
        rewarded(desk, *parts)
