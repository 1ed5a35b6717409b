"""Simulated raters: their faults are as large as stated, and a pair's votes depend on nothing else."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from keel.annotate.consensus import majority
from keel.core.errors import DataError
from keel.demo.raters import Rater, collect, panel
from keel.demo.world import Answer, Features, World, true_preference

WORLD = World(0)
CAREFUL = Rater(name="careful", temperature=1e-6)
GOOD, BAD = Features(right=1, tokens=9), Features(wrong=1, tokens=9)


def share_of_a(rater: Rater, left: Features, right: Features, judgments: int = 4000) -> float:
    rng = np.random.default_rng(0)
    choices = [rater.judge(left, right, rng) for _ in range(judgments)]
    return choices.count("a") / judgments


def answered_pairs(count: int, seed: int = 1):
    rng = np.random.default_rng(seed)
    questions = [WORLD.train_questions[index] for index in rng.integers(0, len(WORLD.train_questions), count)]
    a, b = ([Answer(WORLD.demonstration(q, rng)) for q in questions] for _ in range(2))
    return questions, a, b


def measure(pairs, raters) -> tuple[float, float, float]:
    """Pairwise agreement and majority-against-truth, both without ties, and the share of tied votes."""
    same, right, ties = [], [], []
    for question, a, b, comparison in zip(*pairs, collect(WORLD, *pairs, raters, seed=2), strict=True):
        choices = [vote.choice for vote in comparison.votes]
        ties += [choice == "tie" for choice in choices]
        same += [x == y for x, y in combinations(choices, 2) if "tie" not in (x, y)]
        truth = true_preference(WORLD.features(question, a.text), WORLD.features(question, b.text))
        if 0.5 not in (truth, comparison.preference):
            right.append(truth == comparison.preference)
    return float(np.mean(same)), float(np.mean(right)), float(np.mean(ties))


def test_a_careful_rater_tells_the_truth():
    assert share_of_a(CAREFUL, GOOD, BAD) == 1.0
    assert share_of_a(CAREFUL, BAD, GOOD) == 0.0


def test_noise_is_logistic_in_the_difference_of_utilities():
    rater = Rater(name="noisy", temperature=2.0)
    better = Features(right=1, closing=1)  # 0.5 better
    assert share_of_a(rater, better, GOOD) == pytest.approx(1 / (1 + np.exp(-0.25)), abs=0.025)


def test_the_left_side_draws_a_position_biased_rater():
    rater = Rater(name="left", position_bias=1.0)
    assert share_of_a(rater, GOOD, GOOD) == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.025)


def test_a_lazy_rater_clicks_on_either_side():
    assert share_of_a(replace(CAREFUL, lazy=1.0), GOOD, BAD) == pytest.approx(0.5, abs=0.025)


def test_an_unnoticed_wrong_fact_is_neither_blamed_nor_believed():
    rater = replace(CAREFUL, fact_noticing=0.7)
    refusal = Features(
        refusal=1, polite=0, closing=0, filler=1
    )  # -0.5: between a seen (-2) and an unseen (0) wrong fact
    assert share_of_a(rater, BAD, refusal) == pytest.approx(0.3, abs=0.025)
    assert share_of_a(rater, GOOD, BAD) == 1.0


def test_planted_biases_reward_length_and_flattery():
    longer, flattering = replace(GOOD, tokens=20), replace(GOOD, flattery=1)
    assert share_of_a(replace(CAREFUL, length_bias=0.08), longer, GOOD) == 1.0
    assert share_of_a(CAREFUL, flattering, GOOD) == 0.0
    assert share_of_a(replace(CAREFUL, flattery_bias=0.8), flattering, GOOD) == 1.0


def test_close_answers_are_ties():
    rng = np.random.default_rng(0)
    rater = Rater(name="unsure", tie_band=0.4)
    ties = [rater.judge(GOOD, GOOD, rng) for _ in range(4000)].count("tie") / 4000
    assert ties == pytest.approx(2 / (1 + np.exp(-0.4)) - 1, abs=0.025)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_honest_panel_agrees_and_is_right_as_often_as_documented(seed: int):
    agreement, majority, ties = measure(answered_pairs(3000), panel(seed=seed))
    assert 0.76 < agreement < 0.80
    assert 0.89 < majority < 0.93
    assert 0.03 < ties < 0.06


def test_a_biased_panel_agrees_as_much_and_is_right_less_often():
    agreement, majority, _ = measure(answered_pairs(3000), panel(length_bias=0.08, flattery_bias=0.8))
    assert 0.76 < agreement < 0.81
    assert 0.83 < majority < 0.875


def test_a_lazy_share_never_reads():
    raters = panel(10, lazy_share=0.4)
    assert sum(rater.lazy == 1.0 for rater in raters) == 4
    assert all(rater.lazy <= 0.12 for rater in raters if rater.lazy < 1.0)


def test_panels_differ_by_seed_but_not_in_overall_quality():
    first, second = panel(seed=0), panel(seed=1)
    assert first != second
    assert first == panel(seed=0)
    assert sorted(r.temperature for r in first) == pytest.approx(sorted(r.temperature for r in second))


def test_votes_of_a_pair_do_not_depend_on_the_other_pairs():
    questions, a, b = answered_pairs(40)
    together = collect(WORLD, questions, a, b, panel(), seed=7)
    apart = collect(WORLD, questions[::-3], a[::-3], b[::-3], panel(), seed=7)
    assert apart == together[::-3]
    assert together != collect(WORLD, questions, a, b, panel(), seed=8)


def test_a_comparison_keeps_its_texts_and_names_its_raters():
    questions, a, b = answered_pairs(30)
    for question, left, right, comparison in zip(
        questions, a, b, collect(WORLD, questions, a, b, panel()), strict=True
    ):
        assert (comparison.prompt, comparison.a, comparison.b) == (question.prompt, left.text, right.text)
        assert len({vote.rater for vote in comparison.votes}) == 3
        assert {vote.rater for vote in comparison.votes} <= {rater.name for rater in panel()}
        assert comparison.preference == majority(comparison.votes).preference


def test_both_orders_are_shown_equally_often():
    # Raters who always take the left answer pick a and b equally often only if sides are swapped by a fair coin.
    left_only = [Rater(name=f"left-{index}", position_bias=1e6) for index in range(3)]
    votes = [vote.choice for c in collect(WORLD, *answered_pairs(1000), left_only) for vote in c.votes]
    assert votes.count("a") / len(votes) == pytest.approx(0.5, abs=0.03)


def test_the_same_text_twice_is_a_tie():
    question = WORLD.train_questions[0]
    (comparison,) = collect(WORLD, [question], [Answer("Sure.")], [Answer("Sure.")], panel())
    assert comparison.preference == 0.5


def test_impossible_requests_say_what_was_expected():
    questions, a, b = answered_pairs(2)
    with pytest.raises(DataError, match="2 questions but 1 answers a"):
        collect(WORLD, questions, a[:1], b, panel())
    with pytest.raises(DataError, match="votes_per_pair=9 does not fit a panel of 8"):
        collect(WORLD, questions, a, b, panel(), votes_per_pair=9)
    with pytest.raises(DataError, match="lazy share 2"):
        panel(lazy_share=2.0)
