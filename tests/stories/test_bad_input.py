"""Whatever is wrong with what a user gives: one message with place and remedy, status 2, and nothing made is lost."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from helpers.desk import PYTHON_ONLY, seated
from helpers.recipes import PROMPTS, Workplace, answers, write_data
from safetensors.torch import load_file, save_file

GOOD = "def f(prompts, responses):\n    return [float(len(response)) for response in responses]\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Workplace(tmp_path_factory.mktemp("model")).folder / "model"


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys, model):
    return seated(tmp_path, model, monkeypatch, capsys)


# --- records ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "rows", "said"),
    [
        (
            "demos.jsonl",
            [{"question": "hello ?", "reply": " hi ."}],
            ["demos.jsonl, line 1", "question, reply", "columns: {prompt: question, response: answer}"],
        ),
        (
            "demos.jsonl",
            [{"prompt": "hello ?", "response": " hi ."}, {"prompt": "hello ?", "response": " "}],
            ["demos.jsonl, line 2", "response is empty", "on_error: drop"],
        ),
        (
            "pairs.jsonl",
            [{"prompt": "a ?", "chosen": " b", "rejected": " c"}, {"prompt": "a ?", "chosen": " b", "rejected": " b"}],
            ["pairs.jsonl, line 2", "chosen and rejected are the same text", "Record a tie or drop the line"],
        ),
        (
            "pairs.jsonl",
            ['{"prompt": "a ?", "chosen": " b", "rejected": " c"}', '{"prompt": "a ?", '],
            ["pairs.jsonl, line 2", "broken JSON at column", "correct the line or drop it"],
        ),
        ("prompts.jsonl", [{"prompt": 3}], ["prompts.jsonl, line 1", "prompt is int 3", "was expected"]),
    ],
    ids=["wrong columns", "empty response", "identical answers", "broken JSON", "wrong type"],
)
def test_a_bad_record_is_named_by_file_and_line(desk, file, rows, said):
    desk.place.write(file, rows)
    message = desk.refused()
    for part in said:
        assert part in message


def test_bad_records_can_be_dropped_and_the_run_goes_on(desk):
    better, _ = answers(0)
    rows = [{"prompt": prompt, "response": better} for prompt in PROMPTS[:20]]
    desk.place.write("demos.jsonl", [*rows, {"prompt": "x", "response": ""}])
    desk.recipe(data={"demonstrations": {"on_error": "drop"}})
    desk.runs("sft", "recipe.yaml")


def test_a_missing_file_names_the_nearest(desk):
    message = desk.refused(data={"demonstrations": {"path": "demo.jsonl"}})
    assert "demo.jsonl does not exist. Did you mean demos.jsonl" in message


def test_a_prompt_longer_than_the_context_stops_a_run_that_asked_for_it(desk):
    desk.place.write("demos.jsonl", [{"prompt": "a " * 80, "response": " b"}])
    message = desk.refused(data={"too_long": "error"})
    for part in ("demos.jsonl:1", "80 prompt + 2 response tokens, 64 allowed", "max_tokens", "too_long"):
        assert part in message


def test_a_prompt_of_rl_that_leaves_no_room_for_a_response_is_quoted(desk):
    desk.place.write("prompts.jsonl", [{"prompt": "how is " * 30 + name} for name in ("cat", "dog", "parcel", "order")])
    message = desk.refused(sft=None, data={"too_long": "error", "prompts": {"holdout": 0.4}})
    for part in ("the prompt 'how is how is", "with ppo.max_new_tokens=8", "8 response tokens, 64 allowed"):
        assert part in message


@pytest.mark.parametrize(("policy", "counted"), [("left", "shortened_prompts"), ("drop", "dropped_too_long")])
def test_prompts_longer_than_the_context_are_cut_or_dropped_and_counted(desk, policy, counted):
    rows = [{"prompt": prompt, "response": " yes ."} for prompt in PROMPTS[:20]]
    desk.place.write("demos.jsonl", [{"prompt": "no " * 80 + "?", "response": " yes ."}, *rows])
    desk.recipe(data={"too_long": policy, "demonstrations": {"holdout": 0.0}})
    desk.runs("sft", "recipe.yaml")
    events = [json.loads(line) for line in (desk.place.folder / "runs/recipe/events.jsonl").read_text().splitlines()]
    (records,) = [event for event in events if event["event"] == "records"]
    assert records[counted] == 1
    assert records["first_too_long"] == "demos.jsonl:1"
    assert records["train"] == (21 if policy == "left" else 20)


def test_responses_that_no_context_holds_are_never_cut(desk):
    desk.place.write("demos.jsonl", [{"prompt": prompt, "response": " b" * 90} for prompt in PROMPTS[:20]])
    message = desk.refused()
    for part in ("No demonstration is left", "data.max_tokens=64", "demos.jsonl:", "Raise data.max_tokens"):
        assert part in message


def test_a_model_that_reads_less_than_the_recipe_allows_sets_the_limit_and_the_run_says_so(tmp_path, desk):
    (tmp_path / "model").unlink()
    place = Workplace(tmp_path, "qwen2", count=24, max_position_embeddings=24)
    place.write("demos.jsonl", [{"prompt": "no " * 30 + prompt, "response": " yes ."} for prompt in PROMPTS[:20]])
    desk.recipe(data={"max_tokens": 400})
    said = desk.runs()
    assert "data.max_tokens is 24 instead of 400: model reads no more." in said
    assert "max_tokens: 24" in (tmp_path / "runs/recipe/recipe.yaml").read_text()


def test_responses_that_leave_no_room_for_a_prompt_are_refused_before_any_training(desk):
    message = desk.refused(ppo={"max_new_tokens": 64})
    assert "ppo.max_new_tokens=64 leaves no room for a prompt within data.max_tokens=64" in message
    assert not (desk.place.folder / "runs/recipe/artifacts").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"prompts": {"holdout": 0.0}}}, ["prompts.jsonl: no held-out prompt", "holdout=0.0"]),
        (
            {"data": {"prompts": {"holdout": 0.999999}}},
            ["prompts.jsonl: all 24 records were held out", "lower holdout"],
        ),
        (
            {"data": {"comparisons": {"holdout": 0.0}}},
            ["pairs.jsonl: no comparison is held out", "data.comparisons.holdout"],
        ),
    ],
    ids=["no held-out prompt", "only held-out prompts", "no held-out comparison"],
)
def test_a_side_of_the_split_without_records_is_named(desk, changes, said):
    message = desk.refused(**changes)
    for part in said:
        assert part in message


# --- settings, models ------------------------------------------------------------------------------------------------


def test_an_unknown_key_names_its_line_and_what_was_probably_meant(desk):
    desk.recipe()
    text = (desk.place.folder / "recipe.yaml").read_text().replace("evaluate_every", "evaluate_evry")
    desk.place.write("recipe.yaml", text)
    line = 1 + next(i for i, content in enumerate(text.splitlines()) if "evaluate_evry" in content)
    message = desk.refused("run", "recipe.yaml")
    assert f"recipe.yaml, line {line}: ppo.evaluate_evry is not a setting. Did you mean 'evaluate_every'?" in message


def test_a_real_process_ends_with_status_2_and_no_traceback(desk):
    desk.recipe()
    done = subprocess.run(
        [sys.executable, "-m", "keel.cli.main", "run", "recipe.yaml", "-s", "ppo.kl.intial=1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "keel: -s ppo.kl.intial=1: ppo.kl.intial is not a setting. Did you mean 'initial'?\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (".", ["it has no config.json", "it holds", "save_pretrained"]),
        ("./nothing", ["./nothing does not exist", "config.json"]),
        ("demos.jsonl", ["demos.jsonl is a file", "expected a folder"]),
    ],
    ids=["another folder", "no folder", "a file"],
)
def test_a_path_that_holds_no_model_is_refused(desk, path, said):
    message = desk.refused(model={"path": path})
    for part in said:
        assert part in message


def test_chats_need_a_template_and_the_message_says_where_to_set_one(desk):
    write_data(desk.place.folder, 24, chat=True)
    message = desk.refused()
    for part in ("demos.jsonl:1", "no chat template", "model.chat_template"):
        assert part in message


def test_a_model_with_nan_weights_is_refused_by_name(desk, tmp_path, model):
    (tmp_path / "model").unlink()
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    message = desk.refused()
    assert message.startswith("model: the model's outputs are not finite numbers")
    assert "download it again" in message


@pytest.mark.parametrize(
    ("stage", "changes", "said"),
    [
        ("sft", {"sft": {"batch": 99, "optim": {"learning_rate": 1e30}}}, "perplexity was never finite"),
        (
            "sft",
            {"sft": {"batch": 99, "optim": {"learning_rate": 1e30}}, "data": {"demonstrations": {"holdout": 0.0}}},
            "the policy's outputs are not finite numbers, so it is not saved",
        ),
        (
            "reward",
            {"sft": None, "reward": {"batch": 99, "optim": {"learning_rate": 1e30}}},
            "scores are not finite numbers",
        ),
    ],
    ids=["sft", "sft without a held-out side", "reward"],
)
def test_what_diverges_in_its_last_step_is_not_kept(desk, stage, changes, said):
    message = desk.refused(**changes)
    assert message.startswith(f"{stage}: ")
    assert said in message
    assert "diverged. Lower" in message
    assert not [name for name in desk.artifacts() if name.startswith(stage)]


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("sft", {"sft": {"epochs": 3, "optim": {"learning_rate": 1e30}}}),
        ("reward", {"sft": None, "reward": {"epochs": 3, "optim": {"learning_rate": 1e30}}}),
        ("ppo", {"sft": None, **PYTHON_ONLY, "ppo": {**PYTHON_ONLY["ppo"], "optim": {"learning_rate": 1e30}}}),
    ],
)
def test_a_loss_that_is_no_number_names_stage_step_and_rate(desk, stage, changes):
    desk.place.write("mine.py", GOOD)
    message = desk.refused(**changes)
    assert message.startswith(f"{stage}: ")
    for part in ("The loss became", "at optimiser step 2", "Lower optim.learning_rate (now"):
        assert part in message


# --- functions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f(prompts, responses:\n    pass\n", ["mine.py, line 1", "SyntaxError"]),
        ("import nothing_here\n", ["mine.py, line 1", "No module named 'nothing_here'"]),
        ("def g(prompts, responses):\n    return []\n", ["has no function `f`. It has: g"]),
        (None, ["there is no file mine.py", "recipe's folder"]),
    ],
    ids=["syntax error", "import error", "no such function", "no such file"],
)
def test_a_reward_file_that_cannot_be_used_is_refused_before_any_training(desk, text, said):
    if text is not None:
        desk.place.write("mine.py", text)
    message = desk.refused(**PYTHON_ONLY)
    assert message.startswith("ppo.rewards.mine: ")
    for part in said:
        assert part in message
    assert not (desk.place.folder / "runs/recipe/artifacts").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "    table = {}\n    return [table[r] for r in responses]\n",
            ["ppo.rewards.mine: mine.py:f", "mine.py, line 3", "KeyError"],
        ),
        ("    return [1.0]\n", ["returned 1 numbers for", "exactly one number a response"]),
        ("    return None\n", ["returned None", "exactly one number a response"]),
        ("    return ['good' for r in responses]\n", ["'good' where a number was expected"]),
        ("    return [float('nan') for r in responses]\n", ["Reward `mine` is nan for the response", "finite number"]),
    ],
    ids=["exception", "wrong number", "nothing", "texts", "nan"],
)
def test_a_reward_function_that_misbehaves_is_named_and_costs_no_finished_stage(desk, body, said):
    desk.place.write("mine.py", f"def f(prompts, responses):\n{body}")
    message = desk.refused(**PYTHON_ONLY)
    for part in said:
        assert part in message
    (sft,) = [name for name in desk.artifacts() if name.startswith("sft")]
    desk.place.write("mine.py", GOOD)
    assert "sft: finished before, reused" in desk.runs()
    assert sft in desk.artifacts()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    return [1.0]\n", ["returned 1 numbers for 6 responses"]),
        ("    return {'facts': [1.0] * len(responses)}\n", ["lists named facts", "one of them must be `utility`"]),
        ("    return [float('inf')] * len(responses)\n", ["says inf of the response", "finite"]),
        ("    return 1 / 0\n", ["mine.py, line 2", "ZeroDivisionError"]),
        ("    return\n", ["returned None"]),
    ],
    ids=["wrong number", "no utility", "infinite", "exception", "nothing"],
)
def test_a_preference_function_that_misbehaves_is_named(desk, body, said):
    desk.place.write("mine.py", f"def f(prompts, responses, finished):\n{body}")
    desk.place.write("reward.py", GOOD)
    message = desk.refused(
        sft=None,
        data={"comparisons": None, "demonstrations": None},
        reward=None,
        ppo={"updates": 1, "rewards": [{"name": "length", "python": "reward.py:f"}]},
        evaluate={"preference": "mine.py:f"},
    )
    assert "evaluate.preference" in message
    for part in said:
        assert part in message
    assert any(name.startswith("ppo") for name in desk.artifacts()), "the policy is kept"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    return None\n", ["returned None", "keel.data.records.Comparison"]),
        ("    return []\n", ["returned 0 comparisons for"]),
        ("    return [1.0 for pair in pairs]\n", ["returned 1.0, which is no Comparison"]),
        ("    return [pair.better for pair in pairs]\n", ["mine.py, line 2", "AttributeError"]),
    ],
    ids=["nothing", "none", "numbers", "exception"],
)
def test_a_labeller_that_misbehaves_is_named(desk, body, said):
    desk.place.write("mine.py", f"def f(pairs):\n{body}")
    message = desk.refused(
        sft=None,
        data={"comparisons": None, "demonstrations": None},
        rounds={"count": 1, "first_comparisons": 8, "labeller": "mine.py:f"},
    )
    assert "rounds.labeller" in message
    for part in said:
        assert part in message


@pytest.mark.parametrize(
    ("path", "said"),
    [("./bought", "./bought does not exist"), ("model", "model: 1 weights are missing, such as score.weight")],
    ids=["no folder", "a policy"],
)
def test_a_path_that_holds_no_reward_model_is_refused(desk, path, said):
    parts = {"rewards": [{"name": "bought", "model": path}]}
    assert said in desk.refused(sft=None, data={"comparisons": None}, reward=None, ppo=parts)
