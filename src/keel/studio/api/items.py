"""What is put before raters: import, look, take out, known answers."""

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from keel.data.records import Message, Prompt
from keel.store.rows import Item, ItemState, Judgment, Kind
from keel.store.store import Store, Transaction
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Visit, audited
from keel.studio.api.imports import PairIn, read_items, suffix_of
from keel.studio.api.models import Done, Line, Model, OwnChoice, PathId, ProjectPath

router = APIRouter(tags=["items"])
LONGEST_STEM = 200
"""Bytes of an upload's name; file systems take 255 with the suffix."""


class TurnShown(Model):
    role: str
    content: str


class VoteShown(Model):
    """A current vote, under the rater's pseudonym."""

    rater: str
    choice: OwnChoice
    strength: int | None
    flag: str | None
    rationale: str | None
    seconds: float | None
    swapped: bool
    guide_version: int
    created: float


class ItemShown(Model):
    id: int
    kind: Kind
    state: ItemState
    prompt: str | list[TurnShown]
    a: str
    b: str
    gold: OwnChoice | None
    settled: OwnChoice | None
    skills: list[str]
    priority: float
    votes: int
    skips: int
    flags: int
    created: float
    removed: float | None
    revealed: bool
    """Whether its votes may be read: all are in, or what else ends blind voting on it happened."""
    provenance: dict[str, Any] | None
    """Told to leads."""
    judgments: list[VoteShown] | None
    """Told to leads once the item is revealed; null before."""


class ItemPage(Model):
    items: list[ItemShown]
    total: int
    page: int
    size: int


class Imported(Model):
    added: int
    already_there: int
    """Pairs that the project had, whichever answer stood first."""
    item_ids: list[int]


class GoldAnswer(Model):
    gold: Annotated[OwnChoice | None, Field(description="null makes it an ordinary pair again")]


BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/PairIn"}}},
        "application/x-ndjson": {"schema": {"type": "string", "description": "One JSON object a line"}},
        "text/csv": {"schema": {"type": "string"}},
    },
}


@router.get("/projects/{p}/items")
def items(
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    kind: Kind | None = None,
    state: ItemState | None = None,
    text: Annotated[Line | None, Query(description="Part of the prompt or of an answer")] = None,
    flagged: bool | None = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    size: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ItemPage:
    """Items, oldest first; removed ones only where `state=removed`."""
    with store.reading() as tx:
        found = tx.items.find(visit.of.id, kind=kind, text=text, state=state, flagged=flagged, page=page, size=size)
        votes = votes_by_item(tx, visit, [item.id for item in found.items if item.revealed]) if visit.leads else None
    shown = [item_shown(item, visit, votes) for item in found.items]
    return ItemPage(items=shown, total=found.total, page=page, size=size)


@router.post("/projects/{p}/items", status_code=201, openapi_extra={"requestBody": BODY})
async def add_items(
    request: Request,
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    file: Annotated[Line | None, Query(description="Name of the file; its suffix says how it is read")] = None,
    gold: Annotated[bool, Query(description="The better answer that the file names is the known one")] = False,
) -> Imported:
    """Import pairs: a JSON list, JSON lines, CSV or Parquet, in keel's own form or any format that keel reads.

    All or nothing; what the project has already is counted and not added twice.
    """
    suffix = suffix_of(request.headers.get("content-type", ""), file)
    with tempfile.TemporaryDirectory(prefix="keel-import-") as folder:
        stem = Path(file).stem.encode()[:LONGEST_STEM].decode(errors="ignore") if file else "upload"
        path = Path(folder) / f"{stem}{suffix}"
        with path.open("wb") as written:
            async for chunk in request.stream():
                written.write(chunk)
        if not path.stat().st_size:
            raise ApiError(422, "The request is empty.", hint="Send a JSON list or JSON lines.")
        return await run_in_threadpool(_import, store, visit, path, gold)


@router.delete("/projects/{p}/items/{id}")
def remove_item(store: OpenStore, visit: Permitted, p: ProjectPath, id: PathId) -> Done:
    """Take an item out. Its votes are kept and count nowhere."""
    with store.writing() as tx:
        own_item(tx, visit, id)
        tx.items.remove(id, now=time.time())
        audited(tx, visit, "remove item", f"item {id}")
    return Done()


@router.put("/projects/{p}/items/{id}/gold")
def set_gold(store: OpenStore, visit: Permitted, p: ProjectPath, id: PathId, given: GoldAnswer) -> ItemShown:
    """Make an item a golden one with this known answer, or an ordinary pair again."""
    with store.writing() as tx:
        own_item(tx, visit, id)
        item = tx.items.set_gold(id, given.gold, now=time.time())
        audited(tx, visit, "set gold", f"item {id}", gold=given.gold)
    return item_shown(item, visit, None)


def own_item(tx: Transaction, visit: Visit, item_id: int) -> Item:
    """The item, if it is of the project that the address names."""
    item = tx.items.get(item_id)
    if item.project_id != visit.of.id:
        raise ApiError(404, f"There is no item {item_id}.")
    return item


def pseudonyms(tx: Transaction, visit: Visit) -> dict[int, str]:
    """By user."""
    return {member.user_id: member.pseudonym for member in tx.people.members(visit.of.id)}


def votes_by_item(tx: Transaction, visit: Visit, item_ids: list[int]) -> dict[int, list[VoteShown]]:
    """The current votes on items, calibration and golden ones included."""
    names, found = pseudonyms(tx, visit), {item_id: [] for item_id in item_ids}
    for vote in tx.work.votes(visit.of.id, ("judge", "calibration", "golden", "adjudicate"), item_ids=item_ids):
        found[vote.item_id].append(vote_shown(vote, names))
    return found


def vote_shown(vote: Judgment, names: dict[int, str]) -> VoteShown:
    assert vote.choice != "withdrawn"
    return VoteShown(
        rater=names.get(vote.user_id, "?"),
        choice=vote.choice,
        strength=vote.strength,
        flag=vote.flag,
        rationale=vote.rationale,
        seconds=vote.seconds,
        swapped=vote.swapped,
        guide_version=vote.guide_version,
        created=vote.created,
    )


def item_shown(item: Item, visit: Visit, votes: dict[int, list[VoteShown]] | None) -> ItemShown:
    return ItemShown(
        id=item.id,
        kind=item.kind,
        state=item.state,
        prompt=prompt_shown(item.prompt),
        a=item.a,
        b=item.b,
        gold=item.gold,
        settled=item.settled,
        skills=list(item.skills),
        priority=item.priority,
        votes=item.votes,
        skips=item.skips,
        flags=item.flags,
        created=item.created,
        removed=item.removed,
        revealed=item.revealed,
        provenance=dict(item.provenance) if visit.leads else None,
        judgments=votes.get(item.id) if votes is not None and visit.leads else None,
    )


def prompt_shown(prompt: Prompt) -> str | list[TurnShown]:
    if isinstance(prompt, str):
        return prompt
    return [_turn(message) for message in prompt]


def _turn(message: Message) -> TurnShown:
    return TurnShown(role=message.role, content=message.content)


def _import(store: Store, visit: Visit, path: Path, gold: bool) -> Imported:
    found = read_items(path, gold=gold)
    with store.writing() as tx:
        added = tx.items.add(visit.of.id, found, now=time.time())
        audited(tx, visit, "import items", f"{added.added} items", already_there=added.already_there)
    return Imported(added=added.added, already_there=added.already_there, item_ids=list(added.item_ids))


__all__ = ["PairIn", "router"]
