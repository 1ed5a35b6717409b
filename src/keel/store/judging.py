"""What raters say: appended, never changed, counted once."""

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update

from keel.core.errors import AccessError, ConflictError, DataError, MissingError
from keel.store import tables
from keel.store.leasing import Leasing, lease_of
from keel.store.rows import CHOICES, Draft, Judgment, Lease, Membership, Project, Said
from keel.store.settings import ProjectSettings
from keel.store.slots import by_others, count, slot_of, write
from keel.store.texts import checked, checked_or_none

JUDGMENTS, LEASES = tables.judgments, tables.leases
WITHDRAWN = "withdraw:"
"""Begins the client key of a row that takes a judgment back; the judgment's number follows."""
MAX_KEY = 200
MAX_RATIONALE = 20_000

# built once: SQLAlchemy then finds their compiled form without looking at them
BY_ID = select(JUDGMENTS).where(JUDGMENTS.c.id == bindparam("judgment"))
BY_KEY = select(JUDGMENTS).where(JUDGMENTS.c.user_id == bindparam("user"), JUDGMENTS.c.client_key == bindparam("key"))
NEW = insert(JUDGMENTS)
DONE = (
    update(LEASES).where(LEASES.c.id == bindparam("lease")).values(state="done", judgment_id=bindparam("new_judgment"))
)


class Judging(Leasing):
    def judge(self, lease_id: int, user_id: int, draft: Draft, client_key: str, now: float) -> Judgment:
        """Append what the rater says. Sent again with the same key, it is the same judgment.

        Judging a lease again with another key is a change of mind: the newest row counts. After the time of a lease the
        judgment is still taken unless the item's place has gone to another rater; then ConflictError says so.
        """
        _check_key(client_key)
        lease = self._own_lease(lease_id, user_id)
        waited = self._tx.lock(lease.project_id)
        if (known := self.judgment(user_id, client_key)) is not None:
            if known.lease_id != lease_id:
                raise ConflictError(f"The key {client_key!r} belongs to another judgment. Use a new key for each.")
            return known
        lease = self.get(lease_id) if waited else lease
        project = self._tx.projects.get(lease.project_id)
        member = self._rater(project.id, user_id)
        _check_open(project)
        values = _checked(draft, lease, project.settings)
        slot = slot_of(self._tx, lease.item_id)
        before = self._said(lease)
        _must_be_blind(member, lease, slot, before)
        self._must_have_place(lease, slot, project, before)
        return self._append(lease, slot, project, values, client_key, self._tx.at(now))

    def undo(self, client_key: str, user_id: int, now: float) -> Lease:
        """Take the judgment with that key back and put its item before the rater again; asked twice, nothing more.

        ConflictError where it does not count any more, or where others have filled the place that a skip left.
        """
        known = self.judgment(user_id, client_key)
        if known is None or known.choice == "withdrawn":
            raise MissingError("There is no judgment of yours with this key to take back.")
        self._tx.lock(known.project_id)
        lease = self.get(known.lease_id)
        project = self._tx.projects.get(lease.project_id)
        member = self._rater(project.id, user_id)
        _check_open(project)
        if self.judgment(user_id, f"{WITHDRAWN}{known.id}") is not None and lease.state == "live":
            return lease
        if lease.judgment_id != known.id:
            raise ConflictError("This judgment does not count any more, so there is nothing to take back.")
        slot = slot_of(self._tx, lease.item_id)
        _must_be_blind(member, lease, slot, known)
        self._must_be_undoable(lease, slot, known, project)
        now = self._tx.at(now)
        row = {
            **_copied(lease),
            "choice": "withdrawn",
            "client_key": f"{WITHDRAWN}{known.id}",
            "created": now,
        }
        self._tx.insert(NEW, row)
        expires = now + project.settings.lease_seconds
        self._tx.run(
            update(LEASES).where(LEASES.c.id == lease.id).values(state="live", expires=expires, judgment_id=None)
        )
        self._recast(lease, slot, project, known, None, live=1)
        return self.get(lease.id)

    def settle(self, item_id: int, user_id: int, draft: Draft, client_key: str, now: float) -> Judgment:
        """A senior's or lead's decision on an item, whether it was given to them or not, and whatever it was before."""
        _check_key(client_key)
        slot = slot_of(self._tx, item_id)
        self._tx.lock(slot.project_id)
        if (known := self.judgment(user_id, client_key)) is not None:
            if (known.item_id, known.purpose) != (item_id, "adjudicate"):
                raise ConflictError(f"The key {client_key!r} belongs to another judgment. Use a new key for each.")
            return known
        slot = slot_of(self._tx, item_id)
        project = self._tx.projects.get(slot.project_id)
        if self._rater(project.id, user_id).role not in {"senior", "lead"}:
            raise AccessError("Only seniors and leads settle a dispute.")
        if draft.choice == "skip":
            raise DataError("A skip settles nothing. Choose a, b, tie or both_bad, or leave the dispute open.")
        now = self._tx.at(now)
        where = {"user_id": user_id, "item_id": item_id, "purpose": "adjudicate", "round_key": 0}
        row = self._tx.first(select(LEASES).where(*(LEASES.c[name] == value for name, value in where.items())))
        if row is None:
            values = {"swapped": False, "guide_version": project.guide_version, "leased": now, "expires": now}
            self._tx.insert(insert(LEASES), {**where, **values, "project_id": project.id, "state": "released"})
            row = self._tx.rows(select(LEASES).where(*(LEASES.c[name] == value for name, value in where.items())))[0]
        lease = lease_of(row)
        return self._append(lease, slot, project, _checked(draft, lease, project.settings), client_key, now)

    def judgment(self, user_id: int, client_key: str) -> Judgment | None:
        """What the rater sent with this key."""
        row = self._tx.first(BY_KEY, {"user": user_id, "key": client_key})
        return None if row is None else judgment_of(row)

    def _append(
        self, lease: Lease, slot: Row, project: Project, values: Mapping[str, Any], client_key: str, now: float
    ) -> Judgment:
        before = self._said(lease)
        row: dict[str, Any] = {**_copied(lease), **values, "client_key": client_key, "created": now}
        judgment = Judgment(id=self._tx.insert(NEW, row), **row)
        self._tx.run(DONE, {"lease": lease.id, "new_judgment": judgment.id})
        self._recast(lease, slot, project, before, judgment, live=-1 if lease.state == "live" else 0)
        if lease.state in {"expired", "released"}:
            self._count_given(project.id, lease.user_id, lease.purpose, 1)
        return judgment

    def _recast(
        self, lease: Lease, slot: Row, project: Project, before: Judgment | None, after: Judgment | None, live: int
    ) -> None:
        """The item's counters after one judgment took another's place."""
        flags = (after is not None and after.flag is not None) - (before is not None and before.flag is not None)
        overlap = project.settings.overlap
        if lease.purpose == "judge":
            old, new = _choice(before), _choice(after)
            count(self._tx, slot, overlap, live=live, before=old, after=new, flags=flags)
            return
        if flags:
            count(self._tx, slot, overlap, flags=flags)
        if lease.purpose == "adjudicate":
            self._settle(lease.item_id, project)

    def _settle(self, item_id: int, project: Project) -> None:
        """What seniors decided last, skips and withdrawn decisions aside."""
        newest = self._tx.first(
            select(JUDGMENTS.c.choice)
            .join(LEASES, LEASES.c.judgment_id == JUDGMENTS.c.id)
            .where(LEASES.c.item_id == item_id, LEASES.c.purpose == "adjudicate", JUDGMENTS.c.choice != "skip")
            .order_by(JUDGMENTS.c.id.desc())
            .limit(1)
        )
        slot = slot_of(self._tx, item_id)
        settled = None if newest is None else newest.choice
        if settled != slot.settled:
            write(self._tx, slot, {**slot._asdict(), "settled": settled}, project.settings.overlap)

    def _said(self, lease: Lease) -> Judgment | None:
        if lease.judgment_id is None:
            return None
        row = self._tx.first(BY_ID, {"judgment": lease.judgment_id})
        return None if row is None else judgment_of(row)

    def _must_have_place(self, lease: Lease, slot: Row, project: Project, before: Judgment | None) -> None:
        """ConflictError where counting this judgment would give the item one too many."""
        if lease.purpose == "calibration" and lease.round_id is not None:
            if self._tx.rounds.get(lease.round_id).state != "open" and not self._late_joiner(lease):
                raise ConflictError("This calibration round is closed; its judgments stand as they were. Go on.")
            return
        if lease.purpose == "adjudicate" and lease.state != "live" and slot.settled is not None and before is None:
            raise ConflictError("Another senior has settled this item meanwhile. Your answer was not counted; go on.")
        holds_place = lease.state == "live" or (before is not None and before.choice != "skip")
        if lease.purpose == "judge" and not holds_place and slot.filled >= project.settings.overlap:
            raise ConflictError(
                "The time for this item ran out and another rater has taken the place. Your answer was not counted; "
                "go on with the next one."
            )

    def _late_joiner(self, lease: Lease) -> bool:
        """A rater who joined after the round was passed and judges its items to be unlocked."""
        member = self._tx.people.membership(lease.project_id, lease.user_id)
        passed = self._tx.rounds.newest_passed(lease.project_id)
        locked = member is not None and member.unlocked_round is None
        return locked and passed is not None and passed.id == lease.round_id

    def _must_be_undoable(self, lease: Lease, slot: Row, known: Judgment, project: Project) -> None:
        if lease.purpose == "calibration" and lease.round_id is not None:
            if self._tx.rounds.get(lease.round_id).state != "open" and not self._late_joiner(lease):
                raise ConflictError("This calibration round is closed; its judgments stand as they were.")
        elif lease.purpose == "judge" and known.choice == "skip" and slot.filled >= project.settings.overlap:
            raise ConflictError(
                "You skipped this item and others have judged it since. There is nothing left to judge."
            )


def judgment_of(row: Row) -> Judgment:
    """A row of `judgments`."""
    return Judgment(**row._asdict())


def _choice(judgment: Judgment | None) -> Said | None:
    return None if judgment is None else judgment.choice


def _copied(lease: Lease) -> dict[str, Any]:
    """What a judgment takes over from its lease."""
    return {
        "lease_id": lease.id,
        "project_id": lease.project_id,
        "item_id": lease.item_id,
        "user_id": lease.user_id,
        "purpose": lease.purpose,
        "round_id": lease.round_id,
        "strength": None,
        "flag": None,
        "rationale": None,
        "seconds": None,
        "swapped": lease.swapped,
        "guide_version": lease.guide_version,
    }


def _check_open(project: Project) -> None:
    if project.state == "closed":
        raise ConflictError(f"The project {project.title!r} is closed; its judgments stand as they were.")


def _must_be_blind(member: Membership, lease: Lease, slot: Row, before: Judgment | None) -> None:
    """ConflictError where this person may have read what others said, or the known answer, since they were asked."""
    if not member.insider or not slot.revealed or lease.purpose == "adjudicate":
        return
    own = (lease.purpose == "repeat") or (before is not None and before.choice != "withdrawn")
    if lease.purpose in {"golden", "calibration"} or by_others(slot, int(own)):
        raise ConflictError(
            "What others said of this pair may be read by seniors and leads now, so that nothing more is taken from "
            "you about it; what you said before stands. Go on with the next one."
        )


def _check_key(client_key: str) -> None:
    if not client_key.strip() or client_key.startswith(WITHDRAWN):
        raise DataError("client_key: expected a text that is new for every judgment, such as a random UUID.")
    checked(client_key, "client_key", MAX_KEY)


def _checked(draft: Draft, lease: Lease, settings: ProjectSettings) -> dict[str, Any]:
    """The draft as columns; DataError for what the project does not ask or no column takes."""
    if draft.choice not in CHOICES:
        raise DataError(f"choice={draft.choice!r}: expected one of {', '.join(CHOICES)}.")
    if (draft.choice == "tie" and not settings.ties) or (draft.choice == "both_bad" and not settings.both_bad):
        raise DataError(f"choice={draft.choice!r}: this project does not offer it. Choose one of the answers or skip.")
    if draft.strength is not None and draft.strength not in (1, 2, 3):
        raise DataError(f"strength={draft.strength!r}: expected 1 (slightly), 2 (clearly) or 3 (by far).")
    rationale = checked_or_none(draft.rationale, "rationale", MAX_RATIONALE)
    asked = settings.rationale == "required_on_calibration" and lease.purpose == "calibration"
    if asked and rationale is None and draft.choice != "skip":
        raise DataError("rationale: calibration rounds of this project need a reason. Write a sentence.")
    seconds = draft.seconds
    if seconds is not None:
        if math.isnan(seconds):
            raise DataError("seconds=nan: expected a number of seconds, or nothing.")
        seconds = min(max(float(seconds), 0.0), settings.lease_seconds)
    strength = draft.strength if draft.choice in {"a", "b"} else None
    return {
        "choice": draft.choice,
        "strength": strength,
        "flag": checked_or_none(draft.flag, "flag", MAX_RATIONALE),
        "rationale": rationale,
        "seconds": seconds,
    }
