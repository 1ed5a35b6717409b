"""BLEU by brute force over Python counters, and random texts to try it on."""

from collections import Counter
from math import exp, log

import numpy as np


def ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def sentence_bleu(text, references, max_n=4, epsilon=0.1):
    """BLEU as NLTK computes it with SmoothingFunction.method1."""
    precisions = []
    for n in range(1, max_n + 1):
        counts = Counter(ngrams(text, n))
        matches = sum(min(c, max(Counter(ngrams(r, n))[g] for r in references)) for g, c in counts.items())
        if n == 1 and matches == 0:
            return 0.0
        precisions.append((matches or epsilon) / max(1, sum(counts.values())))
    closest = min((abs(len(r) - len(text)), len(r)) for r in references)[1]
    penalty = 1.0 if len(text) > closest else exp(1 - closest / len(text))
    return penalty * exp(sum(log(p) for p in precisions) / max_n)


def random_texts(seed, count=12, vocabulary=6, longest=15):
    rng = np.random.default_rng(seed)
    return [rng.integers(vocabulary, size=rng.integers(0, longest)).tolist() for _ in range(count)]
