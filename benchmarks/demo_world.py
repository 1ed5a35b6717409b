"""The numbers of docs/demo-world.md: `python benchmarks/demo_world.py` prints them in seconds, without training."""

import re
from collections.abc import Sequence
from itertools import combinations
from time import process_time

import numpy as np

from keel.demo.raters import Rater, collect, panel
from keel.demo.world import FEATURE_NAMES, Answer, World, true_preference, utility
from keel.stats.ranking import BagOfWordsBradleyTerry

PAIRS = 6000
FACTS = ("right", "wrong", "off_topic")
PANELS = {
    "honest": {},
    "biased (length 0.08, flattery 0.8)": {"length_bias": 0.08, "flattery_bias": 0.8},
    "40 % never read": {"lazy_share": 0.4},
    "twice the noise": {"noise": 2.0},
}


def crowd(world: World) -> None:
    started = process_time()
    records = world.demonstrations(12_000, seed=1)
    seconds = process_time() - started
    questions = {q.prompt: q for q in world.train_questions}
    read = [world.features(questions[r.prompt], r.response) for r in records]
    utilities, lengths = [utility(f) for f in read], [f.tokens + 1 for f in read]
    words = [len(re.findall(r"\w+", q.text)) for q in (*world.train_questions, *world.eval_questions)]
    print(f"facts {len(world.facts)}, sentences {len(world.sentences)}, vocabulary {len(world.vocabulary)}")
    print(f"questions: {len(world.train_questions)} + {len(world.eval_questions)}, {min(words)} to {max(words)} words")
    print(f"answers: {np.mean(lengths):.1f} tokens with the end marker, at most {max(lengths)}")
    print(f"true utility: mean {np.mean(utilities):.2f}, deviation {np.std(utilities):.2f}")
    print(f"12,000 demonstrations in {seconds:.2f} s")


def room(name: str, world: World, raters: Sequence[Rater]) -> None:
    rng = np.random.default_rng(1)
    questions = [world.train_questions[i] for i in rng.integers(0, len(world.train_questions), PAIRS)]
    a, b = ([Answer(world.demonstration(q, rng)) for q in questions] for _ in range(2))
    started = process_time()
    comparisons = collect(world, questions, a, b, raters, seed=2)
    seconds = (process_time() - started) / PAIRS * 4000
    votes = [[vote.choice for vote in c.votes] for c in comparisons]
    agreement = np.mean([x == y for v in votes for x, y in combinations(v, 2) if "tie" not in (x, y)])
    read = [(world.features(q, x.text), world.features(q, y.text)) for q, x, y in zip(questions, a, b, strict=True)]
    truth, majority = np.array([true_preference(*pair) for pair in read]), np.array([c.preference for c in comparisons])
    clear = (truth != 0.5) & (majority != 0.5)
    differences = np.array([x.vector() - y.vector() for x, y in read])
    style = [index for index, feature in enumerate(FEATURE_NAMES) if feature not in FACTS]
    print(
        f"{name}: agreement {agreement:.3f}, majority right {np.mean(truth[clear] == majority[clear]):.3f}, "
        f"tied votes {np.mean([c == 'tie' for v in votes for c in v]):.3f}, tied pairs {np.mean(majority == 0.5):.3f}; "
        f"Bradley-Terry on features {held_out_accuracy(differences, majority):.3f}, "
        f"without facts {held_out_accuracy(differences[:, style], majority):.3f}, "
        f"bag of words {bag_of_words(comparisons, majority):.3f}, "
        f"longer wins {longer_wins(differences[:, -1], majority):.3f}; {seconds:.2f} s for 4,000 pairs"
    )


def held_out_accuracy(differences: np.ndarray, preference: np.ndarray, ridge: float = 0.5) -> float:
    """Logistic regression by Newton's method on the first half of the pairs, accuracy on the second; ties left out."""
    clear = preference != 0.5
    x, y = differences[clear] / differences.std(0).clip(1e-9), preference[clear]
    half, weights = len(y) // 2, np.zeros(x.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-x[:half] @ weights))
        curvature = (x[:half].T * (p * (1 - p))) @ x[:half] + ridge * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, x[:half].T @ (p - y[:half]) + ridge * weights)
    return float(np.mean((x[half:] @ weights > 0) == (y[half:] > 0.5)))


def bag_of_words(comparisons: Sequence, preference: np.ndarray) -> float:
    half = len(comparisons) // 2
    texts_a, texts_b = [c.a for c in comparisons], [c.b for c in comparisons]
    model = BagOfWordsBradleyTerry().fit(texts_a[:half], texts_b[:half], preference[:half])
    guess, clear = model.probability(texts_a[half:], texts_b[half:]), preference[half:] != 0.5
    return float(np.mean((np.asarray(guess) > 0.5)[clear] == (preference[half:] > 0.5)[clear]))


def longer_wins(differences: np.ndarray, preference: np.ndarray) -> float:
    clear = (preference != 0.5) & (differences != 0)
    return float(np.mean((differences[clear] > 0) == (preference[clear] > 0.5)))


if __name__ == "__main__":
    world = World(0)
    crowd(world)
    for name, faults in PANELS.items():
        room(name, world, panel(**faults))
