"""A card for every rater: what the votes, golden items, repeats and times say, and one sentence of advice.

A card names at most one thing, the gravest: somebody who does not read at all is not also told to mind the left side.
Chances of error by simulation are in docs/raters.md.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan
from statistics import median
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from keel.annotate.agreement import kappa_with_others, votes_of
from keel.annotate.ballots import BLIND, Ballot, Table, table_of
from keel.annotate.consensus import CODES
from keel.data.records import Choice
from keel.monitor.verdict import Verdict
from keel.stats.agreement import MISSING
from keel.stats.drift import Change, Slope, Steadiness, steadiness
from keel.stats.intervals import Estimate, wilson
from keel.stats.raters import PositionBias, SelfAgreement, position_bias, self_agreement

Habit = Literal[
    "one_side",
    "one_answer",
    "contrary",
    "random",
    "hasty",
    "side_bias",
    "drifted",
    "tired",
    "inconsistent",
    "apart",
    "fine",
    "unknown",
]
"""What a card names, the gravest first; at the end nothing at all, and too little to say."""
NOT_USABLE: tuple[Habit, ...] = ("one_side", "one_answer", "contrary", "random")
"""Habits whose votes hold nothing to learn from; the last two until they are explained."""

Fall = TypeVar("Fall", Change, Slope)

MIN_VOTES = 30
WORDS_PER_S = 15.0
"""Nobody reads faster, not even by skimming: people read 3 to 6 words a second."""
LEAST_S = 0.7
"""Nor decides faster, however short the answers are."""
ALPHA = 0.01
"""Chance that a rater with nothing wrong is called drifted; the same for tired, and for leaning to a side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterCard:
    """One rater's work in a project."""

    rater: str
    num_votes: int
    """Judged blind (in calibration and after), skips left out."""
    kappa: Estimate
    """With the others, quadratic weights."""
    num_gold: int
    gold_accuracy: Estimate
    """Share of golden items answered as the seniors did, with Wilson's interval."""
    seconds_median: float
    """Per judgment; nan where nobody measured."""
    position: PositionBias
    """How often the answer shown left won; .5 is no bias."""
    repeats: SelfAgreement
    """The rater's answers to hidden repeats, sides swapped."""
    drift: Verdict
    """rater_drift: whether answers got worse for good at some point."""
    fatigue: Verdict
    """rater_fatigue: whether answers get worse along a sitting."""
    tie_share: float
    """Of the votes, both bad included."""
    skip_share: float
    """Of all that was shown."""
    too_fast: Estimate
    """Share of judgments made faster than anybody can read the pair; nan where lengths or times are unknown."""
    habit: Habit
    advice: str
    """One sentence."""

    @property
    def usable(self) -> bool:
        return self.habit not in NOT_USABLE

    def to_dict(self) -> dict[str, Any]:
        return {
            "rater": self.rater,
            "num_votes": self.num_votes,
            "kappa": self.kappa.to_dict(),
            "num_gold": self.num_gold,
            "gold_accuracy": self.gold_accuracy.to_dict(),
            "seconds_median": self.seconds_median if isfinite(self.seconds_median) else None,
            "left_share": self.position.share.to_dict(),
            "num_repeats": self.repeats.num_repeats,
            "self_consistency": self.repeats.agreement.to_dict(),
            "drift": {"level": self.drift.level, "message": self.drift.message},
            "fatigue": {"level": self.fatigue.level, "message": self.fatigue.message},
            "tie_share": self.tie_share,
            "skip_share": self.skip_share,
            "too_fast": self.too_fast.to_dict(),
            "habit": self.habit,
            "advice": self.advice,
        }


def rater_cards(
    ballots: Sequence[Ballot], gold: Mapping[int, Choice] | None = None, words: Mapping[int, int] | None = None
) -> list[RaterCard]:
    """A card for every rater, those who need attention first.

    `ballots` are of all purposes; `gold` has the answer of each golden item, `words` the length of each item (prompt
    and both answers).
    """
    table = table_of(ballots)
    by_rater: dict[str, list[Ballot]] = {}
    for ballot in sorted(ballots, key=lambda ballot: ballot.created):
        if ballot.purpose != "adjudicate":
            by_rater.setdefault(ballot.rater, []).append(ballot)
    # Whoever does not read says nothing about the others: find these first, then measure everybody without them.
    trusted, cards = set(by_rater), []
    for steady in (False, True):
        room = _Room(table, trusted, gold or {}, words or {}, steady)
        cards = [_card(rater, mine, room) for rater, mine in by_rater.items()]
        trusted = {card.rater for card in cards if card.usable and card.habit != "hasty"}
        if len(trusted) < 2:
            trusted = set(by_rater)
    rank = {habit: at for at, habit in enumerate(get_args(Habit))}
    return sorted(cards, key=lambda card: (rank[card.habit], card.rater))


def rater_weights(cards: Iterable[RaterCard], weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """How much each rater's vote counts in a weighted consensus: 1 is usual, 0 for votes that hold nothing.

    Kappa with the others over the median of all, drawn towards 1 by 50 imagined votes, at most 2; times the weight that
    the lead gave the rater (`weights`), such as 2 for an expert.
    """
    known = list(cards)
    kappas = [card.kappa.value for card in known if card.usable and isfinite(card.kappa.value)]
    usual = median(kappas) if kappas else nan
    found = {}
    for card in known:
        relative = card.kappa.value / usual if isfinite(card.kappa.value) and usual > 0 else 1.0
        relative = (50 + card.num_votes * min(2.0, max(0.0, relative))) / (50 + card.num_votes)
        found[card.rater] = (relative if card.usable else 0.0) * (weights or {}).get(card.rater, 1.0)
    return found


def too_fast(seconds: float, words: int) -> bool:
    """Whether nobody can have read `words` words in this time."""
    return seconds < max(LEAST_S, words / WORDS_PER_S)


_UNKNOWN = Estimate(nan, nan, nan)


class _Room:
    """What the cards of all raters are measured against."""

    def __init__(
        self,
        table: Table,
        trusted: Collection[str],
        gold: Mapping[int, Choice],
        words: Mapping[int, int],
        steady: bool,
    ) -> None:
        self.gold, self.words, self.steady = gold, words, steady
        kappas = kappa_with_others(table, trusted) if len(table.raters) > 1 else []
        self.kappas = dict(zip(table.raters, kappas, strict=False))
        told = [kappa.value for rater, kappa in self.kappas.items() if rater in trusted and isfinite(kappa.value)]
        self.usual_kappa = median(told) if told else nan
        self.agreed = _agreed(table, trusted) if steady else {}


def _card(rater: str, mine: Sequence[Ballot], room: _Room) -> RaterCard:
    gold, words = room.gold, room.words
    votes = [ballot for ballot in mine if ballot.choice != "skip"]
    blind = [ballot for ballot in votes if ballot.purpose in BLIND]
    first_looks = [ballot for ballot in votes if ballot.purpose != "repeat"]
    sides = [won for ballot in first_looks if (won := ballot.left_won) is not None]
    times = [ballot.seconds for ballot in mine if ballot.seconds is not None]
    paces = [too_fast(b.seconds, words[b.item_id]) for b in votes if b.seconds is not None and b.item_id in words]
    correct = [known for ballot in votes if (known := _gold_correct(ballot, gold)) is not None]
    known = votes if room.steady else []
    steady = steadiness(
        [b.created for b in known],
        [nan if (right := _gold_correct(b, gold)) is None else right for b in known],
        [room.agreed.get((b.item_id, rater), nan) if b.purpose in BLIND else nan for b in known],
        [nan if b.seconds is None else b.seconds for b in known],
        alpha=ALPHA,
    )
    card = RaterCard(
        rater=rater,
        num_votes=len(blind),
        kappa=room.kappas.get(rater, _UNKNOWN),
        num_gold=len(correct),
        gold_accuracy=_share(correct),
        seconds_median=median(times) if times else nan,
        position=position_bias(sides),
        repeats=_repeats(votes),
        drift=_drift(steady),
        fatigue=_fatigue(steady),
        tie_share=sum(ballot.code == CODES["tie"] for ballot in votes) / len(votes) if votes else nan,
        skip_share=1 - len(votes) / len(mine),
        too_fast=_share(paces),
        habit="unknown",
        advice="",
    )
    habit, advice = _habit(card, room.usual_kappa, len(votes))
    return replace(card, habit=habit, advice=advice)


def _habit(card: RaterCard, usual_kappa: float, num_votes: int) -> tuple[Habit, str]:
    if num_votes < MIN_VOTES:
        return "unknown", f"Only {num_votes} votes so far: too few to say anything."
    side = card.position.share
    decided = card.position.num_first + card.position.num_second
    name, share = ("left", side.value) if side.value >= 0.5 else ("right", 1 - side.value)
    if decided >= MIN_VOTES and (side.low > 0.8 or side.high < 0.2):
        told = f"Chose the {name} answer in {share:.0%} of {decided} votes"
        return "one_side", f"{told}: this is clicking, not reading; stop the work and leave these votes out."
    if wilson(card.tie_share * num_votes, num_votes)[0] > 0.8:
        told = f"Calls {card.tie_share:.0%} of {num_votes} pairs a tie"
        return "one_answer", f"{told}: ask why, and leave these votes out until it is clear."
    if card.kappa.high < 0 or (card.num_gold >= 10 and card.gold_accuracy.high < 0.4 and card.kappa.high < 0.2):
        told = f"Contradicts the others more often than chance would (kappa {card.kappa.value:.2f})"
        return (
            "contrary",
            f"{told}: check whether the question was read the wrong way round, and leave these votes out.",
        )
    if card.kappa.high < 0.25 and card.kappa.low <= 0.1 and not card.gold_accuracy.low > 0.6:
        told = f"Answers look unrelated to those of the others (kappa {card.kappa.value:.2f}) "
        return "random", f"{told}over {num_votes} votes: stop the work and leave these votes out."
    if card.too_fast.low > 0.1:
        told = f"Made {card.too_fast.value:.0%} of the judgments faster than the pair can be read"
        return "hasty", f"{told}: ask to slow down, and look at the golden items before using these votes."
    if card.position.p_value < ALPHA and (side.low > 0.5 or side.high < 0.5):
        told = f"Leans to the {name} ({share:.0%} of {decided} votes)"
        return "side_bias", f"{told}: remind of reading both; swapped sides keep most of it out of the data."
    if card.drift.level != "ok":
        return "drifted", f"{card.drift.message.rstrip('.')}: {card.drift.remedy}"
    if card.fatigue.level != "ok":
        return "tired", f"{card.fatigue.message.rstrip('.')}: {card.fatigue.remedy}"
    if card.repeats.num_repeats >= 10 and card.repeats.agreement.high < 0.65:
        told = f"Gave {card.repeats.agreement.value:.0%} of {card.repeats.num_repeats} repeated pairs the same answer"
        return "inconsistent", f"{told}: work through some of them together and see what decides."
    if isfinite(usual_kappa) and card.kappa.high < usual_kappa - 0.1:
        told = f"Agrees less with the others (kappa {card.kappa.value:.2f}) than usual here ({usual_kappa:.2f})"
        return "apart", f"{told}: go through the disputed items together."
    return "fine", "Nothing stands out: keep going."


def _drift(steady: Steadiness) -> Verdict:
    if not steady.drifted:
        return Verdict("ok", "rater_drift", "No lasting change in answers.")
    what, change = _clearest(steady.gold, steady.agreement)
    return Verdict(
        "watch",
        "rater_drift",
        f"{what} fell from {change.before:.0%} to {change.after:.0%} after vote {change.index}.",
        {"before": change.before, "after": change.after, "index": change.index, "p_value": change.p_value},
        "talk about what changed then, and calibrate again.",
    )


def _fatigue(steady: Steadiness) -> Verdict:
    if not steady.tired:
        return Verdict("ok", "rater_fatigue", "No fall along a sitting.")
    what, slope = _clearest(steady.gold_fatigue, steady.agreement_fatigue)
    return Verdict(
        "watch",
        "rater_fatigue",
        f"{what} falls from {slope.start:.0%} to {slope.end:.0%} in the course of a sitting.",
        {"start": slope.start, "end": slope.end, "p_value": slope.p_value},
        "suggest shorter sittings.",
    )


def _clearest(gold: Fall, agreement: Fall) -> tuple[str, Fall]:
    """What fell, in words, and how; of two that fell the one that chance explains less."""
    if gold.fell and not (agreement.fell and agreement.p_value < gold.p_value):
        return "Right answers to golden items", gold
    return "Agreement with the others", agreement


def _repeats(votes: Sequence[Ballot]) -> SelfAgreement:
    first = {ballot.item_id: ballot.code for ballot in votes if ballot.purpose == "judge"}
    again = {ballot.item_id: ballot.code for ballot in votes if ballot.purpose == "repeat"}
    both = sorted(first.keys() & again.keys())
    return self_agreement(np.array([first[i] for i in both], np.int64), np.array([again[i] for i in both], np.int64))


def _gold_correct(ballot: Ballot, gold: Mapping[int, Choice]) -> bool | None:
    """Whether a golden item was answered as the seniors did; None where the ballot is no such answer."""
    if ballot.purpose != "golden" or ballot.item_id not in gold or ballot.choice == "skip":
        return None
    return ballot.code == CODES.get(gold[ballot.item_id], MISSING)


def _share(found: Sequence[bool]) -> Estimate:
    n = len(found)
    return Estimate(sum(found) / n, *wilson(sum(found), n)) if n else _UNKNOWN


def _agreed(table: Table, trusted: Collection[str]) -> dict[tuple[int, str], float]:
    """Share of the trusted others on the item who said the same, of each blind vote that is not alone."""
    counts = votes_of(table, trusted)
    found = {}
    for row, column in np.argwhere(table.votes != MISSING).tolist():
        own = float(table.raters[column] in trusted)
        others = counts[row].sum() - own
        if others > 0:
            same = (counts[row, table.votes[row, column]] - own) / others
            found[table.item_ids[row], table.raters[column]] = float(same)
    return found
