"""The recipes that come with keel: all of them load, and those for the shared data run end to end, cut very short."""

import json
import re
from pathlib import Path

import pytest
from helpers.tiny import tiny_model

from keel.cli.main import main
from keel.core.config import load_config
from keel.core.events import read_events
from keel.models.load import load_tokenizer, save_causal_lm
from keel.stages.functions import load_function
from keel.stages.paths import locate
from keel.stages.recipe import Recipe

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
SENTIMENT, HH, HH_DPO = (FOLDER / f"{name}.yaml" for name in ("sentiment", "hh-harmless", "hh-harmless-dpo"))
SHORT = (
    *("threads=1", "reward.epochs=1", "reward.best_of=2", "reward.best_of_prompts=2", "evaluate.prompts=4"),
    *("ppo.updates=2", "ppo.prompts=4", "ppo.samples=2", "ppo.max_new_tokens=6", "ppo.evaluate_prompts=4"),
)


def run(recipe: Path, out: Path, *settings: str, short: tuple[str, ...] = SHORT) -> dict:
    overrides = [word for setting in (*short, *settings) for word in ("-s", setting)]
    assert main(["run", str(recipe), "--out", str(out), *overrides]) == 0
    return json.loads((out / "summary.json").read_text())["stages"]


def pairs_in(folder: Path) -> tuple[str, str]:
    path = folder / "hh-harmless-base" / "train.jsonl.gz"
    return f"data.demonstrations.path={path}", f"data.comparisons.path={path}"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_finds_the_files_beside_it(path):
    recipe = load_config(Recipe, path)
    located = locate(recipe, FOLDER)
    for config in (located.data.prompts, located.data.demonstrations, located.data.comparisons):
        assert config is None or Path(config.path).is_file() or config.path.count("/") == 1
    for part in recipe.ppo.rewards if recipe.ppo else ():
        assert part.python is None or callable(load_function(part.python, "ppo.rewards", FOLDER))


def test_the_recipes_name_hub_models_and_sets_by_default():
    """Whoever has no local copy gets them by these names: an owner, a slash, a name."""
    for recipe in (load_config(Recipe, path) for path in RECIPES):
        data = (recipe.data.demonstrations, recipe.data.comparisons, recipe.data.prompts)
        sets = [config.path for config in data if config is not None and not (FOLDER / config.path).is_file()]
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in [recipe.model.path, *sets]), (recipe.name, sets)


def test_story_openings_are_distinct_and_end_as_sentences():
    prompts = [json.loads(line)["prompt"] for line in (FOLDER / "story-openings.jsonl").read_text().splitlines()]
    assert len(prompts) == len(set(prompts)) >= 500
    assert all(prompt.endswith(".") and len(prompt) < 120 for prompt in prompts)


def test_long_enough_asks_for_eight_words_and_no_more():
    rule = load_function("hh_rewards.py:long_enough", "ppo.rewards", FOLDER)
    assert rule([""] * 4, ["", "I will not.", "one two three four five six seven eight", "a " * 50]) == [
        -1.0,
        3 / 8 - 1,
        0.0,
        0.0,
    ]


@pytest.mark.shared
def test_sentiment_runs_on_the_story_model_and_real_sentences(tmp_path, shared_models, shared_data):
    stages = run(
        SENTIMENT,
        tmp_path,
        f"model.path={shared_models / 'stories260k'}",
        f"data.comparisons.path={shared_data / 'sentence-polarity' / 'train.jsonl.gz'}",
        "data.comparisons.limit=80",
    )
    assert stages.keys() == {"reward", "ppo", "evaluate"}
    assert stages["ppo"]["updates"] == 2
    assert 0 <= stages["reward"]["accuracy"] <= 1


@pytest.mark.shared
def test_hh_runs_on_the_story_model_and_real_dialogues(tmp_path, shared_models, shared_data):
    limits = ("data.demonstrations.limit=60", "data.comparisons.limit=60", "sft.epochs=1")
    model = f"model.path={shared_models / 'stories260k'}"
    stages = run(HH, tmp_path, model, *pairs_in(shared_data), *limits)
    assert stages.keys() == {"sft", "reward", "ppo", "evaluate"}
    assert stages["sft"]["perplexity"] < stages["sft"]["perplexity_before"]
    steps = [e for e in read_events(tmp_path / "events.jsonl") if e["event"] == "step" and e["stage"] == "ppo"]
    assert all("score_long_enough" in step and "score_reward_model" in step for step in steps)


@pytest.mark.shared
def test_dpo_on_hh_runs_on_the_story_model_and_real_dialogues(tmp_path, shared_models, shared_data):
    limits = ("data.demonstrations.limit=60", "data.comparisons.limit=60", "sft.epochs=1")
    short = (
        "threads=1",
        "prefer.max_new_tokens=6",
        "evaluate.prompts=4",
        f"model.path={shared_models / 'stories260k'}",
    )
    stages = run(HH_DPO, tmp_path, *pairs_in(shared_data), *limits, short=short)
    assert stages.keys() == {"sft", "prefer", "evaluate"}
    assert abs(stages["prefer"]["loss_before"] - 0.6931) < 1e-3
    assert stages["prefer"]["loss"] <= stages["prefer"]["loss_before"]


def test_hh_runs_on_the_architecture_of_its_hub_model(tmp_path, shared_models, shared_data):
    # Pythia is GPT-NeoX: here a tiny random one behind the story model's tokenizer
    save_causal_lm(
        tmp_path / "neox", tiny_model("gpt_neox", vocab_size=512), load_tokenizer(shared_models / "stories260k")
    )
    limits = ("data.demonstrations.limit=40", "data.comparisons.limit=40", "sft.epochs=1")
    stages = run(HH, tmp_path / "run", f"model.path={tmp_path / 'neox'}", *pairs_in(shared_data), *limits)
    assert stages["ppo"]["updates"] == 2
