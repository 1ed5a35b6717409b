"""Which change trains what again: everything that decides what a stage makes is in its hash, and nothing else."""

import json

import pytest
from helpers.recipes import PROMPTS, Workplace, write_lines

PREFERENCE = """
def short(prompts, responses, finished):
    return [-len(response) for response in responses]
"""
RL = ["ppo", "evaluate"]
GATE = ["best of 2", *RL]
ALL = ["data demonstrations", "data comparisons", "data prompts", "sft", "reward", *GATE]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("reuse"), chat=True)
    place.write("preference.py", PREFERENCE)
    place.write("other.jsonl", [{"prompt": prompt} for prompt in PROMPTS[10:16]])
    place.run()
    return place


def again(place, overrides=(), **changes) -> list[str]:
    """Stages that train when the recipe is changed so."""
    before = len(place.run().trained())
    return place.run(overrides, **changes).trained()[before:]


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "checkpoint.every_seconds=0",
        "threads=1",
        "data.demonstrations.on_error=drop",
        "sft.micro_batch_tokens=64",
        "reward.micro_batch_tokens=64",
        "ppo.micro_batch_tokens=64",
    ],
)
def test_what_changes_no_result_trains_nothing(place, override):
    assert again(place, [override]) == []


@pytest.mark.parametrize(
    ("override", "trained"),
    [
        ("evaluate.prompts=7", ["evaluate"]),
        ("evaluate.temperature=0", ["evaluate"]),
        ("evaluate.preference=preference.py:short", ["evaluate"]),
        ("evaluate.data={path: other.jsonl}", ["data evaluation", "evaluate"]),
        ("ppo.kl.target=3", RL),
        ("ppo.max_new_tokens=7", GATE),
        ("reward.best_of=3", ["best of 3"]),
        ("reward.best_of_prompts=5", ["best of 2"]),
        ("data.prompts.holdout=0.4", ["data prompts", *GATE]),
        ("data.override_agreement=nobody is stopped", []),
    ],
)
def test_a_setting_of_a_late_stage_spares_the_early_ones(place, override, trained):
    assert again(place, [override]) == trained


@pytest.mark.parametrize(
    ("override", "only", "trained"),
    [
        ("reward.loss.label_smoothing=0.1", "reward", ["reward"]),
        ("reward.labels=share", "reward", ["reward"]),
        ("data.comparisons.holdout=0.4", "reward", ["data comparisons", "reward"]),
        ("sft.batch=8", "sft", ["sft"]),
        ("seed=1", "sft", ["sft"]),
        ("data.max_tokens=48", "sft", [*ALL[:3], "sft"]),
        ("data.too_long=drop", "sft", [*ALL[:3], "sft"]),
        ("data.demonstrations.limit=30", "sft", ["data demonstrations", "sft"]),
    ],
)
def test_a_setting_of_an_early_stage_trains_it(place, override, only, trained):
    assert again(place, [override], only=only) == trained


def test_another_chat_template_is_another_model(place):
    template = place.folder / "template.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}")
    assert again(place, ["model.chat_template=template.jinja"], only="sft") == ["sft"]
    template.write_text("{% for m in messages %}{{ m['content'] + ' . ' }}{% endfor %}")
    assert again(place, ["model.chat_template=template.jinja"], only="sft") == ["sft"]


def test_data_count_by_what_they_say_not_by_where_they_lie(place):
    (place.folder / "moved").mkdir()
    for name in ("demos", "pairs", "prompts"):
        (place.folder / "moved" / f"{name}.jsonl").write_bytes((place.folder / f"{name}.jsonl").read_bytes())
    moved = {
        n: {"path": f"moved/{f}.jsonl"}
        for n, f in (("demonstrations", "demos"), ("comparisons", "pairs"), ("prompts", "prompts"))
    }
    assert again(place, data=moved) == []


def test_one_word_more_in_the_prompts_is_noticed_by_all_that_sample_from_them(place):
    rows = [json.loads(line) for line in (place.folder / "prompts.jsonl").read_text().splitlines()]
    rows[0]["prompt"][0]["content"] += " please"
    write_lines(place.folder / "edited.jsonl", rows)
    assert again(place, ["data.prompts.path=edited.jsonl"]) == ["data prompts", *GATE]


def test_an_edited_preference_is_measured_anew_and_only_that(place):
    preference = ["evaluate.preference=preference.py:short"]
    again(place, preference)
    place.write("preference.py", PREFERENCE.replace("-len", "len"))
    assert again(place, preference) == ["evaluate"]
    place.write("preference.py", PREFERENCE)
    assert again(place, preference) == []


def test_another_model_in_the_same_folder_trains_everything(tmp_path):
    place = Workplace(tmp_path, count=24)
    place.run(only="sft")
    from helpers.recipes import model_folder

    model_folder(tmp_path / "model", seed=1)
    assert place.run(only="sft").trained().count("sft") == 2


def test_another_reward_model_in_the_same_folder_is_another_reward(place, tmp_path):
    import shutil

    made = place.run(only="reward")
    bought = tmp_path / "bought"
    shutil.copytree(made.artifact("reward").path / "model", bought)
    start = {"data": {"comparisons": None}, "reward": None, "only": "ppo", "to": "bought"}
    parts = {"rewards": [{"name": "bought", "model": str(bought)}]}
    place.run(ppo=parts, **start)
    record = json.loads((bought / "reward.json").read_text())
    (bought / "reward.json").write_text(json.dumps(record | {"mean": 5.0}))
    assert place.run(ppo=parts, **start).trained().count("ppo") == 2


def test_a_damaged_artifact_is_named_and_the_others_are_kept(place):
    ran = place.run(to="damaged", only="sft")
    weights = ran.artifact("sft").path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    from keel.core.errors import ArtifactError

    with pytest.raises(ArtifactError) as stop:
        place.run(to="damaged", only="sft")
    assert str(weights) in str(stop.value)
    assert "Remove" in str(stop.value)
