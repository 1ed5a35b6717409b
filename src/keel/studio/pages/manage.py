"""What a lead looks after: guide, members, settings, snapshots, the audit log."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from keel.studio.api.access import FIGURES, LEADS
from keel.studio.auth import SESSION_COOKIE, csrf_matches
from keel.studio.pages.inside import PageError, PageRoute, act, call, get
from keel.studio.pages.project import maybe
from keel.studio.pages.rater import guide_of
from keel.studio.pages.render import day, markdown, number
from keel.studio.pages.shell import myself, opened, shown

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Field = Annotated[str, Form()]
PURPOSES = {
    "judge": "Votes",
    "calibration": "Calibration",
    "golden": "Known answers",
    "repeat": "Pairs shown again",
    "adjudicate": "Disputes, settled by seniors",
}
TICKS = ("ties", "both_bad", "strength", "adjudicate")
WHOLE = ("overlap", "calibration_items", "repeat_after")
AMOUNTS = ("min_kappa", "golden_share", "repeat_share", "lease_seconds", "usd_per_judgment")
LONGEST_PREVIEW = 200_000


@router.get("/p/{name}/guide")
async def guide(request: Request, name: str, version: int | None = None) -> Response:
    me, project = await opened(request, name, who=FIGURES)
    newest = await guide_of(request, name)
    chosen = await guide_of(request, name, version) if version else newest
    text = chosen["text"]
    context = {
        "project": project,
        "guide": {**newest, "text": text},
        "versions": newest.get("versions", []),
        "shown": chosen["version"],
    }
    return await shown(request, "guide.html", context, me=me)


@router.post("/p/{name}/guide")
async def save_guide(request: Request, name: str, text: Field, csrf: Field = "") -> Response:
    then, told = f"/p/{name}/guide", "Saved. Raters see it from their next pair on."
    body = {"text": text.replace("\r\n", "\n")}
    return await act(request, "POST", f"/projects/{name}/guide", body, then=then, told=told, csrf=csrf)


@router.post("/p/{name}/guide/preview")
async def preview(request: Request, name: str, text: Field = "", csrf: Field = "") -> Response:
    """The text as raters would see it; nothing is stored."""
    if not csrf_matches(request.cookies.get(SESSION_COOKIE, ""), csrf):
        raise PageError(403, "This form is too old. Reload the page.")
    await opened(request, name, who=LEADS)
    return HTMLResponse(str(markdown(text[:LONGEST_PREVIEW])))


@router.get("/p/{name}/members")
async def members(request: Request, name: str) -> Response:
    return await members_page(request, name)


async def members_page(request: Request, name: str, link: Any = None) -> Response:
    me, project = await opened(request, name, who=LEADS)
    found = await get(request, f"/projects/{name}/members")
    invites = await get(request, f"/projects/{name}/invites")
    context = {"project": project, "members": found, "link": link, "invites": invites}
    return await shown(request, "members.html", context, me=me)


def skills_in(text: str) -> list[str]:
    return [skill for skill in (part.strip() for part in text.split(",")) if skill]


@router.post("/p/{name}/members/{pseudonym}")
async def change_member(
    request: Request, name: str, pseudonym: str, role: Field, skills: Field = "", csrf: Field = ""
) -> Response:
    path, body = f"/projects/{name}/members/{pseudonym}", {"role": role, "skills": skills_in(skills)}
    return await act(request, "PATCH", path, body, then=f"/p/{name}/members", told=f"{pseudonym} is saved.", csrf=csrf)


@router.post("/p/{name}/members/{pseudonym}/remove")
async def remove_member(request: Request, name: str, pseudonym: str, csrf: Field = "") -> Response:
    path, told = f"/projects/{name}/members/{pseudonym}", f"{pseudonym} has left; the votes stay."
    return await act(request, "DELETE", path, then=f"/p/{name}/members", told=told, csrf=csrf)


@router.post("/p/{name}/members/{pseudonym}/restore")
async def restore_member(request: Request, name: str, pseudonym: str, csrf: Field = "") -> Response:
    path, told = f"/projects/{name}/members/{pseudonym}", f"{pseudonym} is back."
    return await act(request, "PATCH", path, {"active": True}, then=f"/p/{name}/members", told=told, csrf=csrf)


@router.post("/p/{name}/members/{pseudonym}/unlock")
async def unlock(request: Request, name: str, pseudonym: str, reason: Field, csrf: Field = "") -> Response:
    path, told = f"/projects/{name}/members/{pseudonym}", f"{pseudonym} may judge; the reason is in the audit log."
    body = {"unlock": reason.strip()}
    return await act(request, "PATCH", path, body, then=f"/p/{name}/members", told=told, csrf=csrf)


@router.post("/p/{name}/members/{pseudonym}/erase")
async def erase(
    request: Request, name: str, pseudonym: str, user: Annotated[int, Form()], csrf: Field = ""
) -> Response:
    told = f"Whoever was {pseudonym} is erased; the votes stay under the pseudonym."
    return await act(request, "POST", f"/users/{user}/erase", then=f"/p/{name}/members", told=told, csrf=csrf)


@router.post("/p/{name}/invites")
async def invite(
    request: Request, name: str, role: Field, uses: Field = "1", skills: Field = "", csrf: Field = ""
) -> Response:
    if not uses.isdecimal():
        raise PageError(400, f"{uses!r} is not a number of people.")
    body = {"role": role, "uses": int(uses), "skills": skills_in(skills)}
    reply = await call(request, "POST", f"/projects/{name}/invites", body, csrf=csrf)
    return await members_page(request, name, link=reply.checked())


@router.post("/p/{name}/invites/{invite_id}/revoke")
async def revoke_invite(request: Request, name: str, invite_id: int, csrf: Field = "") -> Response:
    path, told = f"/projects/{name}/invites/{invite_id}", "The link lets nobody in any more; who came in by it stays."
    return await act(request, "DELETE", path, then=f"/p/{name}/members", told=told, csrf=csrf)


MOVES = {
    "setup": (),
    "calibrating": (("paused", "Pause"),),
    "open": (("paused", "Pause"), ("closed", "Finish")),
    "paused": (("open", "Go on"), ("closed", "Finish")),
    "closed": (("open", "Open again"),),
}


@router.get("/p/{name}/settings")
async def settings(request: Request, name: str, pairs: str = "", raters: str = "", rounds: str = "") -> Response:
    """The settings, and what they come to for so many pairs, raters and rounds of calibration."""
    me, project = await opened(request, name, who=LEADS)
    try:
        plan = await get(request, f"/projects/{name}/budget", pairs=pairs, raters=raters, rounds=rounds)
    except PageError as error:  # the settings are what puts it right
        plan = {"message": error.message}
    moves = MOVES[project["state"]]
    context = {"project": project, "settings": project["settings"], "moves": moves, "plan": plan, "purposes": PURPOSES}
    return await shown(request, "settings.html", context, me=me)


@router.post("/p/{name}/settings")
async def save_settings(request: Request, name: str) -> Response:
    form = {key: str(value) for key, value in (await request.form()).items()}
    values: dict[str, Any] = {tick: form.get(tick) == "true" for tick in TICKS}
    try:
        values |= {key: int(form[key]) for key in WHOLE} | {key: float(form[key]) for key in AMOUNTS}
    except (KeyError, ValueError) as error:
        raise PageError(400, f"A number is missing or is none: {error}.") from error
    values |= {key: form[key] for key in ("rationale", "labels") if key in form}
    body = {"title": form.get("title", "").strip(), "settings": values}
    then, csrf = f"/p/{name}/settings", form.get("csrf", "")
    return await act(request, "PATCH", f"/projects/{name}", body, then=then, told="The settings are saved.", csrf=csrf)


@router.post("/p/{name}/state")
async def move(request: Request, name: str, state: Field, reason: Field = "", csrf: Field = "") -> Response:
    words = {"open": "The project is open.", "paused": "The project is paused.", "closed": "The project is finished."}
    path, told = f"/projects/{name}/state", words.get(state)
    body = {"state": state, "override": reason.strip() or None}
    return await act(request, "POST", path, body, then=f"/p/{name}", told=told, csrf=csrf)


@router.get("/p/{name}/snapshots")
async def snapshots(request: Request, name: str) -> Response:
    me, project = await opened(request, name, who=FIGURES)
    rows: list[dict[str, Any]] = await get(request, f"/projects/{name}/snapshots")
    rows.sort(key=lambda row: -row["created"])
    agreement = await maybe(request, f"/projects/{name}/agreement", {})
    context = {
        "project": project,
        "snapshots": [{**row, "facts": facts_of(row.get("manifest") or {})} for row in rows],
        "suggested": f"{datetime.now(UTC):%Y-%m-%d}",
        "gate": agreement.get("verdict"),
    }
    return await shown(request, "snapshots.html", context, me=me)


def facts_of(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a snapshot was made from, in words: the lineage that its manifest keeps."""
    judged, gate = manifest.get("judgments") or {}, manifest.get("gate") or {}
    first, last = manifest.get("first_judgment"), manifest.get("last_judgment")
    told = {
        "Holds": {"golden": "known answers"}.get(manifest.get("kind", ""), manifest.get("kind")),
        "Votes become labels by": (manifest.get("labels") or "").replace("_", " "),
        "Votes": number(sum(judged.values())) if judged else None,
        "Voted": f"{day(first)} to {day(last)}" if first and last else None,
        "Raters": number(len(manifest.get("raters") or ())),
        "Guide": f"version {manifest['guide_version']}" if manifest.get("guide_version") else None,
        "Answers from": ", ".join(manifest.get("generators") or ()),
        "Agreement": " ".join(str(gate.get(part) or "") for part in ("message", "remedy")).strip(),
    }
    return [(name, value) for name, value in told.items() if value]


@router.post("/p/{name}/snapshots")
async def freeze(
    request: Request,
    name: str,
    snapshot: Annotated[str, Form(alias="name")],
    kind: Field = "comparisons",
    csrf: Field = "",
) -> Response:
    body = {"name": snapshot.strip(), "kind": kind}
    then, told = f"/p/{name}/snapshots", f"{name}@{snapshot.strip()} is frozen."
    return await act(request, "POST", f"/projects/{name}/snapshots", body, then=then, told=told, csrf=csrf)


@router.get("/p/{name}/audit")
async def project_audit(request: Request, name: str, before: int | None = None) -> Response:
    me, project = await opened(request, name, who=LEADS)
    entries = await get(request, f"/projects/{name}/audit", before=before)
    return await shown(request, "audit.html", {"project": project, "entries": entries, "older": older(entries)}, me=me)


@router.get("/audit")
async def audit(request: Request, before: int | None = None) -> Response:
    me = await myself(request)
    entries = await get(request, "/audit", before=before)
    return await shown(request, "audit.html", {"entries": entries, "older": older(entries)}, me=me)


def older(entries: list[dict[str, Any]], page: int = 100) -> int | None:
    """The entry before which the next page begins; None where this is the last."""
    return entries[-1]["id"] if len(entries) == page else None
