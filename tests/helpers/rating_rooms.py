"""Simulated votes of raters whose accuracy is known."""

import numpy as np

from keel.annotate.ballots import Ballot

ANSWERS = ("a", "tie", "b")


def room(accuracies, num_items, seed=0, *, ties=0.1, missing=0.3):
    """Ballots of one rater an accuracy, named r0, r1, ...: `ties` and `missing` are shares of all votes."""
    rng = np.random.default_rng(seed)
    truth = 2 * rng.integers(2, size=num_items)
    cast = []
    for number, accuracy in enumerate(accuracies):
        said = np.where(rng.random(num_items) < accuracy, truth, 2 - truth)
        said = np.where(rng.random(num_items) < ties, 1, said)
        swapped = rng.random(num_items) < 0.5
        answered = np.flatnonzero(rng.random(num_items) >= missing).tolist()
        cast += [
            Ballot(
                rater=f"r{number}",
                item_id=item,
                choice=ANSWERS[said[item]],
                swapped=bool(swapped[item]),
                seconds=20.0,
                created=1000.0 * item + number,
            )
            for item in answered
        ]
    return cast


def said(rows, **fields):
    """Ballots from {item: "r0 a, r1 tie"}."""
    return [
        Ballot(rater=rater, item_id=item, choice=choice, **fields)
        for item, votes in rows.items()
        for rater, choice in (vote.split() for vote in votes.split(","))
    ]
