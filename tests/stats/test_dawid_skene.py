import numpy as np
import pytest

from keel.core.errors import DataError
from keel.stats.dawid_skene import dawid_skene

# Dawid and Skene 1979, table 1: 45 patients, the first observer three times, four more once; categories 1 to 4.
ANAESTHETISTS = """
1111111 3334334 1122122 2223121 2223222 2223322 1222111 3333433 2222223 2322223 4444444 2223343 1111111 2223212 1211111
1112111 1111111 1111111 2222221 2221322 2222222 2222221 2223222 2212222 1111111 1111111 2322222 1111111 1111111 1121121
1111111 3333233 1111111 2222222 2223232 4334343 2212232 2323233 3333432 1111111 1111111 1212111 2322222 1211111 2222222
"""


def anaesthetists():
    items = np.repeat(np.arange(45), 7)
    raters = np.tile([0, 0, 0, 1, 2, 3, 4], 45)
    choices = np.array([int(digit) - 1 for patient in ANAESTHETISTS.split() for digit in patient])
    return items, raters, choices


def planted(reliability, num_items=4000, votes_per_item=3, seed=0):
    """Votes of raters who answer truly with their reliability, else uniformly another category."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, size=num_items, p=[0.45, 0.1, 0.45])
    raters = np.array([rng.choice(len(reliability), size=votes_per_item, replace=False) for _ in range(num_items)])
    right = rng.random(raters.shape) < np.asarray(reliability)[raters]
    wrong = (truth[:, None] + rng.integers(1, 3, size=raters.shape)) % 3
    choices = np.where(right, truth[:, None], wrong)
    items = np.repeat(np.arange(num_items), votes_per_item)
    return truth, items, raters.ravel(), choices.ravel()


def one_step(posterior, items, raters, choices, num_raters, num_categories):
    """One round of EM with loops, straight from the paper's equations 2.3 to 2.5."""
    prior = posterior.mean(axis=0)
    confusion = np.zeros((num_raters, num_categories, num_categories))
    for item, rater, choice in zip(items, raters, choices, strict=True):
        confusion[rater, :, choice] += posterior[item]
    confusion /= confusion.sum(axis=2, keepdims=True)
    result = np.tile(prior, (len(posterior), 1))
    for item, rater, choice in zip(items, raters, choices, strict=True):
        result[item] *= confusion[rater, :, choice]
    return result / result.sum(axis=1, keepdims=True)


def test_the_paper_example_gives_its_published_class_shares():
    fit = dawid_skene(*anaesthetists(), 45, 5, 4)
    assert fit.converged
    assert fit.prior == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)


def test_posterior_is_a_fixed_point_of_em_written_with_loops():
    votes = anaesthetists()
    fit = dawid_skene(*votes, 45, 5, 4, tolerance=1e-14)
    np.testing.assert_allclose(one_step(fit.posterior, *votes, 5, 4), fit.posterior, atol=1e-6)


def test_first_round_equals_em_written_with_loops():
    items, raters, choices = anaesthetists()
    shares = np.zeros((45, 4))
    np.add.at(shares, (items, choices), 1 / 7)
    expected = one_step(shares, items, raters, choices, 5, 4)
    found = dawid_skene(items, raters, choices, 45, 5, 4, max_iterations=1)
    np.testing.assert_allclose(found.posterior, expected, atol=1e-12)
    assert not found.converged


@pytest.mark.parametrize("prior_votes", [0.0, 3.0])
def test_every_round_raises_what_em_maximises(prior_votes):
    def objective(fit):
        imagined = prior_votes * (0.1 + 0.7 * np.eye(3))  # of 3 answers, the right one 80 %, the others 10 % each
        return fit.log_likelihood + ((imagined * np.log(fit.confusion)).sum() if prior_votes else 0.0)

    _, items, raters, choices = planted([0.9, 0.7, 0.5, 0.8], 200)
    path = [
        objective(dawid_skene(items, raters, choices, 200, 4, 3, prior_votes=prior_votes, max_iterations=k))
        for k in range(1, 12)
    ]
    assert (np.diff(path) >= -1e-9).all()


def test_planted_reliabilities_of_eight_raters_are_recovered_within_three_points():
    reliability = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.4]
    _, items, raters, choices = planted(reliability, 12_000, 5)
    fit = dawid_skene(items, raters, choices, 12_000, 8, 3)
    assert fit.reliability == pytest.approx(reliability, abs=0.03)
    assert fit.prior == pytest.approx([0.45, 0.1, 0.45], abs=0.03)


def test_it_beats_the_majority_when_most_raters_guess():
    truth, items, raters, choices = planted([0.95, 0.95, 0.4, 0.35, 0.35], 3000, 5)
    fit = dawid_skene(items, raters, choices, 3000, 5, 3)
    counts = np.zeros((3000, 3))
    np.add.at(counts, (items, choices), 1)
    majority = np.mean(counts.argmax(axis=1) == truth)
    assert np.mean(fit.posterior.argmax(axis=1) == truth) > majority + 0.05


@pytest.mark.parametrize(("num_items", "num_raters"), [(200, 8), (300, 60), (1000, 40)])
def test_prior_votes_keep_it_from_falling_below_the_majority_on_small_sets(num_items, num_raters):
    gains = []
    for seed in range(5):
        reliability = np.random.default_rng(seed + 100).uniform(0.5, 0.95, num_raters)
        truth, items, raters, choices = planted(reliability, num_items, seed=seed)
        fit = dawid_skene(items, raters, choices, num_items, num_raters, 3, prior_votes=4)
        counts = np.zeros((num_items, 3))
        np.add.at(counts, (items, choices), 1)
        gains.append(np.mean(fit.posterior.argmax(axis=1) == truth) - np.mean(counts.argmax(axis=1) == truth))
    assert np.mean(gains) > -0.005


def test_posterior_is_calibrated_on_planted_raters():
    truth, items, raters, choices = planted([0.9, 0.8, 0.7, 0.6, 0.5], 6000, 3)
    fit = dawid_skene(items, raters, choices, 6000, 5, 3)
    claimed = fit.posterior.max(axis=1)
    right = fit.posterior.argmax(axis=1) == truth
    assert claimed.mean() == pytest.approx(right.mean(), abs=0.02)


def test_item_without_votes_gets_the_prior():
    fit = dawid_skene([0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], 3, 2, 2)
    np.testing.assert_allclose(fit.posterior[2], fit.prior)
    np.testing.assert_allclose(fit.posterior[:2], np.eye(2))


def test_votes_outside_the_numbering_are_refused():
    with pytest.raises(DataError, match="Every rater must be a number from 0 to 1; got 0 to 2"):
        dawid_skene([0, 1], [0, 2], [0, 0], 2, 2, 2)
    with pytest.raises(DataError, match="an item, a rater and a choice"):
        dawid_skene([], [], [], 2, 2, 2)
