"""Calibration rounds: the same items before every rater."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, func, insert, select, update

from keel.core.errors import ConflictError, DataError
from keel.store import tables
from keel.store.rows import Round
from keel.store.slots import recount_project
from keel.store.texts import canonical, mapping_of

if TYPE_CHECKING:
    from keel.store.store import Transaction

ROUNDS, SLOTS, LEASES = tables.rounds, tables.slots, tables.leases


class Rounds:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx

    def open(self, project_id: int, item_ids: Sequence[int], *, now: float) -> Round:
        """Begin a round under the newest guide. Its items are from then on for calibration only.

        The same item may stand in several rounds; each rater judges it once in each. DataError for an item that is
        unknown, golden or removed, ConflictError while another round is open.
        """
        self._tx.lock(project_id)
        if (current := self.current(project_id)) is not None:
            raise ConflictError(f"Round {current.number} is still open. Close it first.")
        chosen = tuple(dict.fromkeys(item_ids))
        if not chosen:
            raise DataError("A calibration round needs items. Import some first.")
        items = {item.id: item for item in self._tx.items.many(chosen)}
        for item_id in chosen:
            item = items.get(item_id)
            if item is None or item.project_id != project_id or item.kind == "golden" or item.removed is not None:
                raise DataError(f"Item {item_id} cannot be in a calibration round: unknown here, golden or removed.")
        for item_id in chosen:
            self._tx.work.release_item(item_id)
        self._tx.run(update(SLOTS).where(SLOTS.c.item_id.in_(chosen)).values(kind="calibration"))
        recount_project(self._tx, project_id)
        last = self._tx.rows(select(func.max(ROUNDS.c.number)).where(ROUNDS.c.project_id == project_id))[0][0]
        values = {
            "project_id": project_id,
            "number": (last or 0) + 1,
            "guide_version": self._tx.projects.get(project_id).guide_version,
            "item_ids": canonical(chosen, "items"),
            "state": "open",
            "opened": self._tx.at(now),
            "closed": None,
            "figures": "{}",
        }
        return self.get(self._tx.insert(insert(ROUNDS), values))

    def current(self, project_id: int) -> Round | None:
        """The open round."""
        return self._newest(project_id, "open")

    def newest_passed(self, project_id: int) -> Round | None:
        """What raters who join later are calibrated on."""
        return self._newest(project_id, "passed")

    def get(self, round_id: int) -> Round:
        return _round(self._tx.one(select(ROUNDS).where(ROUNDS.c.id == round_id), f"There is no round {round_id}."))

    def by_number(self, project_id: int, number: int) -> Round:
        query = select(ROUNDS).where(ROUNDS.c.project_id == project_id, ROUNDS.c.number == number)
        return _round(self._tx.one(query, f"This project has no calibration round {number}."))

    def all(self, project_id: int) -> list[Round]:
        """Oldest first."""
        query = select(ROUNDS).where(ROUNDS.c.project_id == project_id).order_by(ROUNDS.c.number)
        return [_round(row) for row in self._tx.rows(query)]

    def num_judged(self, round_id: int, user_id: int) -> int:
        """Items of the round that the rater has judged."""
        where = (LEASES.c.round_key == round_id, LEASES.c.user_id == user_id, LEASES.c.state == "done")
        return self._tx.rows(select(func.count()).select_from(LEASES).where(*where))[0][0]

    def close(
        self, round_id: int, figures: Mapping[str, Any], passed: bool, *, now: float, unlocked: Iterable[int] = ()
    ) -> Round:
        """End a round with what was measured; `unlocked` are the users who may judge from now on."""
        current = self.get(round_id)
        self._tx.lock(current.project_id)
        current = self.get(round_id)
        if current.state != "open":
            raise ConflictError(f"Round {current.number} is closed already ({current.state}).")
        self._tx.work.release_round(round_id)
        values = {
            "state": "passed" if passed else "failed",
            "closed": self._tx.at(now),
            "figures": canonical(dict(figures), "figures of a round"),
        }
        self._tx.run(update(ROUNDS).where(ROUNDS.c.id == round_id).values(**values))
        self._tx.run(update(SLOTS).where(SLOTS.c.item_id.in_(current.item_ids)).values(revealed=True))
        self._tx.people.unlock(current.project_id, unlocked, current.number)
        return self.get(round_id)

    def _newest(self, project_id: int, state: str) -> Round | None:
        query = select(ROUNDS).where(ROUNDS.c.project_id == project_id, ROUNDS.c.state == state)
        row = self._tx.first(query.order_by(ROUNDS.c.number.desc()).limit(1))
        return None if row is None else _round(row)


def _round(row: Row) -> Round:
    return Round(
        id=row.id,
        project_id=row.project_id,
        number=row.number,
        guide_version=row.guide_version,
        item_ids=tuple(json.loads(row.item_ids)),
        state=row.state,
        opened=row.opened,
        closed=row.closed,
        figures=mapping_of(row.figures),
    )
