"""Items with their votes, imports, and disputed pairs."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import Response

from keel.studio.api.access import SENIORS
from keel.studio.pages.inside import PageError, PageRoute, act, call, get, onward
from keel.studio.pages.project import maybe
from keel.studio.pages.render import plural
from keel.studio.pages.shell import opened, shown

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Field = Annotated[str, Form()]
Number = Annotated[int, Form()]


@router.get("/p/{name}/items")
async def items(
    request: Request,
    name: str,
    text: str = "",
    state: str = "",
    kind: str = "",
    flagged: str = "",
    page: int = 1,
    item: int = 0,
) -> Response:
    me, project = await opened(request, name, who=SENIORS)
    query: dict[str, Any] = {"text": text, "state": state, "kind": kind, "flagged": flagged}
    found = await get(request, f"/projects/{name}/items", **query, page=page)
    context = {
        "project": project,
        "query": query,
        "filtered": any(query.values()),
        "opened": item,
        "page": paged(found, f"/p/{name}/items", query),
        "golden": await maybe(request, f"/projects/{name}/golden", None),
    }
    return await shown(request, "items.html", context, me=me)


def paged(found: dict[str, Any], path: str, query: dict[str, Any]) -> dict[str, Any]:
    """The page with addresses of its neighbours."""
    number, size, total = found["page"], found["size"], found["total"]
    kept = {key: value for key, value in query.items() if value}

    def address(to: int) -> str:
        return f"{path}?{urlencode({**kept, 'page': to})}"

    first = (number - 1) * size + 1
    return {
        **found,
        "first": min(first, total),
        "last": min(number * size, total),
        "before": address(number - 1) if number > 1 else None,
        "after": address(number + 1) if number * size < total else None,
    }


@router.post("/p/{name}/items")
async def import_items(
    request: Request,
    name: str,
    csrf: Field = "",
    pasted: Field = "",
    known: Field = "",
    file: UploadFile | None = None,
) -> Response:
    """A file or pasted lines, handed to the API as they are."""
    content = await file.read() if file and file.filename else pasted.strip().encode()
    if not content:
        raise PageError(400, "Choose a file or paste some lines first.")
    filename = file.filename if file and file.filename else "pasted.jsonl"
    path = f"/projects/{name}/items"
    raw = ("application/x-ndjson", content)
    reply = await call(request, "POST", path, csrf=csrf, raw=raw, query={"file": filename, "gold": known})
    told = reply.checked()
    added, known = told["added"], told["already_there"]
    before = f"; {plural(known, 'pair was', 'pairs were')} here already" if known else ""
    return onward(f"/p/{name}/items", f"{plural(added, 'pair')} added{before}.")


@router.post("/p/{name}/items/{item}/gold")
async def gold(request: Request, name: str, item: int, gold: Field = "", csrf: Field = "") -> Response:
    path, body = f"/projects/{name}/items/{item}/gold", {"gold": gold or None}
    then = f"/p/{name}/items?item={item}#item-{item}"
    return await act(request, "PUT", path, body, then=then, told="The known answer is set.", csrf=csrf)


@router.post("/p/{name}/items/{item}/remove")
async def remove(request: Request, name: str, item: int, csrf: Field = "") -> Response:
    path = f"/projects/{name}/items/{item}"
    told = "The pair is out; its votes are kept."
    return await act(request, "DELETE", path, then=f"/p/{name}/items", told=told, csrf=csrf)


@router.get("/p/{name}/disputes")
async def disputes(request: Request, name: str) -> Response:
    me, project = await opened(request, name, who=SENIORS)
    found = await get(request, f"/projects/{name}/disputes")
    context = {"project": project, "disputes": found, "counts": {"/disputes": len(found)}}
    return await shown(request, "disputes.html", context, me=me)


@router.post("/p/{name}/disputes/{item}/settle")
async def settle(
    request: Request, name: str, item: int, choice: Field, rationale: Field = "", csrf: Field = ""
) -> Response:
    body = {"choice": choice, "rationale": rationale.strip() or None}
    path = f"/projects/{name}/disputes/{item}/settle"
    return await act(request, "POST", path, body, then=f"/p/{name}/disputes", told="Settled.", csrf=csrf)
