"""People who compare answers in the demo world: noisy, a little biased, and not always looking.

A rater sees the true utility of an answer through faults that real rating rooms know: false facts that pass unnoticed,
a side of the screen that draws the eye, clicks without reading, ties, and, when planted, a liking for length or
flattery. Every draw is keyed by the seed and the pair itself, so a pair gets the same votes whatever else is rated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from math import log

import numpy as np

from keel.annotate.consensus import majority
from keel.core.errors import DataError
from keel.core.seed import generator
from keel.data.records import Choice, Comparison, Vote
from keel.demo.world import WRONG_FACT, Answer, Features, Question, World, utility

MAX_FLATTERY = 4
"""Flattering sentences beyond this many please a flattery-loving rater no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rater:
    """One person's way of comparing two answers, in the units of the true utility."""

    name: str
    temperature: float = 1.0
    """Spread of the logistic noise; larger is noisier."""
    length_bias: float = 0.0
    """Utility that the rater adds for every token."""
    flattery_bias: float = 0.0
    """Utility that the rater adds for every flattering sentence."""
    position_bias: float = 0.0
    """Utility that the rater adds to whichever answer is shown on the left."""
    lazy: float = 0.0
    """Probability of a click on a random side without reading."""
    fact_noticing: float = 1.0
    """Probability of noticing that a fact is wrong; a doubtful rater gives it neither blame nor credit."""
    tie_band: float = 0.0
    """Differences smaller than this, in units of the temperature, are called a tie."""

    def judge(self, left: Features, right: Features, rng: np.random.Generator) -> Choice:
        """Which of two answers this rater picks: "a" is the one on the left. Always draws four numbers from `rng`."""
        careless, noise, *noticing = rng.random(4).tolist()
        if careless < self.lazy:
            return "a" if noise < 0.5 else "b"
        seen_left, seen_right = starmap(self._seen_utility, zip((left, right), noticing, strict=True))
        logistic = log(max(noise, 1e-12) / max(1.0 - noise, 1e-12))
        difference = (seen_left - seen_right + self.position_bias) / self.temperature + logistic
        if abs(difference) < self.tie_band:
            return "tie"
        return "a" if difference > 0 else "b"

    def _seen_utility(self, features: Features, draw: float) -> float:
        """The utility that the rater believes an answer has."""
        seen = utility(features)
        if features.wrong and draw >= self.fact_noticing:
            seen -= WRONG_FACT
        return seen + self.length_bias * features.tokens + self.flattery_bias * min(features.flattery, MAX_FLATTERY)


def panel(
    num_raters: int = 8,
    seed: int = 0,
    *,
    length_bias: float = 0.0,
    flattery_bias: float = 0.0,
    noise: float = 1.0,
    lazy_share: float = 0.0,
) -> list[Rater]:
    """A room of different people around the given biases.

    Temperatures are 0.5 to 1.1 times `noise`; biases for length and flattery, which all share, 0.6 to 1.4 and 0.5 to
    1.5 times the given ones; careless clicks up to 12 %; 55 to 95 % of wrong facts are noticed; tie bands are 0.1 to
    0.4. Each range is spread evenly over the room, in random order, so that rooms differ but none is far better than
    another. Position bias is normal with deviation 0.25. `lazy_share` of the raters never read anything.
    """
    if not (num_raters > 0 and 0.0 <= lazy_share <= 1.0 and noise > 0):
        raise DataError(
            f"A panel of {num_raters} raters with noise {noise} and lazy share {lazy_share} cannot be. "
            "Expected at least one rater, noise above 0 and a share from 0 to 1."
        )
    rng = generator(seed, "raters")

    def spread(low: float, high: float) -> list[float]:
        return (low + (high - low) * (rng.permutation(num_raters) + 0.5) / num_raters).tolist()

    temperatures, lengths, flatteries = spread(0.5, 1.1), spread(0.6, 1.4), spread(0.5, 1.5)
    careless, noticing, tie_bands = spread(0.0, 0.12), spread(0.55, 0.95), spread(0.1, 0.4)
    positions = rng.normal(0.0, 0.25, num_raters).tolist()
    never_reading = set(rng.permutation(num_raters)[: round(lazy_share * num_raters)].tolist())
    return [
        Rater(
            name=f"rater-{index + 1}",
            temperature=noise * temperatures[index],
            length_bias=length_bias * lengths[index],
            flattery_bias=flattery_bias * flatteries[index],
            position_bias=positions[index],
            lazy=1.0 if index in never_reading else careless[index],
            fact_noticing=noticing[index],
            tie_band=tie_bands[index],
        )
        for index in range(num_raters)
    ]


def collect(
    world: World,
    questions: Sequence[Question],
    answers_a: Sequence[Answer],
    answers_b: Sequence[Answer],
    raters: Sequence[Rater],
    *,
    votes_per_pair: int = 3,
    seed: int = 0,
) -> list[Comparison]:
    """Each pair judged by different raters, with their votes and the majority's preference (1, 0, or 0.5 for a tie).

    For each vote a coin decides which answer stands on the left; votes name the answer, not the side. The same
    text twice is a tie. Raters and coins of a pair depend on `seed` and on the pair's text alone.
    """
    if not len(questions) == len(answers_a) == len(answers_b):
        raise DataError(
            f"There are {len(questions)} questions but {len(answers_a)} answers a and {len(answers_b)} answers b. "
            "Expected one of each for every pair."
        )
    if not 0 < votes_per_pair <= len(raters):
        raise DataError(
            f"votes_per_pair={votes_per_pair} does not fit a panel of {len(raters)}. Each rater judges a pair at most "
            "once: choose 1 to the number of raters."
        )
    comparisons = []
    for question, a, b in zip(questions, answers_a, answers_b, strict=True):
        rng = generator(seed, "votes", question.text, a.text, str(a.finished), b.text, str(b.finished))
        features = world.features(question, a.text, a.finished), world.features(question, b.text, b.finished)
        chosen = [raters[index] for index in rng.permutation(len(raters))[:votes_per_pair]]
        same = a.text == b.text
        votes = tuple(Vote(rater.name, "tie" if same else _vote(rater, *features, rng)) for rater in chosen)
        comparisons.append(Comparison(question.prompt, a.text, b.text, majority(votes).preference, votes=votes))
    return comparisons


def _vote(rater: Rater, a: Features, b: Features, rng: np.random.Generator) -> Choice:
    """The rater's choice between a and b, shown in random order."""
    if rng.random() < 0.5:
        return rater.judge(a, b, rng)
    mirrored: dict[Choice, Choice] = {"a": "b", "b": "a", "tie": "tie"}
    return mirrored[rater.judge(b, a, rng)]
