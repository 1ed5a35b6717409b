"""Who has what on the screen, and until when."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, insert, or_, select, text, update

from keel.core.errors import AccessError, ConflictError
from keel.store import tables
from keel.store.candidates import gather
from keel.store.rows import PURPOSES, Candidates, Lease, Membership, Pick, Picked, Project, Purpose
from keel.store.slots import count_lease, said_by_others

if TYPE_CHECKING:
    from keel.store.store import Transaction

LEASES, MEMBERS, SLOTS = tables.leases, tables.memberships, tables.slots
MAX_AHEAD = 4
"""Items that a rater may hold besides the one on the screen."""

# built once: SQLAlchemy then finds their compiled form without looking at them
BY_ID = select(LEASES).where(LEASES.c.id == bindparam("lease"))
LIVE = text("leases.state = 'live'")  # spelled out: only so the partial indexes are used
HELD = (
    select(LEASES)
    .where(LEASES.c.user_id == bindparam("user"), LEASES.c.project_id == bindparam("project"), LIVE)
    .order_by(LEASES.c.leased, LEASES.c.id)
)
OVER = select(LEASES).where(LEASES.c.project_id == bindparam("project"), LEASES.c.expires <= bindparam("now"), LIVE)
SAME = select(LEASES).where(
    LEASES.c.user_id == bindparam("user_id"),
    LEASES.c.item_id == bindparam("item_id"),
    LEASES.c.purpose == bindparam("purpose"),
    LEASES.c.round_key == bindparam("round_key"),
)
NEW = insert(LEASES)
AGAIN = (
    update(LEASES)
    .where(LEASES.c.id == bindparam("lease"))
    .values({name: bindparam(f"new_{name}") for name in ("swapped", "guide_version", "leased", "expires", "state")})
)
END = update(LEASES).where(LEASES.c.id == bindparam("lease")).values(state=bindparam("new_state"))
REVEALED = (
    select(LEASES)
    .join(SLOTS, SLOTS.c.item_id == LEASES.c.item_id)
    .where(LEASES.c.user_id == bindparam("user"), LEASES.c.project_id == bindparam("project"), LIVE, SLOTS.c.revealed)
    .where(
        or_(
            and_(LEASES.c.purpose == "judge", said_by_others(0)),
            and_(LEASES.c.purpose == "repeat", said_by_others(1)),
            LEASES.c.purpose.in_(("golden", "calibration")),
        )
    )
)
ONE_MEMBER = (MEMBERS.c.project_id == bindparam("project"), MEMBERS.c.user_id == bindparam("user"))
GIVEN_MORE = {
    purpose: update(MEMBERS).where(*ONE_MEMBER).values({f"n_{purpose}": MEMBERS.c[f"n_{purpose}"] + bindparam("step")})
    for purpose in PURPOSES
}


class Leasing:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx

    def lease(
        self,
        project_id: int,
        user_id: int,
        choose: Callable[[Candidates], Picked | None],
        now: float,
        ahead: int = 0,
    ) -> Lease | None:
        """What the rater judges next: the one held at place `ahead` (0 the oldest), or a new one that `choose` picks.

        Asking again gives the same lease. None where the project is not being judged or nothing waits for this rater.
        `choose` runs inside the transaction: it must only compute. AccessError for somebody who may not judge here.
        """
        self._tx.lock(project_id)
        now = self._tx.at(now)
        project, member = self._tx.projects.get(project_id), self._rater(project_id, user_id)
        self._expire(project, now)
        held = self.held(project_id, user_id)
        if len(held) > min(ahead, MAX_AHEAD):
            return held[max(0, min(ahead, MAX_AHEAD))]
        if project.state not in {"calibrating", "open"}:
            return None
        candidates = gather(self._tx, project, member, held, now)
        pick = choose(candidates)
        if pick is None:
            return None
        _must_be_offered(candidates, pick)
        round_id = candidates.round.id if candidates.round and pick.purpose == "calibration" else None
        return self._give(project, user_id, pick, round_id, now)

    def again(self, project_id: int, user_id: int, item_id: int, swapped: bool, now: float) -> Lease:
        """A repeat of an item without the wait that makes people forget: for models, which have nothing to forget."""
        self._tx.lock(project_id)
        project = self._tx.projects.get(project_id)
        self._rater(project_id, user_id)
        key = {"user_id": user_id, "item_id": item_id, "round_key": 0}
        if (known := self._tx.first(SAME, {**key, "purpose": "repeat"})) is not None:
            if known.state == "done":
                raise ConflictError(f"Item {item_id} has come back to this rater already; it does so once.")
            if known.state == "live":
                return lease_of(known)
        pick = Pick(item_id=item_id, purpose="repeat", swapped=swapped)
        return self._give(project, user_id, pick, None, self._tx.at(now))

    def get(self, lease_id: int) -> Lease:
        return lease_of(self._tx.one(BY_ID, f"There is no lease {lease_id}.", {"lease": lease_id}))

    def held(self, project_id: int, user_id: int) -> list[Lease]:
        """Leases that run, or that nobody has noticed yet to be over, in the order they were given."""
        return [lease_of(row) for row in self._tx.rows(HELD, {"user": user_id, "project": project_id})]

    def live(self, project_id: int, user_id: int, now: float) -> list[Lease]:
        """Leases that run now, in the order they were given."""
        return [lease for lease in self.held(project_id, user_id) if lease.expires > now]

    def release(self, lease_id: int, user_id: int, now: float) -> None:
        """Give an item back unjudged; nothing happens where the lease is over already."""
        self._tx.lock(self._own_lease(lease_id, user_id).project_id)
        lease = self.get(lease_id)
        if lease.state == "live":
            self._end([lease], "released")
            self._tx.run(update(LEASES).where(LEASES.c.id == lease_id).values(expires=self._tx.at(now)))

    def release_all(self, project_id: int, user_id: int) -> None:
        """Give back whatever a rater holds."""
        self._tx.lock(project_id)
        self._end(self.held(project_id, user_id), "released")

    def release_revealed(self, project_id: int, user_id: int) -> None:
        """Take from an insider what became readable since it was given to them."""
        self._tx.lock(project_id)
        self._end(
            [lease_of(row) for row in self._tx.rows(REVEALED, {"user": user_id, "project": project_id})], "released"
        )

    def release_item(self, item_id: int) -> None:
        """Take an item back from whoever holds it."""
        self._release_where(LEASES.c.item_id == item_id)

    def release_round(self, round_id: int) -> None:
        """Take a round's items back from whoever holds them."""
        self._release_where(LEASES.c.round_key == round_id)

    def _release_where(self, condition: ColumnElement[bool]) -> None:
        rows = self._tx.rows(select(LEASES).where(condition, LIVE))
        self._end([lease_of(row) for row in rows], "released")

    def _give(self, project: Project, user_id: int, pick: Picked, round_id: int | None, now: float) -> Lease:
        key = {"user_id": user_id, "item_id": pick.item_id, "purpose": pick.purpose, "round_key": round_id or 0}
        values: dict[str, Any] = {
            "swapped": pick.swapped,
            "guide_version": project.guide_version,
            "leased": now,
            "expires": now + project.settings.lease_seconds,
            "state": "live",
        }
        known = self._tx.first(SAME, key)
        if known is None:
            number, judgment = self._tx.insert(NEW, {**key, **values, "project_id": project.id}), None
        else:  # given out before and not judged: the same lease runs again
            number, judgment = known.id, known.judgment_id
            self._tx.run(AGAIN, {"lease": number, **{f"new_{name}": value for name, value in values.items()}})
        self._count(project.id, pick.item_id, user_id, pick.purpose, 1)
        return Lease(
            id=number,
            project_id=project.id,
            item_id=pick.item_id,
            user_id=user_id,
            purpose=pick.purpose,
            swapped=pick.swapped,
            guide_version=project.guide_version,
            round_id=round_id,
            leased=now,
            expires=values["expires"],
            judgment_id=judgment,
        )

    def _expire(self, project: Project, now: float) -> None:
        over = self._tx.rows(OVER, {"project": project.id, "now": now})
        self._end([lease_of(row) for row in over], "expired")

    def _end(self, leases: Iterable[Lease], state: str) -> None:
        for lease in leases:
            self._tx.run(END, {"lease": lease.id, "new_state": state})
            self._count(lease.project_id, lease.item_id, lease.user_id, lease.purpose, -1)

    def _count(self, project_id: int, item_id: int, user_id: int, purpose: Purpose, step: int) -> None:
        """One lease more or less, for the item and for the rater."""
        if purpose == "judge":
            count_lease(self._tx, item_id, step)
        self._count_given(project_id, user_id, purpose, step)

    def _count_given(self, project_id: int, user_id: int, purpose: Purpose, step: int) -> None:
        self._tx.run(GIVEN_MORE[purpose], {"project": project_id, "user": user_id, "step": step})

    def _rater(self, project_id: int, user_id: int) -> Membership:
        member = self._tx.people.membership(project_id, user_id)
        if member is None or not member.active:
            raise AccessError("You are not in this project. Ask its lead for an invite link.")
        if member.role == "viewer":
            raise AccessError("As a viewer you may look but not judge. Ask the project's lead for the role rater.")
        return member

    def _own_lease(self, lease_id: int, user_id: int) -> Lease:
        lease = self.get(lease_id)
        if lease.user_id != user_id:
            raise AccessError(f"Lease {lease_id} is another rater's. Ask for an item of your own.")
        return lease


def lease_of(row: Row) -> Lease:
    """A row of `leases`."""
    return Lease(
        id=row.id,
        project_id=row.project_id,
        item_id=row.item_id,
        user_id=row.user_id,
        purpose=row.purpose,
        swapped=row.swapped,
        guide_version=row.guide_version,
        round_id=row.round_key or None,
        leased=row.leased,
        expires=row.expires,
        state=row.state,
        judgment_id=row.judgment_id,
    )


def _must_be_offered(candidates: Candidates, pick: Picked) -> None:
    offered = {
        "judge": candidates.open,
        "golden": candidates.golden,
        "repeat": candidates.repeats,
        "adjudicate": candidates.disputes,
        "calibration": candidates.calibration,
    }[pick.purpose]
    if all(pick.item_id != candidate.item_id for candidate in offered):
        raise ValueError(f"choose picked item {pick.item_id} for {pick.purpose!r}, which is not among the candidates")
