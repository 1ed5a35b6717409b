import math

import pytest
import torch

from keel.batch.collate import EncodedPair
from keel.data.records import Comparison
from keel.evaluate.reward_report import accuracy_figures, correlation, reward_figures, score_pairs
from keel.stats.intervals import wilson


class Known:
    """Scores each response by its first token, in tenths."""

    mean, std = 0.0, 1.0

    def score(self, responses):
        pieces = responses.batch.response_tokens.split(responses.batch.response_lengths.tolist())
        return torch.tensor([float(piece[0]) / 10 for piece in pieces])


def pair(a: int, b: int, preference: float = 1.0, a_tokens: int = 1, b_tokens: int = 1) -> EncodedPair:
    return EncodedPair(prompt=[1], a=[a] * a_tokens, b=[b] * b_tokens, preference=preference)


def record(a: str, b: str, preference: float = 1.0) -> Comparison:
    return Comparison("ask", a, b, preference)


def figures(pairs, records=None, train=None):
    records = records or [record(" x", " y", p.preference) for p in pairs]
    return reward_figures(Known(), pairs, records, train or records)


def test_scores_come_back_side_by_side():
    a, b = score_pairs(Known(), [pair(10, 20), pair(30, 40)])
    assert a.tolist() == [1.0, 3.0]
    assert b.tolist() == [2.0, 4.0]


def test_accuracy_leaves_ties_of_raters_out_and_halves_ties_of_scores():
    a, b = torch.tensor([1.0, 0.0, 2.0, 5.0]), torch.tensor([0.0, 1.0, 2.0, 0.0])
    found = accuracy_figures(a, b, [1.0, 1.0, 0.8, 0.5])  # right, wrong, equal scores, nobody knows
    assert found["accuracy"] == 1.5 / 3
    assert found["decided_pairs"] == 3
    assert (found["accuracy_low"], found["accuracy_high"]) == wilson(1.5, 3)


def test_without_a_decided_pair_accuracy_is_unknown():
    found = accuracy_figures(torch.zeros(2), torch.ones(2), [0.5, 0.5])
    assert math.isnan(found["accuracy"])
    assert found["decided_pairs"] == 0


def test_the_order_of_a_pair_changes_no_figure():
    straight = figures([pair(30, 10), pair(5, 25, 0.0), pair(12, 20, 0.75)])
    swapped = figures([pair(10, 30, 0.0), pair(25, 5, 1.0), pair(20, 12, 0.25)])
    for name in ("accuracy", "ece", "score_mean", "score_std", "score_abs_max"):
        assert straight[name] == pytest.approx(swapped[name]), name
    for one, other in zip(straight["reliability"], swapped["reliability"], strict=True):
        assert one == pytest.approx(other)


def test_data_that_always_names_the_better_one_first_gives_no_free_calibration():
    # The scores know nothing (all equal): probability .5 for every pair, right half of the time when both orders count.
    found = figures([pair(10, 10)] * 8)
    (only,) = [bin for bin in found["reliability"] if bin["count"]]
    assert (only["count"], only["predicted"], only["observed"]) == (16, 0.5, 0.5)
    assert found["ece"] == pytest.approx(0.0)


def test_reliability_counts_both_orders_and_is_its_own_mirror_image():
    found = figures([pair(30, 10), pair(25, 20), pair(10, 18)])
    bins = {round(bin["low"], 1): bin for bin in found["reliability"] if bin["count"]}
    assert sum(bin["count"] for bin in bins.values()) == 6
    for low, bin in bins.items():
        mirror = bins[round(0.9 - low, 1)]
        assert bin["count"] == mirror["count"]
        assert bin["predicted"] == pytest.approx(1 - mirror["predicted"])
        assert bin["observed"] == pytest.approx(1 - mirror["observed"])


def test_calibration_error_of_a_worked_example():
    # One pair, score gap 2: sigmoid(2) = .8808 both ways round, and always right: the error is 1 - .8808.
    assert figures([pair(30, 10)])["ece"] == pytest.approx(1 - 0.880797, abs=1e-6)


def test_baselines_stand_beside_the_accuracy():
    pairs = [pair(30, 10, 1.0, 3, 1), pair(30, 10, 1.0, 1, 3), pair(30, 10, 1.0, 5, 1), pair(30, 10, 1.0, 4, 1)]
    train = [record(" good", " bad"), record(" bad", " good", 0.0)] * 20
    held_out = [record(" good", " bad")] * 3 + [record(" bad", " good")]
    found = figures(pairs, held_out, train)
    assert found["accuracy"] == 1.0
    assert found["baseline_longer"] == 3 / 4
    assert found["baseline_bag_of_words"] == 3 / 4


def test_spread_mean_and_length_of_scores():
    found = figures([pair(10, 20, 0.0, 1, 2), pair(30, 40, 0.0, 3, 4)])
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert found["score_mean"] == 2.5
    assert found["score_std"] == pytest.approx(float(scores.std()))
    assert found["score_abs_max"] == 4.0
    assert found["score_length_correlation"] == pytest.approx(1.0)
    assert found["held_out_pairs"] == 2


def test_a_constant_correlates_with_nothing():
    assert correlation(torch.ones(4), [1, 2, 3, 4]) == 0.0
    assert correlation(torch.tensor([1.0, 2.0]), [3, 3]) == 0.0
