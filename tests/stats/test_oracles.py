"""Aggregation and strengths against crowd-kit and choix."""

import choix
import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene, MajorityVote

from keel.annotate.consensus import majority, weighted
from keel.data.records import Vote
from keel.stats.dawid_skene import dawid_skene
from keel.stats.ranking import bradley_terry


def crowd(seed, num_items=200, per_item=4):
    """Items, raters and choices of eight raters with confusions of their own."""
    rng = np.random.default_rng(seed)
    confusion = np.array([rng.dirichlet(1 + 6 * row) for _ in range(8) for row in np.eye(3)]).reshape(8, 3, 3)
    truth = rng.choice(3, size=num_items, p=[0.4, 0.2, 0.4])
    raters = np.concatenate([rng.choice(8, size=per_item, replace=False) for _ in range(num_items)])
    items = np.repeat(np.arange(num_items), per_item)
    choices = np.array([rng.choice(3, p=confusion[r, truth[i]]) for i, r in zip(items, raters, strict=True)])
    return items, raters, choices


@pytest.mark.filterwarnings("ignore")  # crowd-kit's own, about pandas
@pytest.mark.parametrize("seed", range(2))
def test_dawid_skene_equals_crowd_kit(seed):
    items, raters, choices = crowd(seed)
    table = pd.DataFrame({"task": items, "worker": raters, "label": choices})
    # crowd-kit stops on a bound of its own, so both go through the same number of rounds.
    peer = DawidSkene(n_iter=30, tol=-1e9).fit(table)
    fit = dawid_skene(items, raters, choices, 200, 8, 3, tolerance=-1.0, max_iterations=30)
    np.testing.assert_allclose(fit.posterior, peer.probas_.sort_index()[[0, 1, 2]].to_numpy(), atol=1e-8)
    # Its prior and errors are those that follow from the last posterior, so one more round of ours uses them.
    onward = dawid_skene(items, raters, choices, 200, 8, 3, tolerance=-1.0, max_iterations=31)
    np.testing.assert_allclose(onward.prior, peer.priors_.sort_index().to_numpy(), atol=1e-8)
    errors = peer.errors_.sort_index()  # [worker, answered] by true class
    for rater in range(8):
        np.testing.assert_allclose(onward.confusion[rater].T, errors.loc[rater][[0, 1, 2]].to_numpy(), atol=1e-8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(2))
def test_majority_and_weighted_majority_equal_crowd_kit(seed):
    items, raters, choices = crowd(seed)
    words = ("a", "tie", "b")
    table = pd.DataFrame({"task": items, "worker": raters, "label": choices})
    shares = MajorityVote().fit(table).probas_.reindex(columns=[0, 1, 2]).fillna(0).sort_index().to_numpy()
    weights = pd.Series(np.random.default_rng(seed).uniform(0.2, 2, 8), name="skill").rename_axis("worker")
    weighed = MajorityVote().fit(table, weights).probas_.reindex(columns=[0, 1, 2]).fillna(0).sort_index().to_numpy()
    for item in range(200):
        cast = [Vote(str(r), words[c]) for i, r, c in zip(items, raters, choices, strict=True) if i == item]
        leaders = np.flatnonzero(shares[item] == shares[item].max())
        found = majority(cast)
        assert found.preference == (0.5 if len(leaders) > 1 else 1 - leaders[0] / 2)
        assert found.confidence == pytest.approx(shares[item].max(), abs=1e-12)
        by_weight = weighted(cast, {str(rater): weight for rater, weight in weights.items()})
        assert by_weight.preference == pytest.approx(weighed[item, 0] + weighed[item, 1] / 2, abs=1e-12)
        assert by_weight.confidence == pytest.approx(weighed[item].max(), abs=1e-12)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_bradley_terry_equals_choix(l2):
    rng = np.random.default_rng(5)
    strengths = rng.normal(size=12)
    pairs = [tuple(rng.choice(12, size=2, replace=False)) for _ in range(2000)]
    first, second = np.array(pairs).T
    won = rng.random(2000) < 1 / (1 + np.exp(strengths[second] - strengths[first]))
    data = [(int(i), int(j)) if w else (int(j), int(i)) for i, j, w in zip(first, second, won, strict=True)]
    # choix's penalty alpha * |strengths|^2 has no half in front.
    expected = choix.opt_pairwise(12, data, alpha=l2 / 2, tol=1e-12)
    found = bradley_terry(first, second, won.astype(float), l2=l2)
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-5)
