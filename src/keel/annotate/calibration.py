"""Calibration: every rater judges the same items, blind, until they agree on what better means.

    write the guide -> open a round -> wait for everybody -> close it -> passed: raters are unlocked
            ^                                                     |
            +--- change the guide, after talking it over <--------+ failed

A round that failed is followed by one with a new version of the guide and other items: whoever remembers an answer, or
measures the same guide again, learns nothing. A step out of turn is a ConflictError that says which one comes next.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any, Literal

import numpy as np

from keel.annotate.agreement import DisputedItem, disputed_items, kappa_with_others
from keel.annotate.ballots import Ballot, Table, table_of
from keel.core.errors import ConflictError, DataError
from keel.core.seed import derive
from keel.data.records import prompt_text
from keel.stats.agreement import MISSING, agreement_report
from keel.stats.intervals import Estimate
from keel.store.rows import Item, Round
from keel.store.settings import ProjectSettings

Step = Literal["write_guide", "open_round", "wait", "close_round", "change_guide", "done"]

LEAST_ITEMS = 20
"""With fewer items nobody is set aside: the interval of one rater's kappa cannot be trusted."""
TIE = 1
OFTEN = 0.15
"""A rater whose share of ties is off that of the others by more is told so."""


@dataclass(frozen=True, slots=True)
class NewRound:
    """What a round that may be opened now consists of."""

    number: int
    guide_version: int
    item_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RaterResult:
    rater: str
    num_items: int
    """Judged, skips left out."""
    kappa: Estimate
    """With the others who passed, quadratic weights."""
    passed: bool
    advice: str
    """Empty where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What a calibration round showed."""

    passed: bool
    alpha: Estimate
    """Krippendorff's ordinal alpha of the raters who passed; of all where the round failed."""
    alpha_of_all: Estimate
    fleiss: Estimate
    """Fleiss' kappa of all raters."""
    agreement: Estimate
    """Share of equal pairs of votes, of all raters."""
    raters: tuple[RaterResult, ...]
    left_out: tuple[str, ...]
    """Raters whom the lead did not wait for; they stay locked."""
    disagreements: tuple[DisputedItem, ...]
    """Every item on which two raters differ, the most disputed first."""
    message: str

    @property
    def unlocked(self) -> tuple[str, ...]:
        """Raters who may judge now."""
        return tuple(rater.rater for rater in self.raters if self.passed and rater.passed)

    @property
    def need_help(self) -> tuple[str, ...]:
        return tuple(rater.rater for rater in self.raters if not rater.passed)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, as `Round.figures`."""
        return {
            "passed": self.passed,
            "alpha": self.alpha.to_dict(),
            "alpha_of_all": self.alpha_of_all.to_dict(),
            "fleiss_kappa": self.fleiss.to_dict(),
            "pairwise_agreement": self.agreement.to_dict(),
            "raters": [
                {
                    "rater": rater.rater,
                    "num_items": rater.num_items,
                    "kappa": rater.kappa.to_dict(),
                    "passed": rater.passed,
                    "advice": rater.advice,
                }
                for rater in self.raters
            ],
            "left_out": list(self.left_out),
            "unlocked": list(self.unlocked),
            "disagreements": [
                {
                    "item_id": item.item_id,
                    "contribution": item.contribution,
                    "said": [{"rater": v.rater, "choice": v.choice, "rationale": v.rationale} for v in item.voices],
                }
                for item in self.disagreements
            ],
            "message": self.message,
        }


def new_round(
    rounds: Sequence[Round],
    guide_version: int,
    items: Iterable[Item],
    rater_skills: Mapping[str, Collection[str]],
    settings: ProjectSettings,
    seed: int,
) -> NewRound:
    """The next round: its items are spread over all lengths, were in no round before and have no votes.

    `rater_skills` are the active raters. ConflictError where no round may be opened now, DataError where there are not
    enough items.
    """
    _may_open(rounds, guide_version, rater_skills)
    number = max((round.number for round in rounds), default=0) + 1
    used = {item_id for round in rounds for item_id in round.item_ids}
    shared = set.intersection(*(set(skills) for skills in rater_skills.values()))
    fresh = [
        item
        for item in items
        if item.id not in used
        and item.removed is None
        and item.kind != "golden"
        and not item.votes
        and shared.issuperset(item.skills)
    ]
    made_for_it = [item for item in fresh if item.kind == "calibration"]
    pool = made_for_it if len(made_for_it) >= settings.calibration_items else fresh
    lacking = settings.calibration_items - len(pool)
    if lacking > 0:
        raise DataError(
            f"Calibration round {number} needs {settings.calibration_items} items that every rater may judge, that "
            f"were in no round before and have no votes; there are {len(pool)}. Import {lacking} more, or set "
            f"calibration_items to {len(pool)} or less."
        )
    return NewRound(number, guide_version, _spread(pool, settings.calibration_items, number, seed))


def left_to_do(round: Round, ballots: Iterable[Ballot], raters: Iterable[str]) -> dict[str, int]:
    """Items of the round that each rater has not judged yet; a skip counts as judged."""
    done: dict[str, set[int]] = {rater: set() for rater in raters}
    for ballot in _of(round, ballots):
        done.setdefault(ballot.rater, set()).add(ballot.item_id)
    return {rater: len(round.item_ids) - len(done[rater]) for rater in raters}


def close_round(
    round: Round,
    ballots: Sequence[Ballot],
    raters: Sequence[str],
    settings: ProjectSettings,
    *,
    left_out: Collection[str] = (),
) -> RoundResult:
    """What the round showed, once all of `raters` are done, those `left_out` by the lead excepted.

    Raters whose kappa with the others is clearly below `min_kappa` (its whole interval is) are set aside one after the
    other, the worst first; the rest pass if they are more than half and their alpha reaches `min_kappa`.
    """
    if round.state != "open":
        raise ConflictError(f"Calibration round {round.number} is closed already ({round.state}). Open the next one.")
    taking_part = [rater for rater in raters if rater not in left_out]
    waiting = {rater: n for rater, n in left_to_do(round, ballots, taking_part).items() if n}
    if waiting:
        told = ", ".join(f"{rater} has {n} of {len(round.item_ids)} left" for rater, n in waiting.items())
        raise ConflictError(
            f"Calibration round {round.number} is not finished: {told}. Wait for them, or close it without them by "
            "name; they then stay locked until they are calibrated."
        )
    table = table_of([b for b in _of(round, ballots) if b.rater in taking_part], ("calibration",))
    if len(table.raters) < 2:
        raise ConflictError(
            f"Calibration round {round.number} has votes of {len(table.raters)} rater; agreement needs two or more."
        )
    report = agreement_report(table.votes, table.raters, "ordinal")
    kept = _set_aside(table, settings.min_kappa)
    alpha = report.alpha
    if kept != table.raters and len(kept) > 1:
        columns = [table.raters.index(rater) for rater in kept]
        alpha = agreement_report(table.votes[:, columns], kept, "ordinal").alpha
    passed = 2 * len(kept) > len(table.raters) and len(kept) > 1 and alpha.value >= settings.min_kappa
    if not passed:
        alpha = report.alpha
    results = tuple(_result(table, rater, kept) for rater in table.raters)
    helped = [result.rater for result in results if not result.passed]
    message = _message(round, alpha, settings.min_kappa, passed, helped)
    disagreements = tuple(disputed_items([b for b in _of(round, ballots) if b.rater in taking_part]))
    return RoundResult(
        passed,
        alpha,
        report.alpha,
        report.fleiss,
        report.agreement,
        results,
        tuple(sorted(left_out)),
        disagreements,
        message,
    )


def measure_newcomer(
    round: Round, ballots: Sequence[Ballot], rater: str, unlocked: Collection[str], settings: ProjectSettings
) -> RaterResult:
    """Somebody who joined later, against those who are unlocked, on the items of the round that these passed."""
    if round.state != "passed":
        raise ConflictError(f"Round {round.number} was not passed ({round.state}). Use the items of one that was.")
    if left := left_to_do(round, ballots, [rater])[rater]:
        raise ConflictError(f"{rater} has {left} of {len(round.item_ids)} items of round {round.number} left.")
    told = {rater, *unlocked}
    table = table_of([ballot for ballot in _of(round, ballots) if ballot.rater in told], ("calibration",))
    result = _result(table, rater, tuple(unlocked))
    reached = isfinite(result.kappa.value) and result.kappa.value >= settings.min_kappa
    advice = "" if reached else result.advice or "Go through the disputed items with a senior, then take other items."
    return RaterResult(rater, result.num_items, result.kappa, reached, advice)


def next_step(
    rounds: Sequence[Round], guide_version: int, left: Mapping[str, int], settings: ProjectSettings
) -> tuple[Step, str]:
    """What the lead does next, and why; `left` is `left_to_do` of the open round."""
    if guide_version == 0:
        return "write_guide", "Write the guide: what makes an answer better, when to call a tie, when to skip."
    if not rounds:
        return "open_round", f"Open the first round: the same {settings.calibration_items} items to every rater, blind."
    last = max(rounds, key=lambda round: round.number)
    if last.state == "open":
        waiting = {rater: n for rater, n in left.items() if n}
        if waiting:
            told = ", ".join(f"{rater} {n}" for rater, n in sorted(waiting.items(), key=lambda pair: -pair[1]))
            return "wait", f"Round {last.number} is under way. Items left: {told}."
        return "close_round", f"Everybody is done with round {last.number}. Close it to see how far they agree."
    if last.state == "passed":
        return "done", f"Round {last.number} is passed. The project can collect votes."
    if guide_version <= last.guide_version:
        return (
            "change_guide",
            f"Round {last.number} failed with version {last.guide_version} of the guide. Talk over the disputed items, "
            "write down in the guide what you settle, then open the next round.",
        )
    return "open_round", f"The guide is at version {guide_version}. Open round {last.number + 1} with other items."


def _may_open(rounds: Sequence[Round], guide_version: int, raters: Collection[str]) -> None:
    if guide_version == 0:
        raise ConflictError("There is no guide yet. Write its first version, then open the calibration round.")
    for round in rounds:
        if round.state == "open":
            raise ConflictError(f"Calibration round {round.number} is still open. Close it before opening another.")
    last = max(rounds, key=lambda round: round.number, default=None)
    if last is not None and guide_version <= last.guide_version:
        why = (
            "Talk over its disputed items and write down in the guide what you settle; the next round measures that."
            if last.state == "failed"
            else "The project can collect votes. A new round makes sense after a change of the guide."
        )
        raise ConflictError(
            f"Calibration round {last.number} {last.state} with version {last.guide_version} of the guide, which has "
            f"not changed since. {why}"
        )
    if len(raters) < 2:
        raise ConflictError(
            f"Calibration compares raters, and this project has {len(raters)} active. Invite others first."
        )


def _spread(pool: Sequence[Item], count: int, number: int, seed: int) -> tuple[int, ...]:
    """One item at random of each of `count` equal parts of the pool, sorted by length."""
    by_length = sorted(pool, key=lambda item: (len(prompt_text(item.prompt)) + len(item.a) + len(item.b), item.id))
    edges = [len(by_length) * k // count for k in range(count + 1)]
    return tuple(
        min((item.id for item in by_length[low:high]), key=lambda item_id: derive(seed, "round", number, item_id))
        for low, high in pairwise(edges)
    )


def _of(round: Round, ballots: Iterable[Ballot]) -> list[Ballot]:
    inside = set(round.item_ids)
    return [
        ballot
        for ballot in ballots
        if ballot.purpose == "calibration" and ballot.item_id in inside and ballot.round_id in (None, round.id)
    ]


def _set_aside(table: Table, min_kappa: float) -> tuple[str, ...]:
    """The raters who are left when those clearly below the line are taken out, the worst first."""
    kept = list(table.raters)
    while len(kept) > 2 and len(table.item_ids) >= LEAST_ITEMS:
        columns = [table.raters.index(rater) for rater in kept]
        kappas = kappa_with_others(Table(table.votes[:, columns], table.item_ids, tuple(kept)))
        below = [(k.value, rater) for k, rater in zip(kappas, kept, strict=True) if k.high < min_kappa]
        if not below:
            break
        kept.remove(min(below)[1])
    return tuple(kept)


def _result(table: Table, rater: str, kept: Sequence[str]) -> RaterResult:
    """One rater against the others in `kept`."""
    names = [name for name in table.raters if name in kept or name == rater]
    columns = [table.raters.index(name) for name in names]
    votes = table.votes[:, columns]
    at = names.index(rater)
    kappa = kappa_with_others(Table(votes, table.item_ids, tuple(names)))[at]
    passed = rater in kept
    mine, others = votes[:, at], np.delete(votes, at, axis=1)
    return RaterResult(
        rater, int((mine != MISSING).sum()), kappa, passed, "" if passed else _advice(kappa, mine, others)
    )


def _advice(kappa: Estimate, mine: np.ndarray, others: np.ndarray) -> str:
    """What to talk about with a rater who did not pass."""
    ties = float((mine == TIE).sum() / max(1, (mine != MISSING).sum()))
    usual = float((others == TIE).sum() / max(1, (others != MISSING).sum()))
    if kappa.high < 0:
        return "Answers the other way round than the others: check that left and right were understood."
    if abs(ties - usual) > OFTEN:
        habit = "Calls a tie far more often" if ties > usual else "Hardly ever calls a tie"
        return f"{habit} ({ties:.0%} against {usual:.0%} of the others): agree on what a tie is."
    if kappa.low <= 0 <= kappa.high:
        return "Answers look unrelated to those of the others: go through some items together before anything else."
    return "Go through the disputed items together, and see which part of the guide is read differently."


def _message(round: Round, alpha: Estimate, line: float, passed: bool, helped: Sequence[str]) -> str:
    found = f"Round {round.number}: Krippendorff's alpha {alpha}"
    names = " and ".join(helped)
    if passed:
        return f"{found}, at or above {line:.2f}: passed." + (
            f" Still locked and in need of help: {names}." * bool(names)
        )
    if not isfinite(alpha.value):
        return f"{found}: all votes say the same, which shows nothing. Open a round with items that are less alike."
    first = f" Clearly below the others: {names}." if names else ""
    return (
        f"{found}, below {line:.2f}: not passed.{first} Talk over the disputed items, write down in the guide what you "
        "settle, and open the next round."
    )
