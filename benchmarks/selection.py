"""Labels that active selection saves: `python benchmarks/selection.py` takes some minutes on one core.

Pairs of answers are points in a feature space; raters prefer by a hidden linear reward with logistic noise. A room of
topics of Zipf's frequencies, each with features of its own beside those that all share, makes some of the pool rare.
An ensemble of Bradley-Terry models, fitted to bootstraps of the votes so far, says what to judge next; after each batch
a model of all votes is measured on held-out pairs by how often it prefers what is truly better. The same seed has the
same pool, first votes and noise for every method, so differences are within seeds.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing import Pool

import numpy as np

from keel.annotate.selection import Method, priorities
from keel.stats.arrays import Floats, sigmoid
from keel.stats.intervals import mean_estimate

FIRST, BATCH, LAST = 60, 30, 900
POOL, HELD_OUT = 4000, 4000
MEMBERS = 5
L2 = 0.3
WAYS: dict[str, tuple[Method, float]] = {
    "random": ("random", 0.0),
    "uncertainty": ("uncertainty", 0.0),
    "disagreement": ("disagreement", 0.0),
    "disagreement, diverse": ("disagreement", 1.0),
}


@dataclass(frozen=True)
class World:
    name: str
    topics: int
    own: int
    """Features that only one topic has."""
    shared: int
    zipf: float
    """Topic k is as frequent as 1 / k ** zipf."""
    even_test: bool
    """Whether held-out pairs are of all topics alike, else as frequent as in the pool."""
    sharpness: float = 1.5
    """Standard deviation of true score differences, in units of the noise: larger is easier to judge."""


WORLDS = (
    World("one kind", 1, 0, 16, 0.0, False),
    World("topics", 12, 4, 6, 1.2, False),
    World("topics, all count alike", 12, 4, 6, 1.2, True),
    World("topics, noisy raters", 12, 4, 6, 1.2, False, sharpness=0.7),
)


def pairs(world: World, count: int, even: bool, rng: np.random.Generator) -> Floats:
    """Feature differences [count, D]."""
    frequency = np.ones(world.topics) if even else 1 / np.arange(1, world.topics + 1) ** world.zipf
    topic = rng.choice(world.topics, size=count, p=frequency / frequency.sum())
    found = np.zeros((count, world.shared + world.topics * world.own))
    found[:, : world.shared] = rng.normal(size=(count, world.shared))
    for k in range(world.topics):
        start = world.shared + k * world.own
        rows = np.flatnonzero(topic == k)
        found[rows, start : start + world.own] = rng.normal(size=(len(rows), world.own))
    return found


def fit(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Bradley-Terry (logistic) weights [D] with a Gaussian prior, by Newton's method."""
    w = np.zeros(x.shape[1])
    for _ in range(12):
        p = sigmoid(x @ w)
        slope = x.T @ (weights * (p - y)) + L2 * w
        step = np.linalg.solve((x * (weights * p * (1 - p))[:, None]).T @ x + L2 * np.eye(len(w)), slope)
        w -= step
        if np.abs(step).max() < 1e-6:
            break
    return w


def curve(world: World, way: str, seed: int) -> list[float]:
    """Accuracy against the truth after FIRST, FIRST + BATCH, ... labels."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=world.shared + world.topics * world.own)
    pool = pairs(world, POOL, False, rng)
    scale = world.sharpness / (pool @ truth).std()
    test = pairs(world, HELD_OUT, world.even_test, rng)
    better = test @ truth > 0
    votes = (rng.random(POOL) < sigmoid(pool @ truth * scale)).astype(float)
    known = rng.permutation(POOL)[:FIRST].tolist()
    method, diversity = WAYS[way]
    found = []
    while True:
        x, y = pool[known], votes[known]
        draws = [np.bincount(rng.integers(len(known), size=len(known)), minlength=len(known)) for _ in range(MEMBERS)]
        members = np.array([fit(x, y, draw.astype(float)) for draw in draws])
        found.append(float(((test @ fit(x, y, np.ones(len(known))) > 0) == better).mean()))
        if len(known) + BATCH > LAST:
            return found
        rest = np.setdiff1d(np.arange(POOL), known)
        first = priorities(members @ pool[rest].T, BATCH, pool[rest], method=method, diversity=diversity, seed=seed)
        known += rest[np.argsort(-first, kind="stable")[:BATCH]].tolist()


def labels_needed(accuracies: list[float], wanted: float) -> float:
    """Labels at which the running best of a curve reaches `wanted`, by straight lines; the last where it never does."""
    best = np.maximum.accumulate(accuracies)
    labels = FIRST + BATCH * np.arange(len(best))
    return float(np.interp(wanted, best, labels)) if best[-1] >= wanted else float(labels[-1])


def one(task: tuple[int, int]) -> dict[str, list[float]]:
    world, seed = task
    return {way: curve(WORLDS[world], way, seed) for way in WAYS}


def summary(curves: list[dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """For each way: share of random's labels that reach the accuracy random has at two thirds, and accuracy at it."""
    at = (2 * LAST // 3 - FIRST) // BATCH
    found = {}
    for way in WAYS:
        shares = [
            labels_needed(seed[way], max(seed["random"][: at + 1]))
            / labels_needed(seed["random"], max(seed["random"][: at + 1]))
            for seed in curves
        ]
        share = mean_estimate(shares)
        gain = mean_estimate([seed[way][at] - seed["random"][at] for seed in curves])
        found[way] = {
            "labels_share": share.value,
            "labels_share_low": share.low,
            "labels_share_high": share.high,
            "accuracy": float(np.mean([seed[way][at] for seed in curves])),
            "gain": gain.value,
            "gain_low": gain.low,
            "gain_high": gain.high,
        }
    return found


def table(name: str, found: dict[str, dict[str, float]]) -> Iterable[str]:
    yield f"\n{name}\n{'':24}{'labels, % of random':>24}{'accuracy':>10}{'gain, points':>22}"
    for way, f in found.items():
        labels = f"{f['labels_share']:.0%} ({f['labels_share_low']:.0%} to {f['labels_share_high']:.0%})"
        gain = f"{100 * f['gain']:+.1f} ({100 * f['gain_low']:+.1f} to {100 * f['gain_high']:+.1f})"
        yield f"{way:24}{labels:>24}{f['accuracy']:>10.3f}{gain:>22}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {}
    with Pool(args.jobs) as workers:
        for index, world in enumerate(WORLDS):
            curves = workers.map(one, [(index, seed) for seed in range(args.seeds)], chunksize=1)
            results[world.name] = summary(curves)
            if not args.json:
                print("\n".join(table(world.name, results[world.name])), flush=True)
    if args.json:
        print(json.dumps({"seeds": args.seeds, "worlds": results}, indent=2))


if __name__ == "__main__":
    main()
