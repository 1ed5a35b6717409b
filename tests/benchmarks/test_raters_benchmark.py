"""The benchmark of raters: the claims of the page on a smaller scale, and the speed that is promised."""

import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pytest

from keel.data.vote_files import read_votes
from keel.data.vote_report import vote_report

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "raters.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("raters_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dawid_skene_beats_the_majority_and_soft_labels_beat_hard_ones(bench):
    found = [bench.world(seed) for seed in range(25)]
    label, model = ({name: np.mean([one[name][column] for one in found]) for name in found[0]} for column in (0, 1))
    assert label["Dawid-Skene, soft"] > label["majority"] + 0.01
    assert model["vote share"] > model["majority"] + 0.004
    assert model["Dawid-Skene, soft"] > model["Dawid-Skene, hard"] + 0.004
    assert model["Dawid-Skene, soft"] > model["majority"] + 0.004


def test_the_reward_model_is_at_its_optimum(bench):
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(200, 5)), rng.random(200)
    weights = bench.reward_model(features, target)
    slope = features.T @ (1 / (1 + np.exp(-features @ weights)) - target) + weights
    assert np.abs(slope).max() < 1e-8


def test_fifty_thousand_items_of_five_raters_are_read_and_reported_in_under_three_seconds(bench, tmp_path):
    votes = bench.votes_of_five()
    words = ("a", "tie", "b")
    lines = (
        json.dumps({"id": item, "votes": {f"rater {k}": words[c] for k, c in enumerate(row) if c >= 0}})
        for item, row in enumerate(votes.tolist())
    )
    path = tmp_path / "votes.jsonl"
    path.write_text("\n".join(lines))
    start = time.process_time()
    report = vote_report(read_votes(path))
    assert time.process_time() - start < 3
    assert report.agreement.num_votes == (votes >= 0).sum()
    assert (np.diff(report.skill.reliability) < 0).all()


def test_the_tired_and_the_steady_rater_of_the_benchmark_differ(bench):
    assert sum(bench.over_time(seed, 300, tired=0.4).tired for seed in range(8)) >= 7
    assert sum(bench.over_time(seed, 300).tired for seed in range(8)) <= 2
