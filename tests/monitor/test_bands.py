"""Every rule at and around its lines, healthy runs silent, planted failures found."""

from math import inf, nan

import numpy as np
import pytest
from pydantic import ValidationError

from keel.core.config import load_config, to_dict
from keel.core.errors import ConfigError
from keel.monitor.bands import (
    accuracy_word,
    agreement_gate,
    is_flat,
    kl_ladder,
    reward_collapse,
    reward_model_accuracy,
    reward_model_scores,
    reward_saturation,
)
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import LEVELS, Verdict, worst


@pytest.mark.parametrize(
    ("per_token", "per_sequence", "flat", "level", "rule"),
    [
        (0.16, 6.0, False, "ok", "kl_per_sequence"),  # the healthy story run of REQUIREMENTS C1
        (0.24, 10.0, True, "ok", "kl_per_sequence"),
        (1.3, 55.0, False, "stop", "kl_per_sequence"),  # the hacked one
        (0.05, 2.0, False, "ok", "kl_per_sequence"),  # small, yet the reward rises
        (0.05, 2.0, True, "watch", "kl_per_token"),  # stalled
        (0.1, 4.0, True, "ok", "kl_per_sequence"),
        (0.5, 10.0, False, "ok", "kl_per_sequence"),
        (0.51, 10.0, False, "watch", "kl_per_token"),
        (2.0, 10.0, False, "watch", "kl_per_token"),
        (2.01, 10.0, False, "act", "kl_per_token"),
        (0.3, 20.0, False, "ok", "kl_per_sequence"),
        (0.3, 20.1, False, "stop", "kl_per_sequence"),
        (-0.01, -0.4, False, "ok", "kl_per_sequence"),  # an estimate may fall below 0
    ],
)
def test_kl_ladder(per_token, per_sequence, flat, level, rule):
    verdict = kl_ladder(per_token, per_sequence, reward_flat=flat)
    assert (verdict.level, verdict.rule) == (level, rule)
    assert "nats per" in verdict.message
    assert bool(verdict.remedy) == (level != "ok")
    assert verdict.figures == {"kl_nats_per_token": per_token, "kl_nats_per_sequence": per_sequence}


@pytest.mark.parametrize("broken", [(nan, 1.0), (0.1, inf)])
def test_kl_that_is_not_finite_stops(broken):
    assert kl_ladder(*broken).level == "stop"


def test_lines_can_be_moved_for_long_answers():
    assert kl_ladder(0.3, 90.0, thresholds=Thresholds(kl_stop_per_sequence=120)).level == "ok"


def test_rising_reward_is_not_flat_and_level_reward_is():
    noise = np.random.default_rng(0).normal(size=30)
    assert not is_flat((0.3 * np.arange(30) + noise).tolist())
    assert is_flat(noise.tolist())
    assert is_flat((-0.3 * np.arange(30) + noise).tolist())
    assert is_flat([1.0] * 10)


def test_a_short_or_broken_history_says_nothing():
    assert not is_flat([1.0] * 9)
    assert not is_flat([1.0] * 9 + [nan])


def test_flatness_rarely_misses_a_level_reward():
    rng = np.random.default_rng(1)
    called_flat = np.mean([is_flat(rng.normal(size=10).tolist()) for _ in range(500)])
    assert called_flat > 0.93


@pytest.mark.parametrize(
    ("accuracy", "word", "level"),
    [
        (0.30, "fail", "act"),
        (0.599, "fail", "act"),
        (0.60, "warn", "watch"),
        (0.649, "warn", "watch"),
        (0.65, "good", "ok"),
        (0.80, "good", "ok"),
        (0.801, "check leakage", "watch"),
        (0.90, "check leakage", "watch"),
        (0.901, "suspicious", "act"),
        (1.0, "suspicious", "act"),
    ],
)
def test_accuracy_bands(accuracy, word, level):
    verdict = reward_model_accuracy(accuracy, accuracy - 0.01, min(1.0, accuracy + 0.01))
    assert verdict.figures["verdict"] == word == accuracy_word(accuracy)
    assert verdict.level == level
    assert f"{accuracy:.1%}" in verdict.message
    assert "95 % interval" in verdict.message


def test_accuracy_says_which_bands_its_interval_reaches():
    verdict = reward_model_accuracy(0.61, 0.555, 0.662)
    assert "reaches into: fail, good." in verdict.message
    assert "coin flip" in reward_model_accuracy(0.52, 0.47, 0.57).message
    assert "reaches" not in reward_model_accuracy(0.72, 0.70, 0.74).message


def test_accuracy_not_above_a_trivial_rule_is_worth_a_look():
    verdict = reward_model_accuracy(0.70, 0.68, 0.72, baseline=0.71)
    assert verdict.level == "watch"
    assert "A trivial rule gets 71.0%" in verdict.message
    assert reward_model_accuracy(0.70, 0.68, 0.72, baseline=0.61).level == "ok"
    assert reward_model_accuracy(0.55, 0.53, 0.57, baseline=0.61).level == "act"


def test_accuracy_without_decided_pairs_says_so():
    verdict = reward_model_accuracy(nan, 0.0, 1.0)
    assert (verdict.level, verdict.figures["verdict"]) == ("act", "fail")
    assert "no held-out pair" in verdict.message


@pytest.mark.parametrize(
    ("std", "level"), [(0.0, "stop"), (1e-3, "stop"), (nan, "stop"), (5e-3, "watch"), (1e-2, "ok"), (1.2, "ok")]
)
def test_collapse(std, level):
    verdict = reward_collapse(std)
    assert verdict.level == level
    assert bool(verdict.remedy) == (level != "ok")


@pytest.mark.parametrize(
    ("largest", "mean", "level"),
    [(99.0, 3.0, "ok"), (100.0, nan, "ok"), (101.0, nan, "stop"), (400.0, 2.0, "watch"), (400.0, 300.0, "stop")],
)
def test_saturation(largest, mean, level):
    assert reward_saturation(largest, mean).level == level


@pytest.mark.parametrize("largest", [nan, inf])
def test_scores_that_are_not_finite_count_as_saturated(largest):
    assert reward_saturation(largest).level == "stop"


def test_scores_are_judged_by_the_graver_fault():
    assert reward_model_scores(1.0, 5.0).level == "ok"
    assert reward_model_scores(0.0, 0.5).rule == "reward_collapse"
    assert reward_model_scores(50.0, 900.0).rule == "reward_saturation"


@pytest.mark.parametrize(
    ("value", "level"), [(-0.2, "stop"), (0.399, "stop"), (0.4, "watch"), (0.599, "watch"), (0.6, "ok"), (1.0, "ok")]
)
def test_agreement_gate(value, level):
    verdict = agreement_gate(value)
    assert verdict.level == level
    assert bool(verdict.remedy) == (level != "ok")


def test_agreement_message_carries_all_figures():
    verdict = agreement_gate(0.31, 0.24, 0.38, num_items=412, num_raters=3, measure="Fleiss' kappa")
    assert verdict.message == (
        "Rater agreement is Fleiss' kappa 0.31 (95 % interval 0.24 to 0.38, 412 items, 3 raters), below 0.40: "
        "mostly noise."
    )
    assert "50 items" in verdict.remedy


@pytest.mark.parametrize(
    ("value", "low", "high", "level", "words"),
    [
        (0.68, -0.29, 1.0, "watch", "too few items to say, the interval spans both 0.40 and 0.60"),
        (0.5, 0.3, 0.7, "watch", "too few items to say"),
        (0.3, -0.2, 0.8, "stop", "too few items to say whether all of it is noise"),
        (0.68, 0.45, 0.9, "ok", "at or above 0.60"),
        (0.5, 0.3, 0.59, "watch", "usable, not yet good"),
    ],
)
def test_an_interval_over_both_lines_says_too_few_items(value, low, high, level, words):
    verdict = agreement_gate(value, low, high, num_items=5)
    assert verdict.level == level
    assert words in verdict.message


@pytest.mark.parametrize("value", [None, nan])
def test_undefined_agreement_is_neither_ok_nor_blocked(value):
    verdict = agreement_gate(value)
    assert verdict.level == "watch"
    assert "undefined" in verdict.message


def test_worst_is_the_gravest_and_the_first_of_equals():
    verdicts = [Verdict(level, f"{level}-{k}", "") for k in range(2) for level in LEVELS]
    assert worst(verdicts).rule == "stop-0"
    assert worst(verdicts[:2]).level == "watch"


def test_thresholds_are_settings(tmp_path):
    path = tmp_path / "lines.yaml"
    path.write_text("kl_stop_per_sequence: 40\n", encoding="utf-8")
    thresholds = load_config(Thresholds, path, ["agreement_block=0.3"])
    assert (thresholds.kl_stop_per_sequence, thresholds.agreement_block) == (40.0, 0.3)
    assert to_dict(thresholds)["accuracy_fail"] == 0.6


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("kl_watch_per_token=5", "kl_watch_per_token=5, kl_act_per_token=2"),
        ("accuracy_fail=0.7", "accuracy_fail=0.7, accuracy_warn=0.65"),
        ("kl_stop=5", "kl_stop"),
    ],
)
def test_lines_out_of_order_and_unknown_lines_are_refused(override, named):
    with pytest.raises(ConfigError, match=named):
        load_config(Thresholds, None, [override])


def test_thresholds_built_in_python_are_checked_too():
    with pytest.raises(ValidationError, match="must rise in this order"):
        Thresholds(agreement_block=0.9)
