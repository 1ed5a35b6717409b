"""What raters said of two responses: words, scores and shares of votes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keel.data.fields import wrong_type
from keel.data.records import Choice, Vote
from keel.data.rows import RecordError, Row

WORDS: dict[str, Choice] = {
    "a": "a",
    "b": "b",
    "model_a": "a",
    "model_b": "b",
    "response_a": "a",
    "response_b": "b",
    "tie": "tie",
    "tie (inconsistent)": "tie",
    "both_bad": "both_bad",
    "tie (bothbad)": "both_bad",
    "skip": "skip",
}
"""Words for a verdict, in any case. "tie (bothbad)" is how Chatbot Arena writes it, "tie (inconsistent)" how MT-Bench
writes a judge that changed its mind when the sides were swapped.
"""

SHARE: dict[Choice, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}
"""How a choice counts towards "a is better"; a skip does not count."""


def preference(row: Row, found: Any, name: str = "preference") -> float:
    """Probability that a is better, from a word or from a fraction in [0, 1].

    Whole numbers are refused: 1 is "the second one" in some sets and "certainly a" in others.
    """
    if isinstance(found, str):
        fraction = _fraction(found)
        if fraction is None:
            return _share_of_word(row, name, found)
        found = fraction
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise wrong_type(row, name, found, "a, b, tie, both_bad, skip, or a probability that a is better")
    if isinstance(found, int):
        raise RecordError(
            row.place,
            f"{name} is a whole number",
            f"{name} is {found}, which may be an index or a probability. Write a, b or tie, or a fraction such as 1.0.",
        )
    if not 0 <= found <= 1:
        raise RecordError(
            row.place, f"{name} out of range", f"{name} is {found}; a probability from 0.0 to 1.0 was expected."
        )
    return float(found)


def votes(row: Row, found: Any) -> tuple[Vote, ...]:
    """Votes from {rater: word}, {rater: {choice or score, ...}} or [{rater, choice, strength}].

    A score is signed: positive means that a is better, its size is the strength. A score of 0 is a tie, or both_bad
    where the rater called neither answer acceptable. A null vote is no vote.
    """
    if isinstance(found, Mapping):
        return tuple(_vote(row, str(rater), vote) for rater, vote in found.items() if vote is not None)
    if isinstance(found, Sequence) and not isinstance(found, str):
        cast = []
        for index, vote in enumerate(found):
            if not isinstance(vote, Mapping) or "rater" not in vote:
                raise wrong_type(row, f"votes[{index}]", vote, "an object with rater and choice")
            cast.append(_vote(row, str(vote["rater"]), vote))
        return tuple(cast)
    raise wrong_type(row, "votes", found, "an object with raters as names, or a list of votes")


def share(cast: Sequence[Vote]) -> float | None:
    """Share of votes for a, ties counting half; None when nobody voted. `annotate.consensus` knows better ways."""
    counted = [SHARE[vote.choice] for vote in cast if vote.choice != "skip"]
    return sum(counted) / len(counted) if counted else None


def _fraction(word: str) -> float | int | None:
    """The number that a CSV cell holds, whole numbers apart from fractions."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return None


def _choice(row: Row, name: str, found: Any) -> Choice:
    choice = WORDS.get(found.strip().lower()) if isinstance(found, str) else None
    if choice is None:
        raise RecordError(
            row.place, "unknown preference", f"{name} is {found!r}; expected one of a, b, tie, both_bad, skip."
        )
    return choice


def _share_of_word(row: Row, name: str, word: str) -> float:
    choice = _choice(row, name, word)
    if choice == "skip":
        raise RecordError(row.place, "skipped by the rater", f"{name} is skip: nothing to learn from.", harmless=True)
    return SHARE[choice]


def _vote(row: Row, rater: str, vote: Any) -> Vote:
    name = f"votes.{rater}"
    if not isinstance(vote, Mapping):
        return Vote(rater, _choice(row, name, vote))
    if vote.get("score") is not None:
        score = _number(row, f"{name}.score", vote["score"])
        neither = vote.get("a_acceptable") is False and vote.get("b_acceptable") is False
        middle: Choice = "both_bad" if neither else "tie"
        return Vote(rater, "a" if score > 0 else "b" if score < 0 else middle, abs(score))
    if vote.get("choice") is None:
        raise wrong_type(row, name, dict(vote), "an object with choice or score")
    strength = vote.get("strength")
    if strength is not None:
        strength = _number(row, f"{name}.strength", strength)
        if strength < 0:
            raise wrong_type(row, f"{name}.strength", strength, "a number of at least 0")
    return Vote(rater, _choice(row, f"{name}.choice", vote["choice"]), strength)


def _number(row: Row, name: str, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise wrong_type(row, name, found, "a number")
    return float(found)
