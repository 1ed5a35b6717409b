"""What is put before raters."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)

from keel.core.errors import DataError
from keel.data.records import Choice
from keel.store import tables
from keel.store.rows import CHOICES, Item, ItemState, Kind, NewItem, Page
from keel.store.slots import recount_project, said_by_others, slot_of, write
from keel.store.texts import (
    canonical,
    checked,
    content_key,
    mapping_of,
    number,
    prompt_json,
    prompt_of,
    skill_key,
    strings_of,
)

if TYPE_CHECKING:
    from keel.store.store import Transaction

ITEMS, SLOTS, LEASES, JUDGMENTS = tables.items, tables.slots, tables.leases, tables.judgments
MEMBERS, USERS = tables.memberships, tables.users
BATCH = 500
"""Rows read or written by one statement; SQLite takes at most 999 values in one."""
FLAGGED: ColumnElement[bool] = literal_column(
    "slots.flags > 0", Boolean
)  # spelled out: only so the partial index is used
OPEN = text("slots.kind = 'pair' AND slots.state = 'open'")  # spelled out: only so the partial index is used
SAID = or_(SLOTS.c.votes > 0, SLOTS.c.skips > 0, SLOTS.c.kind != "pair")
"""Somebody may have said something of it: votes of a calibration round are not counted on the item."""
ITEM: Select[Any] = select(ITEMS, *(column for column in SLOTS.c if column.name not in {"item_id", "project_id"})).join(
    SLOTS, SLOTS.c.item_id == ITEMS.c.id
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What came of an import."""

    added: int
    already_there: int
    item_ids: tuple[int, ...]
    """Of every item given, in order; those already there included."""


class Items:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx

    def add(self, project_id: int, items: Iterable[NewItem], *, now: float) -> Added:
        """Append items; one with the same prompt and answers is there already, whichever answer stands first.

        DataError names the first that cannot be stored (counted from 1); then none is.
        """
        self._tx.lock(project_id)
        self._tx.projects.get(project_id)
        created = self._tx.at(now)
        source, item_ids, added, place = iter(items), [], 0, 0
        while batch := list(islice(source, BATCH)):
            rows = [_texts(item, f"item {place + i}") for i, item in enumerate(batch, start=1)]
            place += len(batch)
            known = self._ids(project_id, [row["key"] for row in rows])
            fresh: dict[str, int] = {}
            for index, row in enumerate(rows):
                if row["key"] not in known:
                    fresh.setdefault(row["key"], index)
            if fresh:
                stamp = {"project_id": project_id, "created": created}
                self._tx.run(insert(ITEMS), [{**rows[index], **stamp} for index in fresh.values()])
                known |= (numbers := self._ids(project_id, list(fresh)))
                self._tx.run(
                    insert(SLOTS),
                    [
                        {"item_id": numbers[key], "project_id": project_id, **_slot(batch[index])}
                        for key, index in fresh.items()
                    ],
                )
            added += len(fresh)
            item_ids += [known[row["key"]] for row in rows]
        if added:
            recount_project(self._tx, project_id)
        return Added(added=added, already_there=len(item_ids) - added, item_ids=tuple(item_ids))

    def get(self, item_id: int) -> Item:
        return _item(self._tx.one(ITEM.where(ITEMS.c.id == item_id), f"There is no item {item_id}."))

    def many(self, item_ids: Sequence[int]) -> list[Item]:
        """In the order asked for; unknown ones are left out."""
        found: dict[int, Item] = {}
        for start in range(0, len(item_ids), BATCH):
            part = item_ids[start : start + BATCH]
            found |= {row.id: _item(row) for row in self._tx.rows(ITEM.where(ITEMS.c.id.in_(part)))}
        return [found[item_id] for item_id in item_ids if item_id in found]

    def find(
        self,
        project_id: int,
        *,
        kind: Kind | None = None,
        text: str | None = None,
        state: ItemState | None = None,
        flagged: bool | None = None,
        page: int = 1,
        size: int = 50,
    ) -> Page:
        """A page of items, oldest first. `text` is looked for in prompt and answers; removed ones only by `state`."""
        where = self._matching(project_id, kind, text, state, flagged)
        source = SLOTS.join(ITEMS, ITEMS.c.id == SLOTS.c.item_id) if text else SLOTS
        ((total,),) = self._tx.rows(select(func.count()).select_from(source).where(*where))
        query = select(SLOTS.c.item_id).select_from(source).where(*where).order_by(SLOTS.c.item_id)
        found = self._tx.rows(query.limit(size).offset((max(page, 1) - 1) * size))
        return Page(items=tuple(self.many([row.item_id for row in found])), total=total, page=page, size=size)

    def each(self, project_id: int, kind: Kind | None = None) -> Iterator[Item]:
        """Every item that is in, oldest first, read in batches."""
        where, last = self._matching(project_id, kind, None, None, None), 0
        query = select(SLOTS.c.item_id).where(*where).order_by(SLOTS.c.item_id).limit(BATCH)
        while rows := self._tx.rows(query.where(SLOTS.c.item_id > last)):
            last = rows[-1].item_id
            yield from self.many([row.item_id for row in rows])

    def set_gold(self, item_id: int, choice: Choice | None, *, now: float) -> Item:
        """Make an item a golden one with this answer, or with None a pair again. What it was leased for is given up."""
        if choice is not None and choice not in CHOICES[:-1]:
            raise DataError(f"gold={choice!r}: expected one of {', '.join(CHOICES[:-1])}, or None.")
        slot, overlap = self._slot(item_id)
        self._tx.work.release_item(item_id)
        slot = slot_of(self._tx, item_id)
        write(self._tx, slot, {**slot._asdict(), "kind": "golden" if choice else "pair", "gold": choice}, overlap)
        return self.get(item_id)

    def set_priority(self, priorities: Mapping[int, float]) -> None:
        """How soon items come, by id; larger is sooner."""
        query = update(SLOTS).where(SLOTS.c.item_id == bindparam("item")).values(priority=bindparam("value"))
        values = [{"item": i, "value": number(value, f"priority of item {i}")} for i, value in priorities.items()]
        for start in range(0, len(values), BATCH):
            self._tx.run(query, values[start : start + BATCH])

    def reveal(self, project_id: int, until: float | None = None) -> None:
        """Whatever was said of any item so far, or up to a moment, may be read from now on, what was taken back again
        included; insiders are not asked about those items any more.
        """
        self._tx.lock(project_id)
        said = select(JUDGMENTS.c.item_id).where(JUDGMENTS.c.project_id == project_id)
        if until is not None:
            said = said.where(JUDGMENTS.c.created <= until)
        where = (SLOTS.c.project_id == project_id, ~SLOTS.c.revealed, SLOTS.c.item_id.in_(said))
        self._tx.run(update(SLOTS).where(*where).values(revealed=True))

    def hidden(self, project_id: int) -> frozenset[int]:
        """Items on which something was said that nobody may read yet."""
        where = (SLOTS.c.project_id == project_id, ~SLOTS.c.revealed, SAID)
        return frozenset(row[0] for row in self._tx.rows(select(SLOTS.c.item_id).where(*where)))

    def remove(self, item_id: int, *, now: float) -> None:
        """Take an item out. Its votes are kept and count nowhere; `restore` brings both back."""
        self._slot(item_id)
        self._tx.work.release_item(item_id)
        slot, overlap = self._slot(item_id)
        if slot.removed is None:
            write(self._tx, slot, {**slot._asdict(), "removed": self._tx.at(now)}, overlap)

    def restore(self, item_id: int) -> None:
        slot, overlap = self._slot(item_id)
        write(self._tx, slot, {**slot._asdict(), "removed": None}, overlap)

    def counts(self, project_id: int, kind: Kind = "pair") -> dict[ItemState, int]:
        """Items of a kind by state, every state named."""
        query = select(SLOTS.c.state, func.count()).where(SLOTS.c.project_id == project_id, SLOTS.c.kind == kind)
        found = {row[0]: row[1] for row in self._tx.rows(query.group_by(SLOTS.c.state))}
        return {state: found.get(state, 0) for state in get_args(ItemState)}

    def skills_wanted(self, project_id: int) -> list[tuple[str, ...]]:
        """The combinations of skills that open pairs ask for; the empty one is any rater's."""
        query = select(SLOTS.c.skills).distinct().where(SLOTS.c.project_id == project_id, OPEN)
        return sorted(strings_of(row[0]) for row in self._tx.rows(query))

    def revealed_and_open(self, project_id: int) -> list[tuple[tuple[str, ...], int, int, int]]:
        """Of open pairs that insiders are not asked about any more: (skills, votes, raters who are no insiders and are
        done with it, how many such pairs).
        """
        seen = (
            select(func.count())
            .select_from(LEASES)
            .join(MEMBERS, and_(MEMBERS.c.user_id == LEASES.c.user_id, MEMBERS.c.project_id == LEASES.c.project_id))
            .join(USERS, USERS.c.id == MEMBERS.c.user_id)
            .where(LEASES.c.item_id == SLOTS.c.item_id, LEASES.c.purpose == "judge", LEASES.c.state == "done")
            .where(MEMBERS.c.active, MEMBERS.c.role == "rater", ~MEMBERS.c.insider, ~USERS.c.admin)
            .correlate(SLOTS)
            .scalar_subquery()
            .label("seen")
        )
        taken_back = ~said_by_others(0) & exists(select(JUDGMENTS.c.id).where(JUDGMENTS.c.item_id == SLOTS.c.item_id))
        inner = select(SLOTS.c.skills, SLOTS.c.votes, seen)
        inner = inner.where(SLOTS.c.project_id == project_id, OPEN, SLOTS.c.revealed, ~taken_back).subquery()
        query = select(inner, func.count().label("pairs")).group_by(inner.c.skills, inner.c.votes, inner.c.seen)
        return sorted((strings_of(row.skills), row.votes, row.seen, row.pairs) for row in self._tx.rows(query))

    def _slot(self, item_id: int) -> tuple[Row, int]:
        """Under the project's lock, with the project's overlap."""
        project_id = slot_of(self._tx, item_id).project_id
        self._tx.lock(project_id)
        return slot_of(self._tx, item_id), self._tx.projects.get(project_id).settings.overlap

    def _ids(self, project_id: int, keys: Sequence[str]) -> dict[str, int]:
        query = select(ITEMS.c.key, ITEMS.c.id).where(ITEMS.c.project_id == project_id, ITEMS.c.key.in_(keys))
        return {row.key: row.id for row in self._tx.rows(query)}

    def _matching(
        self,
        project_id: int,
        kind: Kind | None,
        words: str | None,
        state: ItemState | None,
        flagged: bool | None,
    ) -> list[ColumnElement[bool]]:
        where: list[ColumnElement[bool]] = [SLOTS.c.project_id == project_id]
        where += [SLOTS.c.kind == kind] if kind is not None else []
        where += [SLOTS.c.state == state if state is not None else SLOTS.c.state != "removed"]
        if flagged is not None:
            where.append(FLAGGED if flagged else SLOTS.c.flags == 0)
        if words:
            columns = (ITEMS.c.prompt, ITEMS.c.a, ITEMS.c.b)
            where.append(or_(*(column.icontains(words, autoescape=True) for column in columns)))
        return where


def _texts(item: NewItem, what: str) -> dict[str, Any]:
    prompt = prompt_json(item.prompt, f"{what}, prompt")
    a, b = checked(item.a, f"{what}, answer a"), checked(item.b, f"{what}, answer b")
    return {
        "key": content_key(prompt, a, b),
        "prompt": prompt,
        "a": a,
        "b": b,
        "provenance": canonical(dict(item.provenance), f"{what}, provenance"),
    }


def _slot(item: NewItem) -> dict[str, Any]:
    if item.gold is not None and item.gold not in CHOICES[:-1]:
        raise DataError(f"gold={item.gold!r}: expected one of {', '.join(CHOICES[:-1])}.")
    return {
        "kind": "golden" if item.gold else "pair",
        "gold": item.gold,
        "skills": skill_key(item.skills),
        "priority": number(item.priority, "priority"),
        "state": "open",
        "revealed": item.gold is not None,
    }


def _item(row: Row) -> Item:
    return Item(
        id=row.id,
        project_id=row.project_id,
        key=row.key,
        prompt=prompt_of(row.prompt),
        a=row.a,
        b=row.b,
        kind=row.kind,
        gold=row.gold,
        skills=strings_of(row.skills),
        priority=row.priority,
        provenance=mapping_of(row.provenance),
        created=row.created,
        removed=row.removed,
        state=row.state,
        votes=row.votes,
        skips=row.skips,
        live=row.live,
        flags=row.flags,
        settled=row.settled,
        revealed=row.revealed,
    )
