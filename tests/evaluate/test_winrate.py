import pytest

from keel.evaluate.winrate import win_rate
from keel.stats.intervals import wilson


def test_wins_count_one_ties_half():
    found = win_rate([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 5.0, 1.0])
    assert found["rate"] == (1 + 0.5 + 0 + 1) / 4
    assert (found["low"], found["high"]) == wilson(2.5, 4)
    assert found["n"] == 4


def test_differences_below_rounding_are_ties():
    assert win_rate([0.1 + 0.2], [0.3])["rate"] == 0.5


def test_a_policy_against_itself_wins_half():
    assert win_rate([1.0] * 50, [1.0] * 50)["rate"] == 0.5


def test_swapping_the_sides_mirrors_rate_and_interval():
    ours, theirs = [1.0, 2.0, 3.0, 0.0], [0.0, 3.0, 1.0, 0.0]
    a, b = win_rate(ours, theirs), win_rate(theirs, ours)
    assert a["rate"] == pytest.approx(1 - b["rate"])
    assert a["low"] == pytest.approx(1 - b["high"])


def test_prompts_that_all_differ_give_the_wilson_interval():
    found = win_rate([1.0, 2.0, 0.0], [0.0, 0.0, 1.0], ["x", "y", "z"])
    assert (found["low"], found["high"]) == wilson(2, 3)


def test_answers_to_one_prompt_are_not_independent():
    wins = [1.0] * 30 + [0.0] * 30
    apart = win_rate(wins, [0.5] * 60, list(range(60)))
    together = win_rate(wins, [0.5] * 60, [i // 10 for i in range(60)])  # six prompts, each all won or all lost
    assert together["rate"] == apart["rate"] == 0.5
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


@pytest.mark.parametrize("prompts", [["same"] * 20, [i // 2 for i in range(20)]], ids=["one prompt", "ten prompts"])
def test_a_clean_sweep_over_repeated_prompts_is_not_certainty(prompts):
    found = win_rate([1.0] * 20, [0.0] * 20, prompts)
    assert found["rate"] == 1.0
    assert (found["low"], found["high"]) == wilson(len(set(prompts)), len(set(prompts)))


def test_nothing_to_compare_is_a_mistake():
    with pytest.raises(ValueError, match="0 utilities"):
        win_rate([], [])
    with pytest.raises(ValueError, match="cannot be compared"):
        win_rate([1.0], [1.0, 2.0])
