"""Records frozen for training: canonical JSON lines, known by the hash of their content, never changed.

Lines are stored in chunks, each its own gzip member, so that a large snapshot is written and read a piece at a time and
all chunks one after the other are a valid .jsonl.gz.
"""

import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, func, insert, select

from keel.core.errors import ArtifactError, ConflictError, DataError, MissingError
from keel.store import tables
from keel.store.rows import Snapshot
from keel.store.texts import canonical, mapping_of

if TYPE_CHECKING:
    from keel.store.store import Transaction

SNAPSHOTS, CHUNKS = tables.snapshots, tables.snapshot_chunks
JUDGMENTS, LEASES, SLOTS, MEMBERS, USERS = (
    tables.judgments,
    tables.leases,
    tables.slots,
    tables.memberships,
    tables.users,
)
CHUNK_BYTES = 1 << 20
"""Of JSON lines, before compression."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")
SHORTEST_HASH = 8


class Snapshots:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx

    def create(
        self,
        project_id: int,
        name: str,
        *,
        by: int | None,
        records: Iterable[Mapping[str, Any]],
        manifest: Mapping[str, Any],
        now: float,
    ) -> Snapshot:
        """Freeze records. The same content is the same snapshot: the one that is there comes back, under its name.

        `manifest` is added to what every snapshot says of itself (`facts`). ConflictError for a name that other
        content has.
        """
        if not NAME.fullmatch(name) or re.fullmatch(r"[0-9a-f]{8,}", name):
            raise DataError(
                f"{name[:80]!r} is no name for a snapshot: expected 1 to 60 lower-case letters, digits, '.', - and _, "
                "and more than a hash could be, such as march-2025."
            )
        self._tx.lock(project_id)
        hasher, num_records, num_bytes, chunks = hashlib.sha256(), 0, 0, []
        for lines, count in _chunks(records):
            hasher.update(lines)
            num_records, num_bytes = num_records + count, num_bytes + len(lines)
            chunks.append(gzip.compress(lines, compresslevel=6, mtime=0))
        content_hash = hasher.hexdigest()
        where = SNAPSHOTS.c.project_id == project_id
        if same := self._tx.first(select(SNAPSHOTS).where(where, SNAPSHOTS.c.content_hash == content_hash)):
            return _snapshot(same)
        if other := self._tx.first(select(SNAPSHOTS).where(where, SNAPSHOTS.c.name == name)):
            raise ConflictError(
                f"The snapshot {name!r} is there already with other content ({other.content_hash[:12]}). A snapshot "
                "never changes: choose another name."
            )
        number = self._tx.insert(
            insert(SNAPSHOTS),
            {
                "project_id": project_id,
                "name": name,
                "content_hash": content_hash,
                "created": self._tx.at(now),
                "by_user": by,
                "manifest": canonical({**self.facts(project_id), **manifest}, "manifest"),
                "records": num_records,
                "num_bytes": num_bytes,
            },
        )
        for place, data in enumerate(chunks):
            self._tx.run(insert(CHUNKS).values(snapshot_id=number, number=place, data=data))
        return self.by_id(number)

    def by_id(self, snapshot_id: int) -> Snapshot:
        query = select(SNAPSHOTS).where(SNAPSHOTS.c.id == snapshot_id)
        return _snapshot(self._tx.one(query, f"There is no snapshot {snapshot_id}."))

    def get(self, project_name: str, name_or_hash: str) -> Snapshot:
        """By its name, or by the first 8 or more digits of its hash. MissingError names those there are."""
        project = self._tx.projects.by_name(project_name)
        if project is None:
            raise MissingError(f"There is no project called {project_name!r} in {self._tx.place}.")
        there = self.all(project.id)
        found = [snapshot for snapshot in there if snapshot.name == name_or_hash]
        if not found and len(name_or_hash) >= SHORTEST_HASH:
            found = [snapshot for snapshot in there if snapshot.content_hash.startswith(name_or_hash.lower())]
        if len(found) == 1:
            return found[0]
        names = ", ".join(snapshot.name for snapshot in there) or "none yet"
        raise MissingError(f"{project_name} has no snapshot {name_or_hash!r}. There are: {names}.")

    def all(self, project_id: int) -> list[Snapshot]:
        """Oldest first."""
        query = select(SNAPSHOTS).where(SNAPSHOTS.c.project_id == project_id).order_by(SNAPSHOTS.c.id)
        return [_snapshot(row) for row in self._tx.rows(query)]

    def read(self, snapshot: Snapshot) -> Iterator[dict[str, Any]]:
        """The records, in order. ArtifactError, at the latest after the last, where they are not what was frozen."""
        for line in self.lines(snapshot):
            yield json.loads(line)

    def lines(self, snapshot: Snapshot) -> Iterator[bytes]:
        """The JSON lines with their ends, checked as in `read`."""
        hasher, number = hashlib.sha256(), 0
        query = select(CHUNKS.c.data).where(CHUNKS.c.snapshot_id == snapshot.id)
        while row := self._tx.first(query.where(CHUNKS.c.number == number)):
            try:
                lines = gzip.decompress(row.data)
            except (OSError, EOFError, zlib.error) as error:
                raise _damaged(snapshot, str(error)) from error
            hasher.update(lines)
            number += 1
            yield from lines.splitlines(keepends=True)
        if hasher.hexdigest() != snapshot.content_hash:
            raise _damaged(snapshot, f"its content hashes to {hasher.hexdigest()[:12]}")

    def facts(self, project_id: int) -> dict[str, Any]:
        """What every manifest says of how its project stood: guides, raters, sides, times, generators, counts."""
        project = self._tx.projects.get(project_id)
        current = (
            select(JUDGMENTS.c.purpose, JUDGMENTS.c.user_id, JUDGMENTS.c.swapped, JUDGMENTS.c.guide_version)
            .add_columns(func.count(), func.min(JUDGMENTS.c.created), func.max(JUDGMENTS.c.created))
            .join(LEASES, LEASES.c.judgment_id == JUDGMENTS.c.id)
            .join(SLOTS, SLOTS.c.item_id == JUDGMENTS.c.item_id)
            .where(LEASES.c.project_id == project_id, SLOTS.c.removed.is_(None))
            .group_by(JUDGMENTS.c.purpose, JUDGMENTS.c.user_id, JUDGMENTS.c.swapped, JUDGMENTS.c.guide_version)
        )
        by_purpose, by_user, sides, guides = (Counter[Any]() for _ in range(4))
        times: list[float] = []
        for purpose, user_id, swapped, guide, number, first, last in self._tx.rows(current):
            by_purpose[purpose] += number
            by_user[user_id] += number
            sides["b_left" if swapped else "a_left"] += number
            guides[guide] += number
            times += [first, last]
        hashes = {guide.version: hashlib.sha256(guide.text.encode()).hexdigest() for guide in self._guides(project_id)}
        return {
            "project": project.name,
            "title": project.title,
            "guide_version": project.guide_version,
            "guides": [{"version": v, "sha256": hashes.get(v), "judgments": guides[v]} for v in sorted(guides)],
            "raters": self._raters(project_id, by_user),
            "judgments": dict(by_purpose),
            "sides": {side: sides[side] for side in ("a_left", "b_left")},
            "first_judgment": min(times, default=None),
            "last_judgment": max(times, default=None),
            "items": dict(self._tx.items.counts(project_id)),
            "golden_items": sum(self._tx.items.counts(project_id, "golden").values()),
            "generators": self._generators(project_id),
            "settings": project.settings.model_dump(mode="json"),
        }

    def _guides(self, project_id: int) -> Iterable[Any]:
        return self._tx.projects.guides(project_id)

    def _raters(self, project_id: int, judgments: Mapping[int, int]) -> list[dict[str, Any]]:
        """By pseudonym; nothing here says who they are."""
        query = select(MEMBERS.c.pseudonym, MEMBERS.c.role, MEMBERS.c.user_id, USERS.c.kind)
        members = self._tx.rows(query.join(USERS).where(MEMBERS.c.project_id == project_id))
        return [
            {"rater": row.pseudonym, "role": row.role, "kind": row.kind, "judgments": judgments[row.user_id]}
            for row in sorted(members, key=lambda row: row.pseudonym)
            if judgments.get(row.user_id)
        ]

    def _generators(self, project_id: int) -> dict[str, int]:
        """How many answers each generator gave, from the items' provenance."""
        items = tables.items
        query = select(items.c.provenance, func.count()).where(items.c.project_id == project_id)
        found: Counter[str] = Counter()
        for provenance, number in self._tx.rows(query.group_by(items.c.provenance)):
            for side in ("a", "b"):
                if name := _generator(mapping_of(provenance).get(side)):
                    found[name] += number
        return dict(sorted(found.items()))


def _generator(source: Any) -> str | None:
    """The name of what made an answer: a text, or the `model` of a mapping."""
    name = source.get("model") if isinstance(source, Mapping) else source
    return name if isinstance(name, str) and name else None


def _chunks(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[bytes, int]]:
    """JSON lines in pieces of about a mebibyte, with the number of records in each."""
    lines: list[bytes] = []
    size = 0
    for place, record in enumerate(records, start=1):
        lines.append(canonical(record, f"record {place}").encode() + b"\n")
        size += len(lines[-1])
        if size >= CHUNK_BYTES:
            yield b"".join(lines), len(lines)
            lines, size = [], 0
    if lines:
        yield b"".join(lines), len(lines)


def _damaged(snapshot: Snapshot, what: str) -> ArtifactError:
    return ArtifactError(
        f"The snapshot {snapshot.name!r} is not what was frozen: expected {snapshot.content_hash[:12]}, {what}. "
        "Restore the database from a copy."
    )


def _snapshot(row: Row) -> Snapshot:
    return Snapshot(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        content_hash=row.content_hash,
        created=row.created,
        by=row.by_user,
        manifest=mapping_of(row.manifest),
        records=row.records,
        num_bytes=row.num_bytes,
    )
