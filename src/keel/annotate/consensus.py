"""From the votes on a comparison to the probability that a is better.

    majority      what most raters said: 1, 0, or .5 where neither side has the most votes
    share         the share of votes for a, ties counting half
    weighted      the same with each vote counting as strongly as it was cast
    dawid_skene   the posterior of a model that learns how each rater errs, over all comparisons at once

A skip is no vote. Both bad is a tie: it says nothing about which response is better.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from keel.core.errors import DataError
from keel.data.records import Comparison, Method, Vote
from keel.stats import dawid_skene as model
from keel.stats.agreement import MISSING

CATEGORIES = ("a", "tie", "b")
"""What a vote can say, in order; the codes of `vote_table`."""
CODES: dict[str, int] = {"a": 0, "tie": 1, "both_bad": 1, "b": 2}


@dataclass(frozen=True, slots=True)
class Consensus:
    """What the votes on one comparison come to."""

    preference: float
    """Probability that a is better, in [0, 1]; .5 when nobody voted."""
    confidence: float
    """Share of the votes (for Dawid-Skene: probability) behind the likeliest of a, tie and b; 0 when nobody voted."""
    num_votes: int
    """Votes that counted: no skips, and none that weighs nothing."""


def majority(votes: Sequence[Vote]) -> Consensus:
    """1 or 0 for the answer with the most votes, .5 when that is a tie or when two answers share the lead."""
    shares, count = _shares(votes)
    leaders = np.flatnonzero(shares == shares.max())
    preference = 0.5 if len(leaders) > 1 else 1 - leaders[0] / 2
    return Consensus(float(preference), float(shares.max()), count)


def share(votes: Sequence[Vote]) -> Consensus:
    """Share of the votes for a, ties counting half."""
    return _mean(*_shares(votes))


def weighted(votes: Sequence[Vote], rater_weights: Mapping[str, float] | None = None) -> Consensus:
    """Share of the votes for a, each counting as its strength (1 where none was given) times its rater's weight.

    A tie has strength 0 on a signed scale, yet it is an answer: it counts 1 times its rater's weight. Raters missing
    from `rater_weights` weigh 1.
    """
    return _mean(*_shares(votes, [_weight(vote, rater_weights or {}) for vote in votes]))


def dawid_skene(comparisons: Sequence[Comparison], prior_votes: float = 4.0) -> list[Consensus]:
    """The posterior of the true answer among a, tie and b, one a comparison; preference = P(a) + P(tie) / 2.

    `prior_votes` imagined votes per rater and answer, 80 % of them right, keep it from trusting or damning a rater on
    little evidence: with 4, sets of 200 to 2,500 comparisons and 15 to 900 votes a rater were resolved at least as
    well as by majority; with none, the smallest were resolved worse.
    """
    raters: dict[str, int] = {}
    cast = [
        (item, raters.setdefault(vote.rater, len(raters)), CODES[vote.choice])
        for item, comparison in enumerate(comparisons)
        for vote in comparison.votes
        if vote.choice != "skip"
    ]
    if not cast:
        return [Consensus(0.5, 0.0, 0)] * len(comparisons)
    items, who, said = np.array(cast, dtype=np.int64).T
    fit = model.dawid_skene(items, who, said, len(comparisons), len(raters), 3, prior_votes=prior_votes)
    counts = np.bincount(items, minlength=len(comparisons))
    return [
        Consensus(float(p[0] + p[1] / 2), float(p.max()), int(count)) if count else Consensus(0.5, 0.0, 0)
        for p, count in zip(fit.posterior, counts, strict=True)
    ]


def resolve(
    comparisons: Sequence[Comparison], method: Method = "share", rater_weights: Mapping[str, float] | None = None
) -> list[Comparison]:
    """The comparisons with the preference that their votes come to; without those whose no vote counts.

    A comparison without any votes keeps the preference that it has. `rater_weights` are for the method weighted.
    """
    if method == "dawid_skene":
        verdicts = dawid_skene(comparisons)
    elif method == "weighted":
        verdicts = [weighted(comparison.votes, rater_weights) for comparison in comparisons]
    elif method in _METHODS:
        verdicts = [_METHODS[method](comparison.votes) for comparison in comparisons]
    else:
        raise DataError(
            f"There is no way called {method!r} to resolve votes. Choose {', '.join(_METHODS)}, dawid_skene."
        )
    return [
        replace(comparison, preference=verdict.preference) if comparison.votes else comparison
        for comparison, verdict in zip(comparisons, verdicts, strict=True)
        if verdict.num_votes or not comparison.votes
    ]


def vote_table(comparisons: Sequence[Comparison]) -> tuple[NDArray[np.int64], list[str]] | None:
    """Votes [items, raters] as codes of `CATEGORIES`, -1 where missing, and the raters in order of appearance.

    The last of several votes by a rater on a comparison counts. None when no comparison has votes of two raters.
    """
    latest = [
        {vote.rater: CODES[vote.choice] for vote in comparison.votes if vote.choice != "skip"}
        for comparison in comparisons
    ]
    if not any(len(votes) > 1 for votes in latest):
        return None
    raters = {rater: column for column, rater in enumerate(dict.fromkeys(r for votes in latest for r in votes))}
    table = np.full((len(latest), len(raters)), MISSING, dtype=np.int64)
    for row, votes in enumerate(latest):
        for rater, code in votes.items():
            table[row, raters[rater]] = code
    return table, list(raters)


_METHODS = {"majority": majority, "share": share, "weighted": weighted}


def _shares(votes: Sequence[Vote], weights: Sequence[float] | None = None) -> tuple[NDArray[np.float64], int]:
    """Shares of (a, tie, b), all 0 when nothing counts, and the number of votes."""
    totals = np.zeros(3)
    count = 0
    for index, vote in enumerate(votes):
        weight = 1.0 if weights is None else weights[index]
        if vote.choice != "skip" and weight > 0:
            totals[CODES[vote.choice]] += weight
            count += 1
    return totals / total if (total := totals.sum()) else totals, count


def _mean(shares: NDArray[np.float64], count: int) -> Consensus:
    preference = shares[0] + shares[1] / 2 if shares.any() else 0.5
    return Consensus(float(preference), float(shares.max()), count)


def _weight(vote: Vote, rater_weights: Mapping[str, float]) -> float:
    strength = 1.0 if vote.strength is None or CODES.get(vote.choice) == CODES["tie"] else vote.strength
    weight = strength * rater_weights.get(vote.rater, 1.0)
    if not (math.isfinite(weight) and weight >= 0):
        raise DataError(
            f"The vote {vote.choice} of rater {vote.rater} has strength {vote.strength} and rater weight "
            f"{rater_weights.get(vote.rater, 1.0)}; both must be finite and at least 0."
        )
    return weight
