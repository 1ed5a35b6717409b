"""benchmarks/methods.py: every method's recipe is valid, results become rows, what cannot run says so."""

import importlib.util
import sys
from pathlib import Path

import pytest

from keel.demo.run import build
from keel.stages.methods import METHODS as WORDS

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "methods.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("methods_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods") / "world"
    build(folder, 0, quick=True)
    return folder


def result(rate, **changes):
    base = {
        "true_win_rate": rate,
        "true_win_rate_low": rate - 0.04,
        "true_win_rate_high": rate + 0.04,
        "kl_nats_per_sequence": 2.0,
        "seconds": 50.0,
        "response_tokens_mean": 24.0,
        "labels": 2500,
        "judge": "people",
        "budgeted": True,
        "seconds_shared": {"sft": 80.0},
    }
    return {**base, **changes}


def test_every_entry_is_a_valid_recipe_of_its_method(bench, files):
    for entry in bench.METHODS.values():
        recipe = bench.recipe_of(files, 0, [f"method={entry.word}", *entry.settings])
        assert recipe.method == entry.word
        assert recipe.evaluate.prompts >= 512
        assert recipe.evaluate.preference == "judges.py:true_preference"
        assert (recipe.rounds is None or recipe.rounds.labeller == "judges.py:label") or entry.labels == 0


def test_the_methods_of_the_contract_are_there(bench):
    wanted = {"ppo", "rloo", "grpo", "online_dpo", "dpo", "ipo", "reinforce_pp", "iterative_dpo", "rejection"}
    assert wanted | {"best_of_8", "rlaif", "cai"} <= set(bench.METHODS)
    assert {entry.word for entry in bench.METHODS.values()} <= set(WORDS)


def test_what_methods_share_depends_on_no_method(bench, files):
    recipes = [
        bench.recipe_of(files, 0, [f"method={entry.word}", *entry.settings])
        for entry in bench.METHODS.values()
        if entry.labels
    ]
    assert len({recipe.sft.model_dump_json() for recipe in recipes}) == 1
    assert len({recipe.reward.model_dump_json() for recipe in recipes if recipe.reward}) == 1


def test_seeds_are_averaged_with_an_interval_of_the_mean(bench):
    row = bench.together([result(0.70), result(0.74)])
    assert row["true_win_rate"] == pytest.approx(0.72)
    assert row["true_win_rate_high"] - row["true_win_rate"] == pytest.approx(0.04 / 2**0.5)
    assert row["by_seed"] == [0.70, 0.74]
    assert bench.together([result(0.7)])["true_win_rate_low"] == pytest.approx(0.66)


def test_rows_become_a_table_and_a_plot(bench, tmp_path):
    rows = {"dpo": bench.together([result(0.7)]), "ppo": bench.together([result(0.75, judge="reward model")])}
    lines = bench.table(rows).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["`ppo`", "`dpo`"]
    bench.plot(rows, tmp_path / "methods.svg")
    drawn = (tmp_path / "methods.svg").read_text()
    assert "<svg" in drawn


def test_settings_make_another_run(bench):
    assert bench.key("dpo", 0, []) != bench.key("dpo", 0, ["prefer.epochs=1"]) != bench.key("dpo", 1, [])


def test_what_cannot_run_says_why_and_keeps_nothing(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(bench.sys, "executable", "/bin/false")
    found = bench.result_of("dpo", 0, [], tmp_path)
    assert "error" in found
    assert not list(tmp_path.rglob("*.json"))
