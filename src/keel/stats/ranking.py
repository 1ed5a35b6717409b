"""Strengths from comparisons, and the two baselines that a reward model has to beat.

Preferences are probabilities in [0, 1] that the first (a) is better; .5 is a tie. Accuracy counts a pair as right
when the score difference points the way of the preference, an exactly equal score as half right, and leaves out
pairs whose preference is .5.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keel.core.errors import DataError
from keel.stats.arrays import Floats, Ints, sigmoid, sum_by

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def count_correct(differences: ArrayLike, preference: ArrayLike) -> tuple[float, int]:
    """Right answers (halves for equal scores) and pairs that have one; `differences` are score a - score b, [N]."""
    gaps, target = _pairs(differences, preference)
    decided = target != 0.5
    right = np.sign(gaps[decided]) * np.sign(target[decided] - 0.5)
    return float(((right + 1) / 2).sum()), int(decided.sum())


def preference_accuracy(differences: ArrayLike, preference: ArrayLike) -> float:
    """Share of pairs that the score difference orders rightly; nan when every pair is a tie."""
    right, decided = count_correct(differences, preference)
    return right / decided if decided else nan


def longer_wins_accuracy(lengths_a: ArrayLike, lengths_b: ArrayLike, preference: ArrayLike) -> float:
    """Accuracy of always preferring the longer response; .5 says that length tells nothing."""
    return preference_accuracy(np.asarray(lengths_a, np.float64) - np.asarray(lengths_b, np.float64), preference)


def bradley_terry(
    first: ArrayLike, second: ArrayLike, outcome: ArrayLike, num_items: int | None = None, *, l2: float = 0.0
) -> Floats:
    """Log-strengths [M], mean 0, with P(i beats j) = sigmoid(strength i - strength j) (Bradley and Terry 1952).

    first and second [N] are item numbers from 0, outcome [N] in [0, 1] the share won by the first. The maximum of the
    likelihood less l2 / 2 times the sum of squares, by Newton's method. Without l2 there is a finite one only if no
    group of items won (or lost) every comparison with the rest (Ford 1957); otherwise DataError.
    """
    i, j = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
    won = np.asarray(outcome, dtype=np.float64)
    if not i.shape == j.shape == won.shape or i.ndim != 1 or not i.size:
        raise DataError(
            f"Each comparison needs two items and an outcome, got shapes {i.shape}, {j.shape}, {won.shape}."
        )
    size = int(max(i.max(), j.max())) + 1 if num_items is None else num_items
    if min(i.min(), j.min()) < 0 or max(i.max(), j.max()) >= size:
        raise DataError(
            f"Items must be numbered from 0 to {size - 1}, got {min(i.min(), j.min())} to {max(i.max(), j.max())}."
        )
    if not ((won >= 0) & (won <= 1)).all():
        raise DataError("An outcome lies outside [0, 1]. Expected the share won by the first item, .5 for a tie.")
    wins = sum_by(i * size + j, won, size * size) + sum_by(j * size + i, 1 - won, size * size)
    wins = wins.reshape(size, size)
    np.fill_diagonal(wins, 0.0)
    if l2 == 0:
        _check_connected(wins)
    games = wins + wins.T
    strengths = np.zeros(size)
    loss = np.inf
    for _ in range(100):
        gap = strengths[:, None] - strengths[None, :]
        expected = games * sigmoid(gap)
        gradient = expected.sum(axis=1) - wins.sum(axis=1) + l2 * strengths
        curvature = games * sigmoid(gap) * sigmoid(-gap)
        # The constant vector changes nothing; adding its projector fixes the mean at 0 and makes the system regular.
        hessian = np.diag(curvature.sum(axis=1) + l2) - curvature + 1 / size
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while (lower := _bradley_terry_loss(strengths - scale * step, wins, l2)) > loss and scale > 1e-8:
            scale /= 2
        strengths = strengths - scale * step
        if np.abs(step).max() < 1e-10 or scale <= 1e-8:
            break
        loss = lower
    return strengths - strengths.mean()


def _bradley_terry_loss(strengths: Floats, wins: Floats, l2: float) -> float:
    return float(
        (wins * np.logaddexp(0, strengths[None, :] - strengths[:, None])).sum() + l2 / 2 * strengths @ strengths
    )


def _check_connected(wins: Floats) -> None:
    for edges, verb in ((wins > 0, "beaten"), (wins.T > 0, "lost to")):
        reached = np.zeros(len(wins), dtype=bool)
        frontier = reached.copy()
        frontier[0] = True
        while frontier.any():
            reached |= frontier
            frontier = edges[frontier].any(axis=0) & ~reached
        if not reached.all():
            apart = np.flatnonzero(~reached)
            named = ", ".join(map(str, apart[:10])) + (", ..." if len(apart) > 10 else "")
            raise DataError(
                f"Strengths have no finite optimum: item 0 has never {verb} item(s) {named}, not even by a chain of "
                "comparisons. Collect comparisons that link them, leave them out, or pass l2 > 0."
            )


@dataclass(frozen=True, slots=True)
class _Sparse:
    """A matrix [num_rows, num_columns] as its non-zero cells; a cell named twice counts as the sum."""

    rows: Ints
    columns: Ints
    values: Floats
    num_rows: int
    num_columns: int

    def times(self, vector: Floats) -> Floats:
        return sum_by(self.rows, self.values * vector[self.columns], self.num_rows)

    def transposed_times(self, vector: Floats) -> Floats:
        return sum_by(self.columns, self.values * vector[self.rows], self.num_columns)

    def pick(self, keep: NDArray[np.bool_]) -> "_Sparse":
        """Only the rows where `keep` is True, renumbered."""
        cells = keep[self.rows]
        number = np.cumsum(keep) - 1
        return _Sparse(
            number[self.rows[cells]], self.columns[cells], self.values[cells], int(keep.sum()), self.num_columns
        )


class BagOfWordsBradleyTerry:
    """Bradley-Terry on words alone: what a reward model reaches that only knows which words are liked.

    A text's score is linear in its words, each counting as (times used) x (inverse document frequency) / sqrt(number
    of words in the text); P(a is better) = sigmoid(score a - score b). The weights minimise the cross-entropy with an
    L2 penalty and no intercept, so that swapping a and b swaps the answer. The penalty is the one of `l2_grid` with
    the lowest cross-entropy in cross-validation over the training pairs. This form was chosen by cross-validation on
    the training parts of two sets: see docs/reward-model-baselines.md. Pairs that share texts, as rankings expanded to
    pairs do, make the cross-validation choose too weak a penalty.

    Words are lower-case runs of letters and digits, inner apostrophes included; the vocabulary is the `max_words` most
    widespread of those in at least `min_texts` training texts.
    """

    def __init__(
        self,
        max_words: int = 20_000,
        min_texts: int = 2,
        l2_grid: Sequence[float] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
        folds: int = 4,
        seed: int = 0,
    ) -> None:
        if not l2_grid or min(l2_grid) <= 0 or folds < 2:
            raise DataError(f"l2_grid={tuple(l2_grid)} and folds={folds}: penalties must be above 0, folds 2 or more.")
        self.max_words, self.min_texts, self.folds, self.seed = max_words, min_texts, folds, seed
        self.l2_grid = tuple(sorted(l2_grid, reverse=True))
        self.vocabulary: dict[str, int] = {}
        self.inverse_frequency: Floats = np.zeros(0)
        """[V], log of (training texts / training texts with the word)."""
        self.weights: Floats = np.zeros(0)
        """[V], log-odds per unit of each word's share in the score."""
        self.l2 = nan
        """The chosen penalty; nan before `fit`."""

    def fit(self, texts_a: Sequence[str], texts_b: Sequence[str], preference: ArrayLike) -> Self:
        """Learn from pairs; `preference` [N] is the probability that text a is better, soft values welcome."""
        target = _checked_texts(texts_a, texts_b, preference)
        words = [_WORD.findall(text.lower()) for text in (*texts_a, *texts_b)]
        spread = Counter(word for text in words for word in set(text))
        known = sorted((w for w, texts in spread.items() if texts >= self.min_texts), key=lambda w: (-spread[w], w))
        self.vocabulary = {word: index for index, word in enumerate(known[: self.max_words])}
        self.inverse_frequency = np.log(len(words) / np.array([spread[word] for word in self.vocabulary], np.float64))
        matrix = self._differences(words)
        self.l2 = self._choose_l2(matrix, target) if len(self.l2_grid) > 1 else self.l2_grid[0]
        self.weights = _fit_logistic(matrix, target, self.l2, np.zeros(len(self.vocabulary)), tolerance=1e-6)
        return self

    def scores(self, texts: Sequence[str]) -> Floats:
        """Log-strength of each text, [N]; a text without a known word scores 0."""
        return self._features([_WORD.findall(text.lower()) for text in texts]).times(self.weights)

    def probability(self, texts_a: Sequence[str], texts_b: Sequence[str]) -> Floats:
        """P(a is better) of each pair, [N]."""
        return sigmoid(self.scores(texts_a) - self.scores(texts_b))

    def top_words(self, count: int = 10) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """The most liked and the most disliked words with their pull (weight x idf): where a shortcut shows itself."""
        words, pull = list(self.vocabulary), self.weights * self.inverse_frequency
        order = np.argsort(pull, kind="stable")
        liked = [(words[k], float(pull[k])) for k in order[::-1][:count]]
        return liked, [(words[k], float(pull[k])) for k in order[:count]]

    def _features(self, words: Sequence[Sequence[str]]) -> _Sparse:
        """A row per text, a cell per use of a known word."""
        number = self.vocabulary
        columns = np.array([number.get(word, -1) for text in words for word in text], dtype=np.int64)
        lengths = np.array([len(text) for text in words], dtype=np.int64)
        rows = np.repeat(np.arange(len(words)), lengths)
        known = columns >= 0
        rows, columns = rows[known], columns[known]
        values = self.inverse_frequency[columns] / np.sqrt(lengths[rows])
        return _Sparse(rows, columns, values, len(words), len(number))

    def _differences(self, words: Sequence[Sequence[str]]) -> _Sparse:
        """Features of the first half of the texts minus those of the second; equal shares cancel and leave no cell."""
        texts = self._features(words)
        pairs = len(words) // 2
        signed = np.where(texts.rows < pairs, texts.values, -texts.values)
        width = max(1, texts.num_columns)
        cells, cell = np.unique(texts.rows % pairs * width + texts.columns, return_inverse=True)
        values = sum_by(cell, signed, len(cells))
        kept = np.abs(values) > 1e-12
        return _Sparse(cells[kept] // width, cells[kept] % width, values[kept], pairs, texts.num_columns)

    def _choose_l2(self, matrix: _Sparse, target: Floats) -> float:
        """From the strongest penalty down, each fold starting where it stood; ends when the loss has risen twice."""
        fold = np.random.default_rng(self.seed).permutation(len(target)) % self.folds
        train = [(matrix.pick(fold != k), target[fold != k]) for k in range(self.folds)]
        test = [(matrix.pick(fold == k), target[fold == k]) for k in range(self.folds)]
        weights = [np.zeros(matrix.num_columns)] * self.folds
        losses: list[float] = []
        for l2 in self.l2_grid:
            weights = [_fit_logistic(*train[k], l2, weights[k], tolerance=1e-2) for k in range(self.folds)]
            losses.append(sum(_cross_entropy(test[k][0].times(weights[k]), test[k][1]) for k in range(self.folds)))
            if len(losses) > 2 and losses[-1] > losses[-2] > losses[-3]:
                break
        return self.l2_grid[int(np.argmin(losses))]


def _fit_logistic(matrix: _Sparse, target: Floats, l2: float, start: Floats, tolerance: float) -> Floats:
    """The w of least summed cross-entropy + l2/2 |w|^2, by Newton's method with conjugate gradients.

    Stops when the gradient has shrunk to `tolerance` times its size at w = 0.
    """
    weights = start
    goal = tolerance * float(np.linalg.norm(matrix.transposed_times(0.5 - target)))
    logits = matrix.times(weights)
    loss = _cross_entropy(logits, target) + l2 / 2 * weights @ weights
    squares = _Sparse(matrix.rows, matrix.columns, matrix.values**2, matrix.num_rows, matrix.num_columns)
    for _ in range(50):
        probability = sigmoid(logits)
        gradient = matrix.transposed_times(probability - target) + l2 * weights
        size = float(np.linalg.norm(gradient))
        if size <= goal:
            break
        curvature = probability * (1 - probability)
        diagonal = squares.transposed_times(curvature) + l2
        step = _conjugate_gradient(matrix, curvature, l2, gradient, diagonal, max(0.1 * size, 0.3 * goal))
        along = matrix.times(step)
        scale = 1.0
        while True:
            moved, shifted = weights - scale * step, logits - scale * along
            lower = _cross_entropy(shifted, target) + l2 / 2 * moved @ moved
            if lower <= loss or scale < 1e-8:
                break
            scale /= 2
        weights, logits, loss = moved, shifted, lower
    return weights


def _conjugate_gradient(
    matrix: _Sparse, curvature: Floats, l2: float, gradient: Floats, diagonal: Floats, goal: float
) -> Floats:
    """Solution of (X^T diag(curvature) X + l2 I) step = gradient to a residual of length `goal`, scaled by diagonal."""
    step = np.zeros_like(gradient)
    residual = gradient.copy()
    direction = scaled = residual / diagonal
    square = residual @ scaled
    for _ in range(200):
        image = matrix.transposed_times(curvature * matrix.times(direction)) + l2 * direction
        length = square / (direction @ image)
        step += length * direction
        residual -= length * image
        if residual @ residual <= goal * goal:
            break
        scaled = residual / diagonal
        previous, square = square, residual @ scaled
        direction = scaled + square / previous * direction
    return step


def _cross_entropy(logits: Floats, target: Floats) -> float:
    return float((np.logaddexp(0, logits) - target * logits).sum())


def _pairs(differences: ArrayLike, preference: ArrayLike) -> tuple[Floats, Floats]:
    gaps, target = np.asarray(differences, np.float64), np.asarray(preference, np.float64)
    if gaps.shape != target.shape or gaps.ndim != 1:
        raise DataError(f"One preference per pair is needed, got {gaps.shape} score differences and {target.shape}.")
    if not np.isfinite(gaps).all():
        raise DataError(f"{int((~np.isfinite(gaps)).sum())} of {gaps.size} score differences are not finite.")
    outside = ~((target >= 0) & (target <= 1))
    if outside.any():
        at = int(np.argmax(outside))
        raise DataError(
            f"Pair {at + 1} has the preference {target[at]:g}; expected the probability from 0 to 1 that a is better."
        )
    return gaps, target


def _checked_texts(texts_a: Sequence[str], texts_b: Sequence[str], preference: ArrayLike) -> Floats:
    target = _pairs(np.zeros(len(texts_a)), preference)[1]
    if len(texts_a) != len(texts_b) or not len(texts_a):
        raise DataError(
            f"Pairs need two texts each and at least one pair, got {len(texts_a)} and {len(texts_b)} texts."
        )
    return target
