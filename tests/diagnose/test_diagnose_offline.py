"""Each rule for fixed sets fires on its planted fault and is silent on the run that is well."""

import numpy as np
import pytest
from helpers import foreign_runs as runs

from keel.diagnose import offline
from keel.diagnose.read import read_log
from keel.monitor.history import History
from keel.monitor.thresholds import DEFAULT

FAULTS = [
    (offline.not_finite, runs.ppo_nan, runs.ppo, "stop"),
    (offline.held_out_loss, runs.dpo_overfit, runs.dpo, "act"),
    (offline.gap, runs.dpo_overfit, runs.dpo, "act"),
    (offline.saturated, runs.dpo_overfit, runs.dpo, "watch"),
    (offline.chosen_falls, runs.dpo_displaced, runs.dpo, "act"),
    (offline.pair_accuracy, runs.reward_noise, runs.reward, "act"),
    (offline.no_learning, runs.reward_noise, runs.reward, "watch"),
    (offline.score_size, lambda: runs.reward(max_reward=runs.line(1, 400)), runs.reward, "stop"),
]


@pytest.mark.parametrize(("rule", "ill", "well", "level"), FAULTS, ids=[rule.__name__ for rule, *_ in FAULTS])
def test_a_rule_fires_on_its_fault_and_not_on_the_healthy_twin(rule, ill, well, level, tmp_path):
    (sick,) = read_log(runs.trainer_state(ill(), tmp_path / "ill")).stages
    (healthy,) = read_log(runs.trainer_state(well(), tmp_path / "well")).stages
    verdict = rule(sick.history, DEFAULT)
    assert verdict.level == level
    assert verdict.remedy
    assert rule(healthy.history, DEFAULT).level == "ok"


@pytest.mark.parametrize("rule", [rule for rule, *_ in FAULTS if rule is not offline.not_finite])
def test_a_rule_without_its_figures_says_so(rule):
    for history in (History(), History.of([{"other": 1.0}] * 3), History.of([{"loss": float("nan")}] * 20)):
        verdict = rule(history, DEFAULT)
        assert verdict.level == "ok"
        assert "Not measured" in verdict.message


def test_a_single_broken_update_is_only_watched():
    rows = [{"loss": 0.5} for _ in range(10)]
    rows[4] = {"loss": float("inf")}
    verdict = offline.not_finite(History.of(rows), DEFAULT)
    assert (verdict.level, verdict.figures["first"]) == ("watch", 5)


def test_start_and_end_are_means_of_a_tenth():
    values = np.arange(100.0)
    assert offline.start_and_end(values) == (4.5, 94.5)
    assert offline.start_and_end(np.array([np.nan, 2.0, np.nan, 4.0])) == (2.0, 4.0)
    assert all(np.isnan(offline.start_and_end(np.array([]))))
