"""Tie models: worked likelihoods, and recovery of planted rater habits (SCIENCE T6)."""

import numpy as np
import pytest
from scipy.optimize import minimize

from keel.core.errors import DataError
from keel.stats.ranking import bradley_terry
from keel.stats.ties import fit_ties


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def probabilities(model, gap, tie):
    """P(first wins), P(tie), P(second wins) from the definitions, as in the papers."""
    i, j = np.exp(gap), np.ones_like(gap)
    if model == "rao_kupper":
        first, second = i / (i + tie * j), j / (tie * i + j)
        return first, 1 - first - second, second
    total = i + j + tie * np.sqrt(i * j)
    return i / total, tie * np.sqrt(i * j) / total, j / total


def judged(model, tie, position, num_items=30, comparisons=40_000, seed=0):
    rng = np.random.default_rng(seed)
    utility = rng.normal(size=num_items)
    first = rng.integers(num_items, size=comparisons)
    second = (first + rng.integers(1, num_items, size=comparisons)) % num_items
    won, tied, _ = probabilities(model, utility[first] - utility[second] + position, tie)
    draw = rng.random(comparisons)
    outcome = np.where(draw < won, 1.0, np.where(draw < won + tied, 0.5, 0.0))
    return utility - utility.mean(), first, second, outcome


@pytest.mark.parametrize(("model", "tie"), [("rao_kupper", 1.8), ("davidson", 0.7)])
def test_planted_utilities_ties_and_position_bias_are_recovered(model, tie):
    utility, first, second, outcome = judged(model, tie, position=0.35)
    fit = fit_ties(first, second, outcome, model, position_bias=True)
    assert fit.tie == pytest.approx(tie, rel=0.03)
    assert fit.position == pytest.approx(0.35, rel=0.03)
    assert np.sqrt(np.mean((fit.strengths - utility) ** 2)) < 0.06


def test_dropping_ties_is_three_times_worse_when_raters_see_no_small_differences():
    utility, first, second, outcome = judged("rao_kupper", 1.8, position=0.0)
    fit = fit_ties(first, second, outcome, "rao_kupper")
    decided = outcome != 0.5
    naive = bradley_terry(first[decided], second[decided], outcome[decided])
    error, naive_error = (np.sqrt(np.mean((found - utility) ** 2)) for found in (fit.strengths, naive))
    assert naive_error > 3 * error
    assert fit.position == 0.0


@pytest.mark.parametrize("model", ["rao_kupper", "davidson"])
@pytest.mark.parametrize("position_bias", [False, True])
def test_fit_equals_a_general_minimiser(model, position_bias):
    _, first, second, outcome = judged(model, 1.5, 0.2, num_items=5, comparisons=400)
    fit = fit_ties(first, second, outcome, model, position_bias=position_bias)

    def loss(x):
        tie = np.exp(x[6])
        if model == "rao_kupper" and tie <= 1:
            return 1e9
        gap = x[first] - x[second] + (x[5] if position_bias else 0.0)
        chance = np.select([outcome == 1, outcome == 0.5], probabilities(model, gap, tie)[:2], default=np.nan)
        chance = np.where(outcome == 0, probabilities(model, gap, tie)[2], chance)
        return -np.log(chance).sum()

    start = np.r_[np.zeros(6), 0.3]
    best = minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={"maxiter": 20_000, "maxfev": 20_000, "fatol": 1e-10, "xatol": 1e-7, "adaptive": True},
    )
    assert -fit.log_likelihood <= best.fun + 1e-6
    assert -fit.log_likelihood == pytest.approx(best.fun, abs=1e-3)
    assert fit.strengths == pytest.approx(best.x[:5] - best.x[:5].mean(), abs=0.01)


@pytest.mark.parametrize("model", ["rao_kupper", "davidson"])
def test_swapping_sides_turns_the_position_bias_around(model):
    _, first, second, outcome = judged(model, 1.5, 0.3, num_items=6, comparisons=2000)
    fit = fit_ties(first, second, outcome, model, position_bias=True)
    swapped = fit_ties(second, first, 1 - outcome, model, position_bias=True)
    assert swapped.position == pytest.approx(-fit.position, abs=1e-6)
    assert swapped.strengths == pytest.approx(fit.strengths, abs=1e-6)
    assert swapped.tie == pytest.approx(fit.tie, abs=1e-6)


@pytest.mark.parametrize(
    ("outcome", "model", "named"),
    [
        ([1, 0], "davidson", "0% of the comparisons are ties.*bradley_terry"),
        ([0.5, 0.5], "davidson", "100% of the comparisons are ties"),
        ([0.7, 0.5], "davidson", "1 .first won., 0 .second won. or .5"),
        ([1, 0.5], "elo", "Choose rao_kupper or davidson"),
    ],
)
def test_comparisons_without_an_answer_are_refused(outcome, model, named):
    with pytest.raises(DataError, match=named):
        fit_ties([0, 1], [1, 0], outcome, model)
