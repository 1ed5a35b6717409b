"""Votes as the analysis of raters reads them: one row a judgment that counts, raters by pseudonym."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from keel.annotate.consensus import CODES
from keel.core.errors import DataError
from keel.data.records import Choice, Comparison
from keel.stats.agreement import MISSING
from keel.stats.arrays import Ints
from keel.store.rows import Judgment, Membership, Purpose

BLIND: tuple[Purpose, ...] = ("judge", "calibration")
"""Purposes whose votes several raters give on the same item without seeing each other's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ballot:
    """What one rater said of one item, once."""

    rater: str
    item_id: int
    choice: Choice
    purpose: Purpose = "judge"
    swapped: bool | None = None
    """Whether b stood left; None where nobody knows."""
    seconds: float | None = None
    created: float = 0.0
    """UTC seconds."""
    strength: float | None = None
    rationale: str | None = None
    flag: str | None = None
    guide_version: int = 0
    round_id: int | None = None

    @property
    def code(self) -> int:
        """Place of the choice among a, tie, b; -1 for a skip. Both bad is a tie."""
        return CODES.get(self.choice, MISSING)

    @property
    def left_won(self) -> float | None:
        """1 where the answer shown left was chosen, 0 the right one, .5 neither; None for a skip or unknown sides."""
        if self.swapped is None or self.choice == "skip":
            return None
        return 0.5 if self.code == CODES["tie"] else float((self.choice == "b") == self.swapped)


@dataclass(frozen=True, slots=True)
class Table:
    """Votes of several raters on the same items."""

    votes: Ints
    """[items, raters], codes as in `Ballot.code`."""
    item_ids: tuple[int, ...]
    raters: tuple[str, ...]


def ballots_of(judgments: Iterable[Judgment], members: Iterable[Membership]) -> list[Ballot]:
    """Current judgments of one project, oldest first; withdrawn ones are left out."""
    names = {member.user_id: member.pseudonym for member in members}
    found = []
    for row in sorted(judgments, key=lambda row: (row.created, row.id)):
        if row.choice == "withdrawn":
            continue
        if row.user_id not in names:
            raise DataError(
                f"Judgment {row.id} on item {row.item_id} is by user {row.user_id}, who is no member of project "
                f"{row.project_id}. Give the members of that project, those who left included."
            )
        found.append(
            Ballot(
                rater=names[row.user_id],
                item_id=row.item_id,
                choice=row.choice,
                purpose=row.purpose,
                swapped=row.swapped,
                seconds=row.seconds,
                created=row.created,
                strength=row.strength,
                rationale=row.rationale,
                flag=row.flag,
                guide_version=row.guide_version,
                round_id=row.round_id,
            )
        )
    return found


def ballots_in(comparisons: Sequence[Comparison]) -> list[Ballot]:
    """The votes of a file of comparisons, whose places from 0 are the item numbers; sides and times are unknown."""
    return [
        Ballot(rater=vote.rater, item_id=number, choice=vote.choice, strength=vote.strength)
        for number, comparison in enumerate(comparisons)
        for vote in comparison.votes
    ]


def ballots_cast(votes: Ints, raters: Sequence[str]) -> list[Ballot]:
    """The votes of a table [items, raters] of codes for a, tie, b (-1 no vote); rows from 0 are the item numbers."""
    choices: tuple[Choice, ...] = ("a", "tie", "b")
    return [
        Ballot(rater=raters[column], item_id=row, choice=choices[votes[row, column]])
        for row, column in np.argwhere(votes != MISSING).tolist()
    ]


def table_of(ballots: Iterable[Ballot], purposes: Collection[Purpose] = BLIND) -> Table:
    """Votes by item and rater, both in order of number and name; the last of several by a rater on an item counts."""
    cast = {(ballot.item_id, ballot.rater): ballot.code for ballot in ballots if ballot.purpose in purposes}
    item_ids = tuple(sorted({item for item, _ in cast}))
    raters = tuple(sorted({rater for _, rater in cast}))
    row = {item: at for at, item in enumerate(item_ids)}
    column = {rater: at for at, rater in enumerate(raters)}
    votes = np.full((len(item_ids), len(raters)), MISSING, dtype=np.int64)
    for (item, rater), code in cast.items():
        votes[row[item], column[rater]] = code
    return Table(votes, item_ids, raters)
