"""One word switches: which sections run for it, and what it says when they are not there."""

from pathlib import Path
from typing import Any, get_args

import pytest

from keel.cli.main import main
from keel.core.config import load_config, to_yaml
from keel.core.errors import ConfigError
from keel.stages.methods import METHODS, TRAINERS, MethodName, method_of
from keel.stages.recipe import Recipe

PARTS = [{"name": "kind", "python": "people.py:kind"}]
EVERYTHING: dict[str, Any] = {
    "model": {"path": "m"},
    "data": {"demonstrations": {"path": "d.jsonl"}, "prompts": {"path": "p.jsonl"}},
    "sft": {},
    "reward": {},
    "prefer": {"batch": 8},
    "best_of": {"n": 4},
    "ppo": {"rewards": [{"name": "learned", "model": "stage"}, *PARTS]},
    "rounds": {"count": 3, "first_comparisons": 100, "labeller": "people.py:label"},
}


def recipe(*overrides: str, **sections: Any) -> Recipe:
    return load_config(Recipe, None, list(overrides), base={**EVERYTHING, **sections})


def test_every_word_is_explained():
    assert set(get_args(MethodName)) == set(METHODS)
    assert all(set(method.runs) <= set(TRAINERS) and method.says for method in METHODS.values())


@pytest.mark.parametrize("word", METHODS)
def test_one_word_chooses_among_the_sections_of_a_recipe(word):
    settled = recipe(f"method={word}")
    assert tuple(name for name in TRAINERS if getattr(settled, name)) == METHODS[word].runs
    assert method_of(settled) == word
    last = getattr(settled, METHODS[word].runs[-1])
    assert {key: getattr(last, key) for key in METHODS[word].settings} == METHODS[word].settings
    assert settled.rounds.count == (3 if METHODS[word].rounds else 1), "judgments are still collected first"
    assert settled.reward is not None


@pytest.mark.parametrize("word", METHODS)
def test_the_recipe_that_a_run_keeps_says_the_same_again(word, tmp_path):
    settled = recipe(f"method={word}")
    path = tmp_path / "recipe.yaml"
    path.write_text(to_yaml(settled))
    assert load_config(Recipe, path) == settled


def test_rounds_that_the_rewards_judge_are_for_prefer_alone():
    """So one recipe serves all words: a reward model cannot be refreshed by its own judgments."""
    judged = ("rounds.judge=reward", "rounds.first_comparisons=0", "data.comparisons.path=c.jsonl")
    assert recipe("method=ppo", *judged).rounds is None
    assert recipe("method=hybrid", *judged).rounds.count == 1
    assert recipe("method=iterative_dpo", *judged).rounds.count == 3


def test_comparisons_of_the_data_need_no_rounds():
    data = {**EVERYTHING["data"], "comparisons": {"path": "c.jsonl"}}
    assert recipe("method=dpo", data=data).rounds is None
    assert recipe("method=ppo", data=data).rounds.count == 3


def test_what_an_algorithm_asks_of_its_section_is_asked_when_the_word_changes_it():
    assert recipe("method=grpo").ppo.kl.preset == "grpo"
    assert recipe("method=ppo").ppo.kl.preset == "none"
    with pytest.raises(ConfigError, match=r"ppo: rloo compares the samples of a prompt: samples=1 must be 2 or more"):
        recipe("method=rloo", "ppo.samples=1")


@pytest.mark.parametrize("section", ["best_of", "rounds"])
def test_the_rewards_of_ppo_judge_wherever_no_others_are_named(section):
    word = {"best_of": "rejection", "rounds": "iterative_dpo"}[section]
    judged = getattr(recipe(f"method={word}"), section)
    assert [part.name for part in judged.rewards] == ["learned", "kind"]
    own = getattr(recipe(f"method={word}", f"{section}.rewards={PARTS}"), section)
    assert [part.name for part in own.rewards] == ["kind"]


@pytest.mark.parametrize(
    ("word", "missing", "example"),
    [
        ("dpo", "prefer", "prefer:\n  batch: 32"),
        ("rloo", "ppo", "ppo:\n  updates: 100"),
        ("rejection", "best_of", "best_of:\n  n: 8"),
        ("hybrid", "rounds", "rounds:\n  comparisons: 800\n  judge: reward"),
    ],
)
def test_a_missing_section_is_named_with_an_example(word, missing, example):
    with pytest.raises(ConfigError) as refused:
        recipe(f"method={word}", **{missing: None})
    assert f"method: {word}" in str(refused.value)
    assert f"needs a section {missing}, which this recipe lacks" in str(refused.value)
    assert example in str(refused.value)


@pytest.mark.parametrize(
    ("word", "meant"), [("rlooo", "rloo"), ("best_of", "best_of_n"), ("iterativ_dpo", "iterative_dpo")]
)
def test_a_word_that_is_nearly_right_is_guessed(word, meant):
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        recipe(f"method={word}")


@pytest.mark.parametrize(
    ("overrides", "sections", "said"),
    [
        ([], {}, "ppo and prefer and best_of would each train the policy from SFT on. Say which with one word"),
        (["prefer.pairs=fresh"], {"best_of": None}, None),
        (["best_of.n=1", "method=rejection"], {}, "best_of.n: expected at least 2"),
        (["method=best_of_n", "evaluate.temperature=0"], {}, "evaluate.temperature"),
        (["method=best_of_n"], {"reward": None}, "best_of.rewards names the reward model of this recipe"),
        (["method=iterative_dpo", "rounds.judge=reward"], {"reward": None}, "rounds.rewards names the reward model"),
        (["method=iterative_dpo", "rounds.labeller=null"], {}, "rounds needs rounds.labeller"),
        (["rounds.judge=reward"], {"prefer": None, "best_of": None}, "cannot teach the reward model what it does not know"),
        (["method=ppo"], {"reward": None, "ppo": {"rewards": PARTS}}, "rounds with ppo needs a reward section"),
        (["prefer.pairs=fresh"], {"ppo": None, "best_of": None, "rounds": None, "reward": None}, "who judges them"),
        ([], {"ppo": None, "best_of": None, "prefer": None}, "rounds needs a section ppo, prefer or best_of"),
    ],
)  # fmt: skip
def test_sections_that_do_not_go_together_say_what_to_do(overrides, sections, said):
    if said is None:
        assert method_of(recipe(*overrides, **sections)) == "hybrid"
        return
    with pytest.raises(ConfigError) as refused:
        recipe(*overrides, **sections)
    assert said in str(refused.value)


@pytest.mark.parametrize("word", METHODS)
def test_the_demos_own_recipe_has_settings_of_every_method(word):
    demo = Path(__file__).resolve().parents[2] / "src" / "keel" / "demo" / "recipe.yaml"
    assert method_of(load_config(Recipe, demo, [f"method={word}"])) == word
    assert method_of(load_config(Recipe, demo)) == "ppo"


def test_a_command_for_a_section_that_the_method_leaves_out_says_which_word_runs_it(tmp_path, capsys):
    path = tmp_path / "all.yaml"
    path.write_text(to_yaml(recipe("method=ppo")))
    assert main(["prefer", str(path)]) == 2
    assert "method: ppo does not run that section" in capsys.readouterr().err
