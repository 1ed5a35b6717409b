"""What the true answer probably is when raters err each in their own way (Dawid and Skene 1979)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.arrays import Floats, Ints, sum_by

PRIOR_ACCURACY = 0.8


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """The fitted model for N items, K raters and C categories."""

    posterior: Floats
    """[N, C], probability of each category being the true one; `prior` for an item without votes."""
    confusion: Floats
    """[K, C, C], probability that rater k answers the second category when the first is true."""
    prior: Floats
    """[C], how common each category is."""
    log_likelihood: float
    iterations: int
    converged: bool

    @property
    def reliability(self) -> Floats:
        """[K], probability that the rater's answer is the true one."""
        return np.einsum("c,kcc->k", self.prior, self.confusion)


def dawid_skene(
    items: ArrayLike,
    raters: ArrayLike,
    choices: ArrayLike,
    num_items: int,
    num_raters: int,
    num_categories: int,
    *,
    prior_votes: float = 0.0,
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
) -> DawidSkene:
    """Maximum likelihood by EM, begun at the vote shares of each item.

    items, raters and choices [votes] are numbers from 0; a rater may vote several times on an item. `prior_votes` are
    imagined for each rater and true category, 80 % of them right, so that a rater with few votes looks neither perfect
    nor hopeless; 0 is the paper's own estimator. Ends when the log-likelihood (with prior votes: the posterior
    density of the tables) grows by less than `tolerance` of itself.
    """
    item = _numbers("item", items, num_items)
    rater = _numbers("rater", raters, num_raters)
    choice = _numbers("choice", choices, num_categories)
    if not item.shape == rater.shape == choice.shape or not item.size:
        raise DataError(f"A vote is an item, a rater and a choice; got {item.size}, {rater.size} and {choice.size}.")
    votes = np.bincount(item * num_categories + choice, minlength=num_items * num_categories)
    votes = votes.reshape(num_items, num_categories)
    voted = votes.sum(axis=1) > 0
    posterior = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    cell = rater * num_categories + choice
    imagined = _imagined(prior_votes, num_categories)
    previous, converged, iteration = -np.inf, False, 0
    while True:
        iteration += 1
        prior = posterior[voted].mean(axis=0)
        confusion = _confusion(posterior, item, cell, num_raters, num_categories) + imagined
        totals = confusion.sum(axis=2, keepdims=True)
        # A category that is never the true one of a rater's items leaves that row open; uniform claims nothing.
        confusion = np.where(totals > 0, confusion / np.where(totals > 0, totals, 1), 1 / num_categories)
        with np.errstate(divide="ignore"):
            log_prior, log_confusion = np.log(prior), np.log(confusion)
        joint = np.empty((num_items, num_categories))
        for c in range(num_categories):
            joint[:, c] = log_prior[c] + sum_by(item, log_confusion[rater, c, choice], num_items)
        peak = joint.max(axis=1, keepdims=True)
        weight = np.exp(joint - peak)
        total = weight.sum(axis=1, keepdims=True)
        posterior = weight / total
        log_likelihood = float((peak + np.log(total))[voted].sum())
        objective = log_likelihood
        if prior_votes:
            objective += float((imagined * log_confusion).sum())
        converged = objective - previous <= tolerance * abs(objective)
        if converged or iteration == max_iterations:
            break
        previous = objective
    return DawidSkene(posterior, confusion, prior, log_likelihood, iteration, bool(converged))


def _imagined(prior_votes: float, size: int) -> Floats:
    """Votes [true category, answered category] that every rater is credited with."""
    wrong = (1 - PRIOR_ACCURACY) / max(1, size - 1)
    return prior_votes * (wrong + (PRIOR_ACCURACY - wrong) * np.eye(size))


def _confusion(posterior: Floats, item: Ints, cell: Ints, raters: int, size: int) -> Floats:
    """Expected votes [K, true category, answered category]."""
    expected = np.empty((raters, size, size))
    for c in range(size):
        expected[:, c, :] = sum_by(cell, posterior[item, c], raters * size).reshape(raters, size)
    return expected


def _numbers(what: str, values: ArrayLike, count: int) -> Ints:
    numbers = np.asarray(values, dtype=np.int64)
    if numbers.ndim != 1 or (numbers.size and not 0 <= numbers.min() <= numbers.max() < count):
        raise DataError(f"Every {what} must be a number from 0 to {count - 1}; got {numbers.min()} to {numbers.max()}.")
    return numbers
