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


FLIP = {"a": "b", "b": "a"}
HABITS = ("good", "lazy", "left", "leaning", "tired", "drifting", "random", "adversarial", "hasty", "tie", "fickle")


def answer(habit, truth, swapped, progress, in_sitting, rng):
    """What a rater with this habit says; `progress` and `in_sitting` run from 0 to 1."""
    left, right = ("b", "a") if swapped else ("a", "b")
    accuracy = {"tired": 0.95 - 0.45 * in_sitting, "drifting": 0.95 if progress < 0.5 else 0.62, "fickle": 0.68}
    chosen = truth if rng.random() < accuracy.get(habit, 0.92) else FLIP[truth]
    match habit:
        case "left":
            return left if rng.random() < 0.97 else right
        case "random":
            return "a" if rng.random() < 0.5 else "b"
        case "lazy" | "hasty" if rng.random() < 0.4:
            return left if rng.random() < 0.5 else right
        case "leaning" if rng.random() < 0.3:
            return left
        case "adversarial":
            return FLIP[chosen]
        case "tie" if rng.random() < 0.95:
            return "tie"
    return "tie" if rng.random() < 0.06 else chosen


def people(habits, num_items, seed=0, *, overlap=3, golden=0.08, repeats=0.05, sitting=40):
    """Ballots of raters named by their habits (good-0, lazy-1, ...), golden answers, and the words of each item.

    Each item has `overlap` of them, drawn at random; golden items and repeats come in at their shares. Sittings of 40
    judgments lie a day apart. Hasty and lazy raters take 2 to 4 s for 45 % of the pairs, all others 15 to 60 s.
    """
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(num_items + 500) < 0.5, "a", "b").tolist()
    queues = [[] for _ in habits]
    for item in range(num_items):
        for rater in rng.permutation(len(habits))[:overlap]:
            queues[rater].append((item, "judge"))
    ballots = []
    for number, (habit, queue) in enumerate(zip(habits, queues, strict=True)):
        asked, sides = [], {}
        for item, purpose in queue:
            asked.append((item, purpose))
            if rng.random() < golden:
                asked.append((num_items + int(rng.integers(500)), "golden"))
            if rng.random() < repeats and len(asked) > 60:
                asked.append((asked[len(asked) - 50][0], "repeat"))
        asked = list({(item, purpose): None for item, purpose in asked if purpose == "judge" or item >= 0})
        for at, (item, purpose) in enumerate(asked):
            if purpose == "repeat" and item >= num_items:
                continue
            swapped = bool(rng.random() < 0.5) if purpose != "repeat" else not sides.get(item, False)
            sides.setdefault(item, swapped)
            quick = habit in ("hasty", "lazy") and rng.random() < 0.45
            ballots.append(
                Ballot(
                    rater=f"{habit}-{number}",
                    item_id=item,
                    purpose=purpose,
                    swapped=swapped,
                    choice=answer(habit, truth[item], swapped, at / len(asked), at % sitting / sitting, rng),
                    seconds=float(rng.uniform(2, 4) if quick else rng.uniform(15, 60)),
                    created=86400.0 * (at // sitting) + 60.0 * (at % sitting),
                )
            )
    gold = {num_items + k: truth[num_items + k] for k in range(500)}
    return ballots, gold, dict.fromkeys(range(num_items + 500), 150)
