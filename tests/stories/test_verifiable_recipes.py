"""The recipes whose reward a program checks, on a model of 260,000 parameters."""

from pathlib import Path

import pytest

from keel.core.config import load_config
from keel.core.events import read_events
from keel.core.progress import Silent
from keel.stages.pipeline import run
from keel.stages.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ["ppo.evaluate_prompts=4", "evaluate.prompts=4", "ppo.prompts=2", "ppo.samples=4"]

pytestmark = pytest.mark.shared


def ran(name: str, folder: Path, *overrides: str) -> tuple[dict, list[dict]]:
    recipe = load_config(Recipe, RECIPES / name, list(overrides))
    summary = run(recipe, folder, Silent(), recipe_folder=RECIPES)
    return summary["stages"], read_events(folder / "events.jsonl")


def test_gsm8k_goes_from_the_published_files_through_template_and_verifier(shared_data, shared_models, tmp_path):
    stages, events = ran(
        "gsm8k-grpo.yaml",
        tmp_path / "run",
        *SMALL,
        f"model.path={shared_models / 'stories260k'}",
        "model.dtype=float32",
        f"data.prompts.path={shared_data / 'gsm8k' / 'train.jsonl.gz'}",
        f"evaluate.data.path={shared_data / 'gsm8k' / 'test.jsonl.gz'}",
        "data.prompts.subset=null",
        "evaluate.data.subset=null",
        "data.prompts.limit=64",
        "evaluate.data.limit=16",
        "data.prompts.holdout=0.2",
        "data.max_tokens=512",
        "ppo.max_new_tokens=12",
        "ppo.updates=2",
        "ppo.evaluate_every=2",
    )
    steps = [event for event in events if event["event"] == "step"]
    assert len(steps) == 2
    assert all(0 <= step["score_correct"] <= step["score_found"] <= 1 for step in steps)
    shown = next(event for event in events if event["event"] == "samples")["samples"]
    assert all("####" not in sample["prompt"] for sample in shown), "no answer is given away"
    assert stages["evaluate"]["score"] == 0.0, "no model of this size can add"


def test_a_small_story_model_is_on_its_way_to_the_dog_within_seconds(shared_models, tmp_path):
    _, events = ran(
        "story-dog.yaml",
        tmp_path / "run",
        f"model.path={shared_models / 'stories260k'}",
        "sft=null",  # what it learns from its own endings takes half of the time
        "ppo.updates=8",
        "ppo.prompts=12",
        "ppo.evaluate_every=8",
        "ppo.evaluate_prompts=64",
        "ppo.max_new_tokens=32",
        "ppo.shaping.missing_eos_ceiling=null",
        "ppo.optim.learning_rate=1e-3",
        "evaluate=null",
    )
    before, after = [event for event in events if event["event"] == "evaluated" and "score_dog" in event]
    assert after["score_dog"] > before["score_dog"] + 0.2
    assert after["score_solved"] <= min(after["score_dog"], after["score_ends"])
