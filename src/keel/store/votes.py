"""What was said, read back: the judgments that count, and how far a project is."""

from collections.abc import Iterator, Mapping, Sequence
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Row, Select, func, select, text

from keel.store import tables
from keel.store.candidates import purpose_column
from keel.store.judging import Judging, judgment_of
from keel.store.leasing import LIVE
from keel.store.people import MEMBER, member_of
from keel.store.rows import (
    CHOICES,
    PURPOSES,
    Judgment,
    Membership,
    Progress,
    Project,
    Purpose,
    RaterProgress,
    VoteTable,
)

if TYPE_CHECKING:
    from keel.store.store import Transaction

JUDGMENTS, LEASES, SLOTS = tables.judgments, tables.leases, tables.slots
MEMBERS, PROJECTS = tables.memberships, tables.projects
BATCH = 5_000
LEAST_OPEN = 0.2
"""Share of a rater's tasks that is neither golden nor a repeat, at the least."""


class Work(Judging):
    """Leases, judgments, and what they come to."""

    def __init__(self, tx: "Transaction") -> None:
        super().__init__(tx)

    def own(self, project_id: int, user_id: int, limit: int = 50) -> list[Judgment]:
        """The rater's newest judgments that count, whatever their purpose."""
        query = (
            select(JUDGMENTS)
            .join(LEASES, (LEASES.c.id == JUDGMENTS.c.lease_id) & (LEASES.c.judgment_id == JUDGMENTS.c.id))
            .where(JUDGMENTS.c.user_id == user_id, JUDGMENTS.c.project_id == project_id)
            .order_by(JUDGMENTS.c.created.desc(), JUDGMENTS.c.id.desc())
        )
        return [judgment_of(row) for row in self._tx.rows(query.limit(limit))]

    def votes(
        self,
        project_id: int,
        purposes: Sequence[Purpose] = ("judge",),
        *,
        guide_version: int | None = None,
        round_id: int | None = None,
        user_id: int | None = None,
        item_ids: Sequence[int] | None = None,
    ) -> list[Judgment]:
        """The judgments that count, skips included, by item and time. Those on removed items are left out."""
        query = _current(project_id, purposes)
        for column, value in (
            (JUDGMENTS.c.guide_version, guide_version),
            (JUDGMENTS.c.round_id, round_id),
            (JUDGMENTS.c.user_id, user_id),
        ):
            if value is not None:
                query = query.where(column == value)
        if item_ids is not None:
            query = query.where(JUDGMENTS.c.item_id.in_(item_ids))
        return [judgment_of(row) for row in self._tx.rows(query.order_by(JUDGMENTS.c.item_id, JUDGMENTS.c.id))]

    def votes_table(self, project_id: int, purposes: Sequence[Purpose] = ("judge",)) -> VoteTable:
        """The same as columns, for statistics over many."""
        columns = [JUDGMENTS.c[name] for name in ("item_id", "user_id", "choice", "seconds", "created", "swapped")]
        query = _current(project_id, purposes).with_only_columns(*columns)
        rows = self._tx.rows(query.order_by(JUDGMENTS.c.item_id, JUDGMENTS.c.user_id))
        codes = {choice: code for code, choice in enumerate(CHOICES)}
        items, users, choices, seconds, created, swapped = zip(*rows, strict=True) if rows else ((),) * 6
        return VoteTable(
            item_ids=np.array(items, dtype=np.int64),
            user_ids=np.array(users, dtype=np.int64),
            choices=np.array([codes[choice] for choice in choices], dtype=np.int64),
            seconds=np.array([np.nan if value is None else value for value in seconds], dtype=np.float64),
            created=np.array(created, dtype=np.float64),
            swapped=np.array(swapped, dtype=np.bool_),
        )

    def history(self, project_id: int) -> Iterator[Judgment]:
        """Every row ever appended, withdrawn ones and changes of mind included, oldest first."""
        last = 0
        query = select(JUDGMENTS).where(JUDGMENTS.c.project_id == project_id).order_by(JUDGMENTS.c.id).limit(BATCH)
        while rows := self._tx.rows(query.where(JUDGMENTS.c.id > last)):
            last = rows[-1].id
            yield from map(judgment_of, rows)

    def progress(self, project_id: int) -> Progress:
        project = self._tx.projects.get(project_id)
        row = self._tx.rows(select(PROJECTS.c.pairs, PROJECTS.c.votes).where(PROJECTS.c.id == project_id))[0]
        golden = self._tx.items.counts(project_id, "golden")
        flagged = select(func.count()).select_from(SLOTS).where(SLOTS.c.project_id == project_id, text("flags > 0"))
        return Progress(
            items=self._tx.items.counts(project_id),
            golden=sum(golden.values()) - golden["removed"],
            votes=row.votes,
            votes_wanted=row.pairs * project.settings.overlap,
            flagged=self._tx.rows(flagged.where(SLOTS.c.removed.is_(None)))[0][0],
            raters=self._done(project_id),
        )

    def rater_progress(self, project_id: int, user_id: int, since: float) -> RaterProgress:
        """`since` begins the rater's day, in UTC seconds."""
        project = self._tx.projects.get(project_id)
        row = self._tx.first(MEMBER, {"project": project_id, "user": user_id})
        member = None if row is None else member_of(row)
        done = {} if row is None else self._less_held(project_id, {user_id: _given(row)}, user_id)[user_id]
        counted = (JUDGMENTS.c.user_id == user_id, JUDGMENTS.c.project_id == project_id, JUDGMENTS.c.created >= since)
        counts = LEASES.c.judgment_id == JUDGMENTS.c.id
        today = select(func.count()).select_from(JUDGMENTS).join(LEASES, LEASES.c.id == JUDGMENTS.c.lease_id)
        today = today.where(*counted, counts)
        left = 0
        if project.state == "open" and member is not None and member.active:
            left = self._left(project, member, done)
        elif project.state == "calibrating":
            current = self._tx.rounds.current(project_id)
            left = 0 if current is None else len(current.item_ids) - self._tx.rounds.num_judged(current.id, user_id)
        return RaterProgress(done=sum(done.values()), left=left, today=self._tx.rows(today)[0][0])

    def _left(self, project: Project, member: Membership, done: Mapping[Purpose, int]) -> int:
        """How many tasks wait for the rater at most.

        Whatever the rater does lowers it by one, a vote, a skip, a golden item or a repeat alike: a number that stood
        still on some of them would tell which they are. It is therefore counted from what the others did, with as many
        hidden items added as the settings promise.
        """
        row = self._tx.rows(select(PROJECTS.c.pairs, PROJECTS.c.votes).where(PROJECTS.c.id == project.id))[0]
        wanted, judged = row.pairs * project.settings.overlap, done.get("judge", 0)
        if row.votes >= wanted or judged >= row.pairs:
            return 0
        skips = (
            select(func.count())
            .select_from(LEASES.join(JUDGMENTS, JUDGMENTS.c.id == LEASES.c.judgment_id))
            .where(LEASES.c.user_id == member.user_id, LEASES.c.project_id == project.id, LEASES.c.purpose == "judge")
            .where(LEASES.c.state == "done", JUDGMENTS.c.choice == "skip")
        )
        by_others = row.votes - (judged - self._tx.rows(skips)[0][0])
        tasks = min(row.pairs, wanted - by_others)
        golden = sum(self._tx.items.counts(project.id, "golden").values())
        hidden = golden and not member.insider
        share = project.settings.repeat_share + (project.settings.golden_share if hidden else 0.0)
        tasks = floor(tasks / max(1 - share, LEAST_OPEN))
        return max(1, tasks - judged - done.get("golden", 0) - done.get("repeat", 0))

    def _done(self, project_id: int) -> dict[int, dict[Purpose, int]]:
        """Items judged by each member, by purpose."""
        rows = self._tx.rows(select(MEMBERS).where(MEMBERS.c.project_id == project_id))
        return self._less_held(project_id, {row.user_id: _given(row) for row in rows})

    def _less_held(
        self, project_id: int, given: dict[int, dict[Purpose, int]], user_id: int | None = None
    ) -> dict[int, dict[Purpose, int]]:
        """What was given, less what is still held: what was judged."""
        held = (
            select(LEASES.c.user_id, LEASES.c.purpose, func.count())
            .where(LEASES.c.project_id == project_id, LIVE)
            .group_by(LEASES.c.user_id, LEASES.c.purpose)
        )
        for holder, purpose, number in self._tx.rows(
            held if user_id is None else held.where(LEASES.c.user_id == user_id)
        ):
            given[holder][purpose] -= number
        return given


def _given(row: Row) -> dict[Purpose, int]:
    return {purpose: row._mapping[purpose_column(purpose)] for purpose in PURPOSES}


def _current(project_id: int, purposes: Sequence[Purpose]) -> Select[Any]:
    return (
        select(JUDGMENTS)
        .join(LEASES, LEASES.c.judgment_id == JUDGMENTS.c.id)
        .join(SLOTS, SLOTS.c.item_id == LEASES.c.item_id)
        .where(LEASES.c.project_id == project_id, LEASES.c.purpose.in_(purposes), SLOTS.c.removed.is_(None))
    )
