"""What judges' verdicts say against a reward model: what its score is worth, and what the form of a text should cost.

A pair's verdict is modelled as Bradley-Terry, P(first is better) = sigmoid(u(first) - u(second)), with u linear in the
score and in a few plain features of the text. The prior says that the score is right and form costs nothing, so few
verdicts change little.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keel.core.errors import DataError
from keel.stats.arrays import Floats, sigmoid

FORM = (
    "tokens",
    "surprisal",
    "rarest_token",
    "unseen_trigrams",
    "repeated_trigrams",
    "distinct_tokens",
    "cut_off",
)
"""Features of an answer: its length; how many nats it and its least likely token surprise the reference; trigrams that
the reward model never met, trigrams said again, different tokens, and 1 where it did not end by itself."""
LEAST_SPREAD = (1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.25)
"""Units in which a feature is measured at least, so that one that hardly varies is not blown up."""
CLIP = 4.0
"""Standard deviations beyond which neither score nor feature counts further: nothing was ever judged out there."""
SCORE_PRIOR, FORM_PRIOR = 4.0, 5.0
"""Precision of the priors: slope 1 of the score, price 0 of each feature, all in standard deviations."""
FOLDS = 10
LEAST_VERDICTS = 30
"""Judged pairs below which nothing is fitted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """A reward in place of the score: mean 0 and spread 1 over the reference's answers, as a normalised score has."""

    slope: float
    """What a standard deviation of the score is worth, in nats of log-odds before scaling."""
    prices: tuple[float, ...]
    """The same of each feature of FORM; below 0 it costs."""
    score_mean: float
    score_std: float
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    shift: float
    scale: float
    gain: float
    """Nats by which it tells verdicts that it was not fitted to better than the score alone does, all together."""
    verdicts: int

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Correction":
        """From the plain values of `record`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list | tuple) else v for k, v in record.items()}
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def rewards(self, scores: ArrayLike, form: ArrayLike) -> Floats:
        """[S] rewards of answers with these scores [S] and features [S, len(FORM)]."""
        s = np.clip((np.asarray(scores, np.float64) - self.score_mean) / self.score_std, -CLIP, CLIP)
        f = np.clip((np.asarray(form, np.float64) - self.means) / np.asarray(self.spreads), -CLIP, CLIP)
        return (self.slope * s + f @ np.asarray(self.prices) - self.shift) / self.scale

    @property
    def words(self) -> str:
        """The prices that count most, in words."""
        worth = {name: price / self.scale for name, price in zip(FORM, self.prices, strict=True)}
        largest = sorted(worth, key=lambda name: -abs(worth[name]))[:3]
        told = ", ".join(f"{name.replace('_', ' ')} {worth[name]:+.2f}" for name in largest)
        return f"score {self.slope / self.scale:+.2f}, {told}"


def fit_correction(scores: ArrayLike, form: ArrayLike, values: ArrayLike) -> Correction | None:
    """From judged pairs: scores [N, 2], features [N, 2, len(FORM)] and verdicts [N], 1 where the first is better.

    The second of each pair is the reference's answer: its score and features give the units. None below
    LEAST_VERDICTS pairs, or where the scores of the reference are all the same.
    """
    s, f, y = (np.asarray(x, np.float64) for x in (scores, form, values))
    if s.shape != (len(y), 2) or f.shape != (len(y), 2, len(FORM)):
        raise DataError(f"Expected scores [N, 2] and features [N, 2, {len(FORM)}], got {s.shape} and {f.shape}.")
    if len(y) < LEAST_VERDICTS or s[:, 1].std() <= 0:
        return None
    score_mean, score_std = float(s[:, 1].mean()), float(s[:, 1].std())
    means, spreads = f[:, 1].mean(0), np.maximum(f[:, 1].std(0), LEAST_SPREAD)
    design = np.concatenate(
        [
            np.clip((s - score_mean) / score_std, -CLIP, CLIP)[..., None],
            np.clip((f - means) / spreads, -CLIP, CLIP),
        ],
        axis=2,
    )
    pairs = design[:, 0] - design[:, 1]
    weights = _fitted(pairs, y)
    utility = design[:, 1] @ weights
    return Correction(
        slope=float(weights[0]),
        prices=tuple(weights[1:].tolist()),
        score_mean=score_mean,
        score_std=score_std,
        means=tuple(means.tolist()),
        spreads=tuple(spreads.tolist()),
        shift=float(utility.mean()),
        scale=max(float(utility.std()), 0.25),
        gain=_gain(pairs, y),
        verdicts=len(y),
    )


def _gain(pairs: Floats, values: Floats) -> float:
    """Nats that the corrected score saves over the score alone, each pair told by a fit to the other folds."""
    fold = np.arange(len(values)) % FOLDS
    saved = 0.0
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        for columns, sign in ((slice(0, 1), 1.0), (slice(None), -1.0)):
            logits = pairs[test][:, columns] @ _fitted(pairs[train][:, columns], values[train])
            saved += sign * float((np.logaddexp(0, logits) - values[test] * logits).sum())
    return saved


def _fitted(pairs: Floats, values: Floats) -> Floats:
    """Weights [d], the score's first and never below 0, of the highest posterior; by Newton's method."""
    weights = _newton(pairs, values, np.array([1.0] + [0.0] * (pairs.shape[1] - 1)))
    if weights[0] < 0:
        rest = _newton(pairs[:, 1:], values, np.zeros(pairs.shape[1] - 1), FORM_PRIOR)
        weights = np.concatenate([[0.0], rest])
    return weights


def _newton(pairs: Floats, values: Floats, prior: Floats, first: float = SCORE_PRIOR) -> Floats:
    precision = np.full(len(prior), FORM_PRIOR)
    precision[:1] = first
    weights = prior.copy()

    def loss(w: Floats) -> float:
        logits = pairs @ w
        return float((np.logaddexp(0, logits) - values * logits).sum() + 0.5 * (precision * (w - prior) ** 2).sum())

    for _ in range(50):
        p = sigmoid(pairs @ weights)
        gradient = pairs.T @ (p - values) + precision * (weights - prior)
        step = np.linalg.solve((pairs * (p * (1 - p))[:, None]).T @ pairs + np.diag(precision), gradient)
        size, now = 1.0, loss(weights)
        while loss(weights - size * step) > now and size > 1e-8:
            size /= 2
        weights = weights - size * step
        if np.abs(step).max(initial=0.0) < 1e-10:
            break
    return weights
