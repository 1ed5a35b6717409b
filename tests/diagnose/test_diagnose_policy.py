"""Each rule for a log of RL fires on its planted fault and is silent on the run that is well."""

import numpy as np
import pytest
from helpers import foreign_runs as runs

from keel.diagnose import policy
from keel.diagnose.letter import write_letter
from keel.diagnose.read import read_log
from keel.diagnose.rulebook import RULES
from keel.monitor.history import History
from keel.monitor.thresholds import DEFAULT, Thresholds


def first_ppo(explained):
    """TRL's PPOTrainer before 0.12, which logs how much the critic explains."""
    log = [
        {"ppo/mean_scores": 0.1 * at, "objective/kl": 0.1 * at, "ppo/val/var_explained": explained, "step": at}
        for at in range(1, 41)
    ]
    return [row | {"ppo/loss/value": 0.2} for row in log]


def score(start, end, *, since=0):
    return runs.grpo(reward=runs.line(start, end, 0.02, since=since))


def risen_and_fallen():
    up, down = runs.line(0.2, 0.8, 0.02, updates=40), runs.line(0.8, 0.25, 0.02, updates=20)
    return runs.grpo(reward=np.concatenate([up, down]))


FAULTS = [
    (policy.distance, runs.ppo_drift, runs.ppo, "stop"),
    (policy.distance, runs.openrlhf_drift, runs.openrlhf, "act"),
    (policy.length_growth, runs.grpo_length_hack, runs.grpo, "act"),
    (policy.length_growth, runs.openrlhf_hack, runs.openrlhf, "act"),
    (policy.unfinished, runs.grpo_length_hack, runs.grpo, "act"),
    (policy.unfinished, lambda: runs.grpo(**{"completions/clipped_ratio": 0.8}), runs.openrlhf, "act"),
    (policy.collapse, runs.grpo_collapse, runs.grpo, "act"),
    (policy.spread, runs.grpo_collapse, runs.grpo, "act"),
    (policy.score_course, risen_and_fallen, runs.grpo, "act"),
    (policy.score_course, lambda: score(0.6, 0.2), runs.ppo, "act"),
    (policy.score_course, lambda: score(0.5, 0.5), runs.openrlhf, "watch"),
    (policy.update_size, lambda: runs.ppo(**{"policy/clipfrac_avg": 0.6}), runs.ppo, "act"),
    (policy.critic, lambda: first_ppo(-0.4), lambda: first_ppo(0.7), "watch"),
]


def history(log, folder):
    return read_log(runs.trainer_state(log, folder)).stages[0].history


@pytest.mark.parametrize(("rule", "ill", "well", "level"), FAULTS)
def test_a_rule_fires_on_its_fault_and_not_on_the_healthy_twin(rule, ill, well, level, tmp_path):
    verdict = rule(history(ill(), tmp_path / "ill"), DEFAULT)
    assert verdict.level == level
    assert verdict.remedy
    assert verdict.cause
    assert rule(history(well(), tmp_path / "well"), DEFAULT).level == "ok"


@pytest.mark.parametrize("rule", RULES["rl"])
@pytest.mark.parametrize(
    "rows", [[], [{"other": 1.0}] * 30, [{"score_mean": float("nan")}] * 2, [{"score_mean": 1.0}] * 30]
)
def test_a_rule_without_its_figures_or_on_constants_does_not_act(rule, rows):
    verdict = rule(History.of(rows), DEFAULT)
    assert verdict.level in ("ok", "watch") or verdict.rule == "not_finite"


def test_length_alone_is_watched_and_not_acted_upon(tmp_path):
    """Reasoning models grow longer answers for a good reason: no answer is cut off and the KL is small."""
    log = runs.grpo(**{"completions/mean_length": runs.line(120, 300, 4, seed=3)})
    assert policy.length_growth(history(log, tmp_path), DEFAULT).level == "watch"


def test_the_lines_are_settings(tmp_path):
    log = history(runs.ppo_drift(), tmp_path)
    assert policy.distance(log, Thresholds(kl_stop_per_sequence=100)).level == "ok"


@pytest.mark.parametrize("log", [runs.grpo, runs.ppo, runs.openrlhf])
def test_of_forty_healthy_runs_at_most_two_are_called_unwell(log, tmp_path):
    unwell = [
        run
        for run in range(40)
        if write_letter(runs.trainer_state(log(run=run), tmp_path / str(run))).status == "unwell"
    ]
    assert len(unwell) <= 2


def slow_hack(run):
    """Half as long again and more, a few answers cut off."""
    return runs.grpo(
        run=run,
        **{
            "completions/mean_length": runs.line(120, 260, 6, since=20, seed=run),
            "completions/clipped_ratio": np.clip(runs.line(0.02, 0.3, 0.02, since=20, seed=run + 7), 0, 1),
            "reward": runs.line(0.2, 1.2, 0.06, seed=run + 3),
        },
    )


def slow_collapse(run):
    return runs.grpo(
        run=run,
        entropy=np.maximum(runs.line(1.2, 0.2, 0.05, since=20, seed=run), 0.02),
        frac_reward_zero_std=np.clip(runs.line(0.05, 0.7, 0.04, since=20, seed=run + 1), 0, 1),
    )


def slow_drift(run):
    return runs.ppo(run=run, **{"objective/kl": np.abs(runs.line(0, 30, 1, since=15, seed=run))})


def slow_fall(run):
    return runs.openrlhf(run=run, **{"rollout/reward_mean": runs.line(1.0, 0.6, 0.08, since=20, seed=run)})


@pytest.mark.parametrize(
    ("log", "rule"),
    [
        (slow_hack, "length_growth"),
        (slow_collapse, "entropy_collapse"),
        (slow_drift, "distance"),
        (slow_fall, "score_course"),
    ],
)
def test_a_milder_fault_is_found_in_nine_runs_of_ten(log, rule, tmp_path):
    letters = [write_letter(runs.trainer_state(log(run), tmp_path / str(run))) for run in range(10)]
    found = [letter for letter in letters if letter.findings and letter.findings[0].gravity >= 2]
    assert sum(rule in {finding.verdict.rule for finding in letter.findings} for letter in found) >= 9
