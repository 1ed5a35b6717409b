"""The benchmark of the signals: the share of a step is that of the events, and counting runs on any shape."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "signals.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("signals_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def step(signals: float, rollout: float, score: float, update: float) -> dict:
    seconds = {"seconds_rollout": rollout, "seconds_score": score, "seconds_update": update}
    return {"event": "step", "seconds_signals": signals, **seconds}


def test_the_share_of_a_step_is_the_median_over_updates_of_rl(bench):
    events = [
        {"event": "step", "stage": "sft", "loss": 1.0},
        step(0.1, 1, 1, 8),
        step(0.3, 2, 2, 6),
        step(0.2, 5, 4, 1),
        {"event": "evaluated", "seconds_signals": 9.0},
    ]
    assert bench.share_of_step(events) == pytest.approx(0.02)


def test_all_signals_are_counted_on_a_small_shape(bench, monkeypatch):
    monkeypatch.setattr(bench, "SEEN_TEXTS", 50)
    found = bench.counting(4, 2, 12, 50)
    assert found["responses"] == 8
    assert 0 < found["signals_ms"] < 1000
    assert found["seen_trigrams"] > 0
