"""What the statistics of raters cost and find: `python benchmarks/raters.py [time|labels|drift|all]`, about 2 minutes.

time    the full report on 50,000 items by five raters, from a file and from an array, beside its peers krippendorff
        (alpha without an interval) and crowd-kit (Dawid and Skene), where they are installed
labels  simulated noisy raters: which way of resolving votes names the better answer most often, and which labels teach
        a Bradley-Terry reward model most, over many worlds
drift   how often a steady rater is called drifted or tired, and how often one who is gets found
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from keel.data.vote_files import read_votes
from keel.data.vote_report import vote_report
from keel.stats.agreement import agreement_report
from keel.stats.arrays import Floats, Ints, sigmoid
from keel.stats.dawid_skene import dawid_skene
from keel.stats.drift import Steadiness, steadiness
from keel.stats.intervals import bootstrap_difference, bootstrap_mean

NUM_ITEMS, NUM_RATERS = 50_000, 5
WORLDS, PAIRS, FEATURES, OVERLAP = 200, 500, 24, 3
TEST_PAIRS = 4000
RELIABLE, SLOPPY, ONE_SIDED, LAZY = 4, 4, 2, 2
"""Raters of each kind: sharp eyes; half as sharp; drawn to the side shown first; clicking blindly half of the time."""
SIMULATIONS = 300
DAY_S = 86_400.0


def votes_of_five(seed: int = 0) -> Ints:
    """[items, raters] votes among a, tie and b, the raters right in 50 to 90 %, a tenth missing."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=(NUM_ITEMS, 1))
    right = rng.random((NUM_ITEMS, NUM_RATERS)) < np.linspace(0.9, 0.5, NUM_RATERS)
    votes = np.where(right, truth, rng.integers(3, size=right.shape))
    votes[rng.random(votes.shape) < 0.1] = -1
    return votes


def cpu_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def print_times() -> None:
    votes = votes_of_five()
    items, raters = np.nonzero(votes >= 0)
    choices = votes[items, raters]
    words = np.array(["a", "tie", "b"])
    print(f"CPU seconds, {NUM_ITEMS:,} items by {NUM_RATERS} raters, {len(items):,} votes\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for item, row in enumerate(votes):
                cast = {f"rater {k}": str(words[code]) for k, code in enumerate(row) if code >= 0}
                file.write(json.dumps({"id": item, "votes": cast}) + "\n")
        print(f"keel, from a file: all of the report  {cpu_seconds(lambda: vote_report(read_votes(path))):8.2f}")
    print(f"keel, every kappa and alpha, intervals  {cpu_seconds(lambda: agreement_report(votes)):6.2f}")
    fit = cpu_seconds(lambda: dawid_skene(items, raters, choices, NUM_ITEMS, NUM_RATERS, 3))
    print(f"keel, Dawid-Skene                       {fit:6.2f}")
    if find_spec("krippendorff"):
        import krippendorff

        table = np.where(votes < 0, np.nan, votes).T
        alpha = cpu_seconds(lambda: krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"), 1)
        print(f"krippendorff, alpha, no interval        {alpha:6.2f}")
    if find_spec("crowdkit"):
        import pandas as pd
        from crowdkit.aggregation import DawidSkene

        frame = pd.DataFrame({"task": items, "worker": raters, "label": choices})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = cpu_seconds(lambda: DawidSkene(n_iter=100).fit(frame), 1)
        print(f"crowd-kit, Dawid-Skene                  {peer:6.2f}")


def world(seed: int) -> dict[str, Floats]:
    """Scores of one simulated world: labels right, and reward models right, by way of resolving votes.

    A pair is a difference of features whose true gap in utility is linear in them. A rater sees the gap with noise of
    their own, adds a pull to the side shown first, and calls a small one a tie.
    """
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=FEATURES) / np.sqrt(FEATURES)
    features, fresh = rng.normal(size=(PAIRS, FEATURES)), rng.normal(size=(TEST_PAIRS, FEATURES))
    gap, test_gap = features @ weights, fresh @ weights
    num_raters = RELIABLE + SLOPPY + ONE_SIDED + LAZY
    kind = np.repeat([0, 1, 2, 3], [RELIABLE, SLOPPY, ONE_SIDED, LAZY])
    noise = rng.uniform(0.8, 1.2, num_raters) * np.array([0.5, 1.2, 0.7, 0.7])[kind]
    pull = np.where(kind == 2, 1.5, 0.0)
    lazy = np.where(kind == 3, 0.5, 0.0)
    raters = np.array([rng.choice(num_raters, size=OVERLAP, replace=False) for _ in range(PAIRS)])
    a_first = rng.choice([-1.0, 1.0], size=raters.shape)
    seen = gap[:, None] + noise[raters] * rng.logistic(size=raters.shape) * 0.55 + pull[raters] * a_first
    said = np.where(np.abs(seen) < 0.15, 1, np.where(seen > 0, 0, 2))
    said = np.where(rng.random(raters.shape) < lazy[raters], rng.choice([0, 2], size=raters.shape), said)

    counts = np.stack([(said == code).sum(axis=1) for code in range(3)], axis=1)
    leads = counts == counts.max(axis=1, keepdims=True)
    majority = np.where(leads.sum(axis=1) > 1, 0.5, 1 - counts.argmax(axis=1) / 2)
    share = (counts[:, 0] + counts[:, 1] / 2) / OVERLAP
    items = np.repeat(np.arange(PAIRS), OVERLAP)
    posterior = dawid_skene(items, raters.ravel(), said.ravel(), PAIRS, num_raters, 3, prior_votes=4.0).posterior
    soft = posterior[:, 0] + posterior[:, 1] / 2
    hard = 1 - posterior.argmax(axis=1) / 2
    targets = {"majority": majority, "vote share": share, "Dawid-Skene, hard": hard, "Dawid-Skene, soft": soft}
    return {
        name: np.array([right(target - 0.5, gap), right(fresh @ reward_model(features, target), test_gap)])
        for name, target in targets.items()
    }


def right(found: Floats, gap: Floats) -> float:
    """Share of pairs whose sign is that of the true gap, half for no sign."""
    return float(((np.sign(found) * np.sign(gap) + 1) / 2).mean())


def reward_model(features: Floats, target: Floats, l2: float = 1.0) -> Floats:
    """Weights of the Bradley-Terry model with soft targets: cross-entropy of sigmoid(features @ weights), by Newton."""
    weights = np.zeros(features.shape[1])
    for _ in range(25):
        p = sigmoid(features @ weights)
        gradient = features.T @ (p - target) + l2 * weights
        hessian = (features * (p * (1 - p))[:, None]).T @ features + l2 * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return weights


def print_labels(worlds: int = WORLDS) -> None:
    found = [world(seed) for seed in range(worlds)]
    print(
        f"{worlds} worlds of {PAIRS} pairs, {OVERLAP} votes each by {RELIABLE} reliable, {SLOPPY} sloppy, {ONE_SIDED} "
        f"one-sided and {LAZY} lazy raters; accuracy in %, 95 % intervals over worlds\n"
    )
    print("| label | label right | than majority | reward model right | than majority |\n|---|---|---|---|---|")
    scores = {name: 100 * np.array([one[name] for one in found]) for name in found[0]}
    for name, score in scores.items():
        cells = [name]
        for column in (0, 1):
            low, high = bootstrap_mean(score[:, column])
            cells.append(f"{score[:, column].mean():.1f} ({low:.1f} to {high:.1f})")
            gain = score[:, column] - scores["majority"][:, column]
            low, high = bootstrap_difference(score[:, column], scores["majority"][:, column])
            cells.append("" if name == "majority" else f"{gain.mean():+.2f} ({low:+.2f} to {high:+.2f})")
        print(f"| {' | '.join(cells)} |")
    for better, worse in (("vote share", "majority"), ("Dawid-Skene, soft", "Dawid-Skene, hard")):
        low, high = bootstrap_difference(scores[better][:, 1], scores[worse][:, 1])
        gain = float((scores[better][:, 1] - scores[worse][:, 1]).mean())
        print(f"\nreward model, {better} less {worse}: {gain:+.2f} points ({low:+.2f} to {high:+.2f})", end="")
    print()


def over_time(seed: int, num: int, tired: float = 0.0, drop: float = 0.0) -> Steadiness:
    """A rater of `num` judgments in sittings of 100, one in ten golden, right 90 % of the time at first.

    `tired`: points lost by the end of every sitting, from its middle on. `drop`: points lost for good after 60 %.
    """
    rng = np.random.default_rng(seed)
    sitting, place = np.divmod(np.arange(num), 100)
    times = np.cumsum(rng.exponential(20, num)) + sitting * DAY_S
    chance = 0.9 - tired * np.clip(place / 50 - 1, 0, 1) - drop * (np.arange(num) > 0.6 * num)
    said = rng.random(num) < chance
    gold = np.where(rng.random(num) < 0.1, said, np.nan)
    agreed = ((rng.random((2, num)) < 0.85) == said).mean(axis=0)
    return steadiness(times, gold, agreed, rng.lognormal(3, 0.5, num), seed=seed)


def print_drift(simulations: int = SIMULATIONS) -> None:
    print(f"{simulations} simulated raters a row, at the default level of 5 %\n")
    print("| rater | judgments | called drifted | called tired |\n|---|---|---|---|")
    kinds = (
        ("steady", {}),
        ("tires, 20 points by the end of a sitting", {"tired": 0.2}),
        ("tires, 40 points", {"tired": 0.4}),
        ("10 points worse for good", {"drop": 0.1}),
        ("20 points worse for good", {"drop": 0.2}),
    )
    for name, habits in kinds:
        for num in (300, 600):
            found = [over_time(seed, num, **habits) for seed in range(simulations)]
            drifted, tired = (np.mean([getattr(one, what) for one in found]) for what in ("drifted", "tired"))
            print(f"| {name} | {num} | {100 * drifted:.1f} % | {100 * tired:.1f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=["time", "labels", "drift", "all"])
    part = parser.parse_args().part
    for name, show in (("time", print_times), ("labels", print_labels), ("drift", print_drift)):
        if part in (name, "all"):
            show()
            print()


if __name__ == "__main__":
    main()
