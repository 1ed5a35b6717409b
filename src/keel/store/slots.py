"""How an item stands: its votes, the leases that run on it, and the state that follows.

Of the purpose `judge`, current votes plus running leases never exceed the project's overlap: `filled` is their sum.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Row, bindparam, func, or_, select, update

from keel.store import tables
from keel.store.rows import ItemState, Said

if TYPE_CHECKING:
    from keel.store.store import Transaction

SLOTS, PROJECTS = tables.slots, tables.projects
COUNTER: Mapping[str, str] = {
    "a": "votes_a",
    "b": "votes_b",
    "tie": "votes_tie",
    "both_bad": "votes_bad",
    "skip": "skips",
}
ANSWERS = ("votes_a", "votes_b", "votes_tie", "votes_bad")
BATCH = 500
"""Rows written by one statement."""

# built once: SQLAlchemy then finds their compiled form without looking at them
SLOT = select(SLOTS).where(SLOTS.c.item_id == bindparam("item"))
WRITTEN = ("kind", "gold", "state", "removed", "settled", "revealed")
WRITTEN += (*ANSWERS, "votes", "skips", "flags", "live", "filled")
WRITE = (
    update(SLOTS)
    .where(SLOTS.c.item_id == bindparam("item"))
    .values({name: bindparam(f"new_{name}") for name in WRITTEN})
)
LEASED = (
    update(SLOTS)
    .where(SLOTS.c.item_id == bindparam("item"))
    .values(live=SLOTS.c.live + bindparam("step"), filled=SLOTS.c.filled + bindparam("step"))
)
MORE_VOTES = (
    update(PROJECTS).where(PROJECTS.c.id == bindparam("project")).values(votes=PROJECTS.c.votes + bindparam("more"))
)


def state_of(slot: Mapping[str, Any], overlap: int) -> ItemState:
    """The state of an item, from its counters; `ItemState` says what each means."""
    if slot["removed"] is not None:
        return "removed"
    if slot["settled"] is not None:
        return "settled"
    if slot["votes"] >= overlap:
        return "complete" if 2 * max(slot[answer] for answer in ANSWERS) > slot["votes"] else "disputed"
    # one rater's skip never takes a pair from all others, even where one vote is enough
    return "parked" if slot["skips"] >= max(overlap, 2) else "open"


def by_others(slot: Row, own: int) -> bool:
    """Whether anything counts on the item besides `own` judgments of one rater."""
    return slot.votes + slot.skips > own or slot.settled is not None


def said_by_others(own: int) -> ColumnElement[bool]:
    """The same in SQL."""
    return or_(SLOTS.c.votes + SLOTS.c.skips > own, SLOTS.c.settled.is_not(None))


def slot_of(tx: "Transaction", item_id: int) -> Row:
    return tx.one(SLOT, f"There is no item {item_id}.", {"item": item_id})


def count_lease(tx: "Transaction", item_id: int, step: int) -> None:
    """One running lease more or less; the state does not depend on it."""
    tx.run(LEASED, {"item": item_id, "step": step})


def count(
    tx: "Transaction",
    slot: Row,
    overlap: int,
    *,
    live: int = 0,
    before: Said | None = None,
    after: Said | None = None,
    flags: int = 0,
) -> None:
    """Write the counters after a judgment went from `before` to `after` (None: no judgment that counts)."""
    new = slot._asdict()
    for said, step in ((before, -1), (after, 1)):
        if said in COUNTER:
            new[COUNTER[said]] += step
    new["live"] += live
    new["flags"] += flags
    write(tx, slot, new, overlap)


def write(tx: "Transaction", slot: Row, new: dict[str, Any], overlap: int) -> None:
    """Store the new values of a slot, with the sums and the state that follow."""
    new["votes"] = sum(new[answer] for answer in ANSWERS)
    new["filled"] = new["votes"] + new["live"]
    new["state"] = state_of(new, overlap)
    said = new["votes"] + new["skips"] > 0 or new["settled"] is not None
    new["revealed"] = slot.revealed or (said and new["state"] != "open") or new["kind"] == "golden"
    tx.run(WRITE, {"item": slot.item_id, **{f"new_{name}": new[name] for name in WRITTEN}})
    if new["kind"] != slot.kind or new["removed"] != slot.removed:
        recount_project(tx, slot.project_id)
    elif slot.kind == "pair" and new["removed"] is None and new["votes"] != slot.votes:
        tx.run(MORE_VOTES, {"project": slot.project_id, "more": new["votes"] - slot.votes})


def recount_project(tx: "Transaction", project_id: int) -> None:
    """Count the project's pairs and their votes anew."""
    pairs = (SLOTS.c.project_id == project_id) & (SLOTS.c.kind == "pair") & (SLOTS.c.removed.is_(None))
    ((num_pairs, votes),) = tx.rows(select(func.count(), func.coalesce(func.sum(SLOTS.c.votes), 0)).where(pairs))
    tx.run(update(PROJECTS).where(PROJECTS.c.id == project_id).values(pairs=num_pairs, votes=votes))


def restate(tx: "Transaction", project_id: int, overlap: int) -> None:
    """Bring the states of all items to a new overlap."""
    changes = defaultdict(list)
    for slot in tx.rows(select(SLOTS).where(SLOTS.c.project_id == project_id)):
        if (state := state_of(slot._asdict(), overlap)) != slot.state:
            changes[state].append(slot.item_id)
    for state, item_ids in changes.items():
        for start in range(0, len(item_ids), BATCH):
            part = item_ids[start : start + BATCH]
            seen = {"revealed": True} if state != "open" else {}
            tx.run(update(SLOTS).where(SLOTS.c.item_id.in_(part)).values(state=state, **seen))
