"""Where an AI judge is refused, watched or trusted."""

from math import nan

import pytest

from keel.monitor.judges import judge_calibration, judge_kappa, judge_side


@pytest.mark.parametrize(
    ("kappa", "golden", "level"),
    [(0.39, 200, "stop"), (0.4, 200, "watch"), (0.59, 200, "watch"), (0.6, 200, "ok"), (0.9, 20, "watch")],
)
def test_kappa_with_people_decides_whether_a_judge_may_label(kappa, golden, level):
    verdict = judge_kappa(kappa, kappa - 0.1, kappa + 0.1, golden, least=0.4)
    assert verdict.level == level
    assert f"{kappa:.2f}" in verdict.message


def test_a_judge_below_the_line_is_used_for_a_reason_that_is_kept():
    verdict = judge_kappa(0.2, 0.1, 0.3, 100, least=0.4, override="we study weak judges")
    assert verdict.level == "act"
    assert verdict.figures["override"] == "we study weak judges"
    assert "we study weak judges" in verdict.message


def test_a_kappa_that_is_no_number_is_not_trusted_and_no_golden_set_is_said():
    same = judge_kappa(nan, nan, nan, 50, least=0.4)
    assert same.level == "stop"
    assert "Give more golden comparisons" in same.remedy
    assert same.message == "The AI judge's kappa with people cannot be computed: all verdicts are the same."
    assert judge_kappa(nan, nan, nan, 0, least=0.4).level == "watch"


@pytest.mark.parametrize(("pull", "level"), [(0.0, "ok"), (-0.15, "watch"), (0.35, "act"), (nan, "watch")])
def test_a_pull_to_one_side_is_told_either_way(pull, level):
    assert judge_side(pull).level == level


@pytest.mark.parametrize(("ece", "level"), [(0.05, "ok"), (0.06, "watch"), (nan, "watch")])
def test_labels_that_do_not_mean_what_they_say_are_told(ece, level):
    assert judge_calibration(ece, 1.5, 200).level == level
