import pytest
import torch

from keel.evaluate.rating_report import rating_report, separation

GOOD = [" thank you , it is found .", " thank you , it is here ."]
BAD = [" sorry , it was late .", " sorry , it is lost , sorry ."]


def test_what_the_report_of_ratings_holds():
    rewards = torch.tensor([2.0, 1.0, 1.5, -1.0])
    report = rating_report(rewards, [6, 6, 5, 7], [*GOOD, *BAD], [1, 1, 0, 0], [*GOOD, *BAD] * 4, [1, 1, 0, 0] * 4)
    assert report["accuracy"] == pytest.approx(3 / 4)
    assert report["accuracy_low"] <= 3 / 4 <= report["accuracy_high"]
    assert report["baseline_longer"] == pytest.approx(2 / 4)
    assert report["baseline_bag_of_words"] == 1
    assert report["desirable_share"] == 0.5
    assert report["held_out_ratings"] == 4
    assert report["score_mean"] == pytest.approx(3.5 / 4)
    assert report["score_abs_max"] == 2


def test_a_response_that_is_good_for_three_in_four_counts_on_both_sides():
    rewards = torch.tensor([1.0, 0.0])
    # of 0.75 · 1 good-and-bad weight the first leads; its own quarter against the second's nothing cannot
    found = separation(rewards, [0.75, 0.0])["accuracy"]
    assert found == pytest.approx((0.75 * 1 + 0.75 * 0.25 / 2) / (0.75 * 1.25))
