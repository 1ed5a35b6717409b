"""Recipes with published settings: they have them, and all their stages run, cut to two steps of a tiny model."""

import json
from pathlib import Path

import pytest
from helpers.pages import named
from helpers.recipes import Workplace, model_folder

from keel.algorithms.settings import KL_PRESETS
from keel.cli.main import main
from keel.core.config import load_config
from keel.stages.recipe import Recipe

FOLDER = Path(__file__).resolve().parents[2] / "recipes"
ONLINE = FOLDER / "hh-harmless-online.yaml"
TINY = ("threads=1", "model.path=model", "model.dtype=float32", "data.max_tokens=64", "evaluate.prompts=4")
DATA = tuple(
    f"data.{kind}={{path: {file}, holdout: 0.25, format: auto, data_dir: null, split: train}}"
    for kind, file in (("demonstrations", "demos.jsonl"), ("comparisons", "pairs.jsonl"))
)
SHORT = {
    "sft": ("sft.epochs=1", "sft.batch=16", "sft.optim.name=adamw"),
    "prefer": ("prefer.batch=16", "prefer.max_new_tokens=6", "prefer.optim.name=adamw"),
    "reward": ("reward.epochs=1", "reward.batch=16", "reward.best_of=0", "reward.optim.name=adamw"),
    "ppo": ("ppo.updates=2", "ppo.prompts=8", "ppo.max_new_tokens=6", "ppo.evaluate_prompts=4", "ppo.optim.name=adamw"),
    "best_of": ("best_of.n=2", "best_of.prompts=8", "best_of.max_new_tokens=6", "best_of.unfinished=keep"),
    "rounds": ("rounds.count=2", "rounds.comparisons=8"),
}


def run(recipe: Path, out: str, *sections: str, settings: tuple[str, ...] = ()) -> dict:
    changes = [*TINY, *DATA, *(change for name in sections for change in SHORT[name]), *settings]
    assert main(["run", str(recipe), "--out", out, *(word for change in changes for word in ("-s", change))]) == 0
    return json.loads((Path(out) / "summary.json").read_text())["stages"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


def test_zephyr_has_the_settings_of_its_handbook():
    full, lora = (load_config(Recipe, FOLDER / f"{name}.yaml") for name in ("zephyr", "zephyr-lora"))
    assert (full.sft.optim.learning_rate, full.sft.batch, full.sft.epochs) == (2e-5, 128, 1)
    assert (full.prefer.optim.learning_rate, full.prefer.batch, full.prefer.dpo.beta) == (5e-7, 128, 0.01)
    assert (lora.sft.optim.learning_rate, lora.prefer.optim.learning_rate, lora.prefer.dpo.beta) == (2e-4, 5e-6, 0.01)
    assert (lora.prefer.lora.rank, lora.prefer.lora.alpha, lora.model.quantise) == (16, 16, "4bit")
    for recipe in (full, lora):
        assert recipe.method == "dpo"
        for section in (recipe.sft, recipe.prefer):
            optim = section.optim
            assert (optim.schedule, optim.warmup_share, optim.final_share, section.epochs) == ("cosine", 0.1, 0.0, 1)
    # 7.24 billion parameters of Mistral at 8 bytes, docs/memory.md
    assert "58 GB" in named("published-recipes.md")


def test_instructgpt_has_the_settings_of_its_paper():
    recipe = load_config(Recipe, FOLDER / "instructgpt.yaml")
    ppo = recipe.ppo
    assert ppo.updates * ppo.prompts * ppo.samples == 256_000
    assert (ppo.prompts, ppo.prompts // ppo.ppo.minibatches, ppo.ppo.epochs) == (512, 64, 1)
    assert (ppo.kl.controller, ppo.kl.initial) == ("fixed", 0.02)
    assert (ppo.ppo.gamma, ppo.ppo.lam, ppo.ppo.clip_low, ppo.ppo.clip_high, ppo.temperature) == (1, 0.95, 0.2, 0.2, 1)
    assert ppo.optim.warmup_share * ppo.updates == 10
    assert (recipe.sft.optim.learning_rate, recipe.reward.optim.learning_rate) == (9.65e-6, 9e-6)
    assert (recipe.sft.epochs, recipe.sft.batch, recipe.reward.epochs, recipe.reward.batch) == (16, 32, 1, 64)
    assert KL_PRESETS["instructgpt"]["initial"] == 0.2  # guide B's figure, ten times the paper's


def test_zephyr_runs(place):
    model_folder(place.folder / "model", chat=True)
    (place.folder / "zephyr.jinja").write_text((FOLDER / "zephyr.jinja").read_text())
    stages = run(FOLDER / "zephyr.yaml", "run", "sft", "prefer", settings=("model.chat_template=zephyr.jinja",))
    assert {"sft", "prefer", "evaluate"} <= stages.keys()
    assert abs(stages["prefer"]["loss_before"] - 0.6931) < 1e-3


def test_zephyr_with_lora_runs(place):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    stages = run(FOLDER / "zephyr-lora.yaml", "run", "sft", "prefer")
    assert {"sft", "prefer", "evaluate"} <= stages.keys()


def test_instructgpt_runs(place):
    stages = run(FOLDER / "instructgpt.yaml", "run", "sft", "reward", "ppo", settings=("ppo.ppo.minibatches=2",))
    assert {"sft", "reward", "ppo", "evaluate"} <= stages.keys()
    assert stages["ppo"]["updates"] == 2


@pytest.mark.parametrize(
    ("method", "stage"),
    [
        ("iterative_dpo", "prefer"),
        ("online_dpo", "ppo"),
        ("rloo", "ppo"),
        ("rejection", "rejection"),
        ("best_of_n", "evaluate"),
        ("dpo", "prefer"),
    ],
)
def test_one_word_switches_the_method_of_the_online_recipe(method, stage, place):
    stages = run(ONLINE, "run", *SHORT, settings=(f"method={method}",))
    assert stage in stages
    assert "evaluate" in stages


def test_ppo_is_followed_by_dpo_on_fresh_pairs(place):
    stages = run(FOLDER / "ppo-then-dpo.yaml", "run", *SHORT)
    assert {"sft", "reward", "ppo", "prefer", "evaluate"} <= stages.keys()
