"""The recipes that advice writes: valid for every method and machine, with the user's paths, and they run."""

from dataclasses import replace

import pytest
from helpers.advised import EIGHT_GPUS, LAPTOP, ONE_GPU, PEOPLE, advised, agreeing
from helpers.recipes import Workplace

from keel.advise.facts import Data
from keel.advise.methods import METHODS, fit_of
from keel.advise.recipe import CHECKS, recipe_of, unanswered
from keel.core.config import load_config
from keel.core.progress import Silent
from keel.stages.pipeline import run
from keel.stages.recipe import Recipe

FILES = {"demonstrations": "demos.jsonl", "comparisons": "pairs.jsonl", "prompts": "prompts.jsonl"}
PLENTY = Data(
    demonstrations=400, comparisons=9000, prompts=400, agreement=agreeing(0.7, 0.85), paths=tuple(FILES.items())
)
REWARDS = {"rlaif": frozenset({"ai"}), "cai": frozenset({"ai"})}


def written(method, **changes):
    """The values of the recipe for a method, whatever would have been advised."""
    base = {
        "data": PLENTY,
        "rewards": REWARDS.get(method, PEOPLE),
        "constitution": "principles.yaml",
        "judge": "judge.py:f",
    }
    advice = advised(**{**base, **changes})
    chosen = METHODS[method]
    return recipe_of(replace(advice, method=chosen, fit=fit_of(advice.facts, chosen)))


def valid(values):
    return load_config(Recipe, None, base=values)


@pytest.mark.parametrize("parameters", [1e6, 5e8, 7e9])
@pytest.mark.parametrize("machine", [LAPTOP, ONE_GPU, EIGHT_GPUS], ids=["laptop", "one GPU", "eight GPUs"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_machine_gives_a_valid_recipe(method, machine, parameters):
    recipe = valid(written(method, hardware=machine, parameters=parameters))
    assert recipe.model.path == "models/mine"
    assert recipe.data.demonstrations is None or recipe.data.demonstrations.path == "demos.jsonl"
    assert recipe.method == (None if method == "sft" else {"rlaif": "dpo", "cai": "dpo"}.get(method, method))


@pytest.mark.parametrize("method", ["rloo", "iterative_dpo", "ppo", "hybrid", "online_dpo"])
def test_fresh_labels_make_rounds_with_a_labeller(method):
    recipe = valid(written(method, fresh=True, labeller="judges.py:label"))
    assert recipe.rounds.labeller == "judges.py:label"
    assert recipe.rounds.judge == "labeller"


@pytest.mark.parametrize("verifier", [*CHECKS, "mine.py:check"])
@pytest.mark.parametrize("method", ["grpo", "rejection"])
def test_a_verifier_becomes_the_reward_and_no_reward_model_is_trained(method, verifier):
    recipe = valid(written(method, rewards=frozenset({"verifiable"}), verifier=verifier))
    (part,) = (recipe.ppo or recipe.best_of).rewards
    assert part.model is None
    assert recipe.reward is None


@pytest.mark.parametrize(
    ("who", "judge"),
    [("verifiable", "reward"), ("ai", "feedback"), ("people", "reward")],
    ids=["program", "model", "people"],
)
def test_iterative_dpo_asks_who_there_is(who, judge):
    data = PLENTY if who == "people" else replace(PLENTY, comparisons=0)
    recipe = valid(written("iterative_dpo", data=data, rewards=frozenset({who}), goal="maths"))
    assert recipe.rounds.judge == judge
    assert (recipe.reward is not None) == (who == "people")
    assert (recipe.feedback is not None) == (who == "ai")


def test_memory_becomes_settings():
    tight = valid(written("rloo", parameters=7e9))
    assert (tight.model.dtype, tight.model.quantise) == ("bfloat16", None)
    assert tight.ppo.layout == "one_trunk"
    assert tight.ppo.lora.rank == tight.reward.lora.rank == tight.sft.lora.rank == 16
    assert valid(written("dpo", parameters=7e9)).prefer.optim.name == "adamw8bit"
    assert valid(written("dpo", parameters=7e10)).model.quantise == "4bit"
    assert valid(written("dpo", parameters=1e8)).prefer.lora is None


def test_what_was_measured_of_the_labels_becomes_settings():
    noisy = replace(PLENTY, agreement=agreeing(0.5, 0.75), longer_wins=0.7)
    assert valid(written("dpo", data=noisy)).prefer.dpo.label_noise == pytest.approx(0.06, abs=0.01)
    assert valid(written("dpo")).prefer.dpo.label_noise == 0
    assert valid(written("ppo", data=noisy)).ppo.shaping.length_penalty == 0.1


def test_a_base_model_without_demonstrations_learns_the_preferred_responses_first():
    bare = replace(PLENTY, demonstrations=0, paths=(("comparisons", "pairs.jsonl"),))
    recipe = valid(written("dpo", data=bare, chat=False))
    assert recipe.sft is not None
    assert recipe.data.demonstrations.path == "pairs.jsonl"
    assert valid(written("dpo", data=bare, chat=True)).sft is None
    assert valid(written("orpo", data=bare, chat=False)).sft is None


def test_what_nobody_has_given_is_named():
    advice = advised(comparisons=20_000)
    assert unanswered(advice) == ["data.comparisons.path"]
    assert unanswered(advised(data=PLENTY)) == []


@pytest.mark.parametrize("method", ["dpo", "rloo", "rejection"])
def test_what_was_written_runs(method, tmp_path):
    place = Workplace(tmp_path)
    values = written(method, parameters=1e5, hardware=LAPTOP)
    short = [
        *(
            "threads=1",
            f"model.path={place.folder / 'model'}",
            "data.max_tokens=64",
            "evaluate.prompts=4",
            "sft.epochs=1",
        ),
        *{
            "dpo": ("prefer.max_new_tokens=6",),
            "rloo": (
                "reward.best_of=0",
                "ppo.updates=2",
                "ppo.prompts=4",
                "ppo.max_new_tokens=6",
                "ppo.evaluate_prompts=4",
            ),
            "rejection": (
                "reward.best_of=0",
                "best_of.prompts=8",
                "best_of.n=2",
                "best_of.rounds=1",
                "best_of.max_new_tokens=6",
            ),
        }[method],
    ]
    if method == "rejection":
        short.append("best_of.unfinished=keep")
    recipe = load_config(Recipe, None, short, base=values)
    summary = run(recipe, tmp_path / "run", Silent(), recipe_folder=place.folder)
    assert "evaluate" in summary["stages"]
