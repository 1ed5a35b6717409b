"""Who did what, and when. Entries never change; they hold numbers and pseudonyms, so that a person can be erased."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, insert, select

from keel.store import tables
from keel.store.rows import AuditEntry
from keel.store.texts import canonical, checked, mapping_of

if TYPE_CHECKING:
    from keel.store.store import Transaction

AUDIT = tables.audit


class Audit:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx

    def add(
        self,
        action: str,
        *,
        at: float,
        user_id: int | None = None,
        project_id: int | None = None,
        target: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> AuditEntry:
        """Note that `user_id` (None: keel itself) did `action` to `target`. Put no names or e-mails in it."""
        values = {
            "at": self._tx.at(at),
            "user_id": user_id,
            "project_id": project_id,
            "action": checked(action, "An action", 100),
            "target": checked(target, "The target of an action", 1000),
            "details": canonical(dict(details or {}), "The details of an action"),
        }
        number = self._tx.insert(insert(AUDIT), values)
        return _entry(self._tx.one(select(AUDIT).where(AUDIT.c.id == number), ""))

    def find(
        self,
        *,
        project_id: int | None = None,
        user_id: int | None = None,
        action: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """The newest entries first; `before` is the id of the last one on the page above."""
        query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        for column, value in ((AUDIT.c.project_id, project_id), (AUDIT.c.user_id, user_id), (AUDIT.c.action, action)):
            if value is not None:
                query = query.where(column == value)
        if before is not None:
            query = query.where(AUDIT.c.id < before)
        return [_entry(row) for row in self._tx.rows(query)]


def _entry(row: Row) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        user_id=row.user_id,
        project_id=row.project_id,
        action=row.action,
        target=row.target,
        details=mapping_of(row.details),
    )
