"""Agreement against worked examples and reference libraries."""

import gzip
import json
import time
import warnings

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from keel.core.errors import DataError
from keel.stats.agreement import (
    agreement_report,
    cohen_kappa,
    disputed_items,
    fleiss_kappa,
    krippendorff_alpha,
    pairwise_agreement,
)

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: 4 observers, 12 units, 5 values.
KRIPPENDORFF_2011 = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, -1, -1, -1],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, -1, 3],
        [-1, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, -1],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, -1],
    ]
).T


def random_votes(seed: int, items: int = 60, raters: int = 4, categories: int = 4, missing: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = rng.integers(categories, size=(items, 1))
    noise = rng.integers(categories, size=(items, raters))
    votes = np.where(rng.random((items, raters)) < 0.6, truth, noise)
    votes[rng.random(votes.shape) < missing] = -1
    return votes


def noisy_votes(items: int, raters: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=(items, 1))
    return np.where(rng.random((items, raters)) < 0.7, truth, rng.integers(3, size=(items, raters)))


def test_cohen_kappa_of_a_worked_example():
    # 50 grants: both yes 20, both no 15, 5 yes/no, 10 no/yes. Agreement .7, by chance .5 * .6 + .5 * .4 = .5.
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert cohen_kappa(first, second) == pytest.approx(0.4)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohen_kappa_equals_scikit_learn(weights):
    for seed in range(5):
        votes = random_votes(seed, raters=2)
        expected = cohen_kappa_score(votes[:, 0], votes[:, 1], weights=None if weights == "none" else weights)
        assert cohen_kappa(votes[:, 0], votes[:, 1], weights) == pytest.approx(expected, abs=1e-12)


def test_cohen_kappa_leaves_out_items_that_either_rater_left_out():
    votes = random_votes(1, raters=2, missing=0.3)
    both = (votes >= 0).all(axis=1)
    assert cohen_kappa(votes[:, 0], votes[:, 1]) == cohen_kappa(votes[both, 0], votes[both, 1])


def test_fleiss_kappa_of_the_published_example():
    # The 10 subjects, 14 raters, 5 categories of the Wikipedia article on Fleiss' kappa: 0.210.
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    votes = np.array([np.repeat(np.arange(5), row) for row in counts])
    assert fleiss_kappa(votes) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(votes) == pytest.approx(statsmodels_fleiss(np.array(counts)), abs=1e-12)


def test_fleiss_kappa_equals_statsmodels():
    for seed in range(5):
        votes = random_votes(seed)
        assert fleiss_kappa(votes) == pytest.approx(statsmodels_fleiss(aggregate_raters(votes)[0]), abs=1e-12)


def test_fleiss_kappa_with_unequal_votes_weighs_items_alike():
    # Items (0, 0) and (0, 1, 1): agreement (1 + 1/3) / 2; shares of 0: (1 + 1/3) / 2, of 1: 1/3.
    expected = (2 / 3 - (4 / 9 + 1 / 9)) / (1 - (4 / 9 + 1 / 9))
    assert fleiss_kappa([[0, 0, -1], [0, 1, 1]]) == pytest.approx(expected)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level, published):
    assert krippendorff_alpha(KRIPPENDORFF_2011, level) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_alpha_equals_the_krippendorff_package(level, missing):
    for seed in range(5):
        votes = random_votes(seed, missing=missing) * 2 + 1  # codes 1, 3, 5, 7: gaps must not matter to ordinal
        votes[votes < 0] = -1
        reliability = np.where(votes < 0, np.nan, votes).T
        expected = krippendorff.alpha(reliability_data=reliability, level_of_measurement=level)
        assert krippendorff_alpha(votes, level) == pytest.approx(expected, abs=1e-12)


def test_pairwise_agreement_counts_every_item_alike():
    # Item 1: 3 pairs, all equal. Item 2: 1 pair, unequal. Item 3: one vote, no pair.
    assert pairwise_agreement([[0, 0, 0], [0, 1, -1], [2, -1, -1]]) == pytest.approx((1 + 0) / 2)


def test_perfect_agreement_is_one_and_independent_votes_are_near_zero():
    rng = np.random.default_rng(0)
    same = np.tile(rng.integers(3, size=(40, 1)), 3)
    assert fleiss_kappa(same) == krippendorff_alpha(same) == pairwise_agreement(same) == 1
    apart = rng.integers(3, size=(20_000, 3))
    assert abs(fleiss_kappa(apart)) < 0.02
    assert abs(krippendorff_alpha(apart, "ordinal")) < 0.02


@pytest.mark.parametrize("votes", [[[1, 1], [1, 1]], [[0, -1], [-1, 1]], np.zeros((0, 2), dtype=int)])
def test_agreement_is_undefined_when_all_votes_are_the_same_or_none_meet(votes):
    assert np.isnan(fleiss_kappa(votes))
    assert np.isnan(krippendorff_alpha(votes))
    report = agreement_report(votes)
    assert report.to_dict()["krippendorff_alpha"] is None
    json.dumps(report.to_dict(details=True), allow_nan=False)


def test_permuting_raters_items_and_nominal_codes_changes_nothing():
    votes = random_votes(3, missing=0.3)
    rng = np.random.default_rng(0)
    shuffled = votes[rng.permutation(len(votes))][:, rng.permutation(votes.shape[1])]
    recoded = np.where(shuffled < 0, -1, np.array([9, 2, 5, 0])[shuffled])
    for measure in (pairwise_agreement, fleiss_kappa, krippendorff_alpha):
        assert measure(recoded) == pytest.approx(measure(votes), abs=1e-12)


def test_interval_equals_resampling_items_one_by_one():
    votes = random_votes(5, items=80, raters=3, missing=0.1)
    report = agreement_report(votes, resamples=4000)
    shared = votes[(votes >= 0).sum(axis=1) >= 2]
    rng = np.random.default_rng(1)
    draws = [krippendorff_alpha(shared[rng.integers(len(shared), size=len(shared))]) for _ in range(1000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    assert report.alpha.low == pytest.approx(low, abs=0.03)
    assert report.alpha.high == pytest.approx(high, abs=0.03)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    truth = krippendorff_alpha(noisy_votes(200_000, 3, seed=99))
    covered = [
        estimate.low <= truth <= estimate.high
        for seed in range(60)
        for estimate in [agreement_report(noisy_votes(100, 3, seed=seed), resamples=400).alpha]
    ]
    assert 0.85 <= np.mean(covered) <= 1.0


def test_report_holds_pairs_raters_and_counts():
    votes = random_votes(7, raters=3, missing=0.2)
    report = agreement_report(votes, ["ann", "bob", "eve"])
    assert (report.num_items, report.num_raters) == votes.shape
    assert report.num_votes == (votes >= 0).sum()
    assert report.num_shared_items == ((votes >= 0).sum(axis=1) >= 2).sum()
    pair = next(p for p in report.pairs if (p.first, p.second) == ("ann", "eve"))
    both = (votes[:, [0, 2]] >= 0).all(axis=1)
    assert pair.num_items == both.sum()
    assert pair.agreement == pytest.approx(np.mean(votes[both, 0] == votes[both, 2]))
    assert pair.kappa.value == pytest.approx(cohen_kappa(votes[:, 0], votes[:, 2]))
    assert pair.kappa.low < pair.kappa.value < pair.kappa.high
    assert report.kappa == report.fleiss
    assert [rater.rater for rater in report.raters] == ["ann", "bob", "eve"]


def test_report_of_two_raters_gates_on_cohen():
    votes = random_votes(8, raters=2)
    report = agreement_report(votes)
    assert report.kappa_name == "Cohen's kappa"
    assert report.kappa.value == pytest.approx(cohen_kappa(votes[:, 0], votes[:, 1]))
    assert report.to_dict()["cohen_kappa"] == report.kappa.value


def test_report_singles_out_the_rater_who_guesses():
    votes = noisy_votes(400, 4)
    votes[:, 2] = np.random.default_rng(1).integers(3, size=400)
    raters = agreement_report(votes, resamples=50).raters
    assert min(range(4), key=lambda k: raters[k].kappa) == 2
    assert abs(raters[2].kappa) < 0.1 < raters[0].kappa


def test_report_is_the_same_for_the_same_seed():
    votes = random_votes(9)
    assert agreement_report(votes, seed=4) == agreement_report(votes, seed=4)
    assert agreement_report(votes, seed=4) != agreement_report(votes, seed=5)


def test_disputed_items_come_most_disputed_first():
    votes = [[0, 0, 0], [0, 1, 0], [0, 1, 2], [1, 2, -1], [1, -1, -1]]
    # Items 3 (1 of 1 pairs) and 2 (3 of 3) are fully disputed, more votes first; item 1 has 2 of 3 unequal pairs.
    assert disputed_items(votes).tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("votes", "named"),
    [
        ([1, 2, 3], "[items, raters]"),
        ([[1], [2]], "two raters"),
        ([[0.5, 1.0]], "integer codes"),
        ([[0, -2]], "rater 2 on item 1"),
    ],
)
def test_votes_of_the_wrong_form_are_refused(votes, named):
    with pytest.raises(DataError, match=named.replace("[", r"\[")):
        fleiss_kappa(votes)


def test_names_must_fit_the_columns():
    with pytest.raises(DataError, match="2 rater names for 3 columns"):
        agreement_report(random_votes(0, raters=3), ["ann", "bob"])


def test_fifty_thousand_items_of_five_raters_take_under_three_seconds():
    votes = noisy_votes(50_000, 5)
    votes[np.random.default_rng(1).random(votes.shape) < 0.1] = -1
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = agreement_report(votes)
    assert time.process_time() - start < 3
    assert report.alpha.high - report.alpha.low < 0.02


def test_real_votes_give_the_figures_in_the_data_sheet(shared_data):
    """Figures of shared/data/README.md, which counts a kept-back part too: hence the tolerance."""
    panda = _votes(shared_data / "pandalm-votes" / "pairs.jsonl.gz", ["a", "tie", "b"])
    assert all(0.83 < pair.kappa.value < 0.90 for pair in agreement_report(panda).pairs)
    xsum = _votes(shared_data / "xsum-factuality-votes" / "items.jsonl.gz", ["no", "yes"])
    assert pairwise_agreement(xsum) == pytest.approx(0.96, abs=0.01)
    assert krippendorff_alpha(xsum) == pytest.approx(0.77, abs=0.02)


def _votes(path, categories):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        cast = [json.loads(line)["votes"] for line in lines]
    raters = sorted({rater for votes in cast for rater in votes})
    return np.array([[categories.index(v[r]) if r in v else -1 for r in raters] for v in cast])
