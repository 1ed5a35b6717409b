"""Killed at random moments and begun again, a run ends with the same bits (signal 9, twenty times for each stage)."""

from typing import Any

import pytest
from helpers.interrupted import attempt, interrupted, left_behind
from helpers.recipes import Workplace

KILLS = 20
PEOPLE = """
from keel.data.records import Comparison

def thanks(prompts, responses):
    return [float(response.split().count("thank")) for response in responses]

def judge(pairs):
    return [
        Comparison(prompt=pair.prompt, a=pair.a, b=pair.b, preference=0.9 if len(pair.a) > len(pair.b) else 0.2)
        for pair in pairs
    ]
"""
NOTHING: dict[str, Any] = {"sft": None, "reward": None, "ppo": None, "evaluate": None}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"sft": {"epochs": 3, "batch": 8, "patience": 3, "lora": {"rank": 4, "dropout": 0.1}}},
    "sft in 16 and 8 bits": {
        "sft": {"epochs": 3, "batch": 8, "patience": 3, "optim": {"name": "adamw8bit"}},
        "model": {"dtype": "bfloat16"},
    },
    "reward": {"reward": {"form": "hybrid", "batch": 4, "members": 2}},
    "prefer": {
        "prefer": {"batch": 4, "epochs": 2, "evaluate_every": 3, "lora": {"rank": 4}, "optim": {"learning_rate": 1e-2}}
    },
    "ppo": {
        "ppo": {
            "updates": 6,
            "rewards": [{"name": "thanks", "python": "people.py:thanks"}],
            "shaping": {"normalise": "running"},
        }
    },
    "rounds": {
        "reward": {"best_of": 0},
        "ppo": {"updates": 2},
        "rounds": {"count": 2, "comparisons": 8, "labeller": "people.py:judge"},
    },
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_is_not(stage, tmp_path):
    large = {}
    if "8 bits" in stage:
        pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
        large = {"hidden_size": 64, "intermediate_size": 96}  # of smaller tensors the library keeps 32 bits
    Workplace(tmp_path, **large).write("people.py", PEOPLE)
    changes = {**NOTHING, **STAGES[stage], "checkpoint": {"every_seconds": 0}}
    assert attempt(tmp_path, "undisturbed", changes)
    expected = left_behind(tmp_path / "undisturbed")
    assert any(name.endswith("model.safetensors") for name in expected["files"])
    for directory in interrupted(tmp_path, changes, KILLS, longest_s=0.6):
        found = left_behind(directory)
        for part, value in expected.items():
            assert found[part] == value, part
