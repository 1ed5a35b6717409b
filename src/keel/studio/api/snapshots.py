"""What is frozen for training, and what is taken along."""

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import Field, StringConstraints

from keel.annotate.freeze import golden_records
from keel.data.records import Method
from keel.monitor.verdict import Verdict
from keel.stages.collect import collected, content_of, records_now
from keel.store.rows import Snapshot
from keel.store.store import Store
from keel.studio.api.identity import OpenStore, Permitted, Visit, audited
from keel.studio.api.models import Model, ProjectPath
from keel.studio.api.quality import VerdictShown, verdict_shown

router = APIRouter(tags=["snapshots"])
SNAPSHOT_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Kind = Literal["comparisons", "golden"]
PIECE = 1 << 16


class SnapshotShown(Model):
    name: str
    content_hash: str
    """SHA-256 of the JSON lines."""
    created: float
    records: int
    num_bytes: int
    manifest: dict[str, Any]
    """Guides, raters under pseudonyms, sides, times, generators, how votes became labels, agreement, the gate."""
    verdict: VerdictShown | None = None
    """Of the gate on agreement when the votes were frozen; null for golden items. Training is what it stops."""


class SnapshotWish(Model):
    name: Annotated[str, StringConstraints(pattern=SNAPSHOT_NAME), Field(examples=["2027-03-03"])]
    kind: Kind = "comparisons"
    """Golden items are for probing a reward model, never for training one."""
    labels: Method | None = None
    """How votes become a preference; left out, what the project's settings say."""


@router.get("/projects/{p}/snapshots")
def snapshots(store: OpenStore, visit: Permitted, p: ProjectPath) -> list[SnapshotShown]:
    """Every snapshot, oldest first."""
    with store.reading() as tx:
        return [_shown(snapshot) for snapshot in tx.snapshots.all(visit.of.id)]


@router.post("/projects/{p}/snapshots", status_code=201)
def freeze(store: OpenStore, visit: Permitted, p: ProjectPath, given: SnapshotWish) -> SnapshotShown:
    """Freeze what the votes come to. The same content is the same snapshot, whatever its name."""
    with store.reading() as tx:  # votes go on arriving while this is worked out
        content = content_of(tx, visit.of, labels=given.labels, golden=given.kind == "golden")
    with store.writing() as tx:
        made = collected(tx, visit.of, given.name, content, by=visit.user.id, now=time.time())
    return _shown(made.snapshot)


@router.get("/projects/{p}/snapshots/{name}/download", response_class=StreamingResponse)
def download(
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    name: Annotated[str, Path(pattern=SNAPSHOT_NAME, description="Name, or 8 or more digits of the hash")],
) -> StreamingResponse:
    """The records as JSON lines, checked against their hash on the way. Votes cast before it was made can be read from
    now on, so seniors and leads are not asked about those pairs any more.
    """
    with store.writing() as tx:
        found = tx.snapshots.get(p, name)
        if found.manifest.get("kind") != "golden":
            tx.items.reveal(visit.of.id, until=found.created)
    return _streamed(_lines(store, found), f"{p}@{found.name}.jsonl")


@router.get("/projects/{p}/export", response_class=StreamingResponse)
def export(
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    kind: Annotated[Literal["comparisons", "golden", "history"], Query(description="history: every row ever")] = (
        "comparisons"
    ),
    labels: Annotated[Method | None, Query(description="left out: what the project's settings say")] = None,
) -> StreamingResponse:
    """Records as they are now, or every judgment ever appended, as JSON lines. Nothing is frozen. Votes that could not
    be read before can be from now on, so seniors and leads are not asked about those pairs any more.
    """
    with store.writing() as tx:
        audited(tx, visit, "export", f"project {p}", kind=kind)
        if kind != "golden":
            tx.items.reveal(visit.of.id)
    rows = _history(store, visit) if kind == "history" else _now(store, visit, kind, labels)
    if kind != "golden":
        rows = _and_reveal(store, visit, rows)
    return _streamed((json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows), f"{p}-{kind}.jsonl")


def _now(store: Store, visit: Visit, kind: Kind, labels: Method | None) -> Iterator[dict[str, Any]]:
    with store.reading() as tx:
        if kind == "golden":
            yield from golden_records(tx.items.each(visit.of.id, "golden"))
        else:
            yield from records_now(tx, visit.of, labels)


def _and_reveal(store: Store, visit: Visit, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows; votes that came between the permission and the reading are among them and may be read, too."""
    try:
        yield from rows
    finally:
        with store.writing() as tx:
            tx.items.reveal(visit.of.id)


def _history(store: Store, visit: Visit) -> Iterator[dict[str, Any]]:
    with store.reading() as tx:
        names = {member.user_id: member.pseudonym for member in tx.people.members(visit.of.id)}
        for row in tx.work.history(visit.of.id):
            yield {
                "item": row.item_id,
                "rater": names.get(row.user_id),
                "purpose": row.purpose,
                "choice": row.choice,
                "strength": row.strength,
                "flag": row.flag,
                "rationale": row.rationale,
                "seconds": row.seconds,
                "swapped": row.swapped,
                "guide_version": row.guide_version,
                "at": row.created,
            }


def _lines(store: Store, snapshot: Snapshot) -> Iterator[bytes]:
    with store.reading() as tx:
        yield from tx.snapshots.lines(snapshot)


def _streamed(lines: Iterator[bytes], name: str) -> StreamingResponse:
    saved = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_pieces(lines), media_type="application/x-ndjson", headers=saved)


def _pieces(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Lines put together into pieces worth sending."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _shown(snapshot: Snapshot) -> SnapshotShown:
    gate = snapshot.manifest.get("gate")
    return SnapshotShown(
        name=snapshot.name,
        content_hash=snapshot.content_hash,
        created=snapshot.created,
        records=snapshot.records,
        num_bytes=snapshot.num_bytes,
        manifest=dict(snapshot.manifest),
        verdict=verdict_shown(Verdict(gate["level"], "agreement", gate["message"], remedy=gate["remedy"]))
        if gate
        else None,
    )
