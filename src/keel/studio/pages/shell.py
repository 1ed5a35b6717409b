"""What every page of a signed-in person shares: who they are, what they may do, and where else they can go."""

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from keel.studio.api.access import FIGURES, JUDGES, LEADS, SENIORS
from keel.studio.pages.inside import PageError, csrf_of, forget_told, get, told_by
from keel.studio.pages.render import page

PLACES = (
    ("", "Overview", FIGURES),
    ("/items", "Items", SENIORS),
    ("/disputes", "Disputes", SENIORS),
    ("/calibration", "Calibration", FIGURES),
    ("/raters", "Raters", LEADS),
    ("/guide", "Guide", FIGURES),
    ("/snapshots", "Snapshots", FIGURES),
    ("/members", "Members", LEADS),
    ("/settings", "Settings", LEADS),
    ("/audit", "Audit log", LEADS),
)
"""Pages of a project and who may see them, as in the API's own table."""


async def project_of(request: Request, name: str, me: Mapping[str, Any]) -> dict[str, Any]:
    """The project as the API tells it, with `can`: what this person may do there."""
    project = await get(request, f"/projects/{name}")
    role = project.get("role") or ("admin" if me["admin"] else "viewer")
    can = {"judge": role in JUDGES, "senior": role in SENIORS, "lead": role in LEADS, "figures": role in FIGURES}
    return {**project, "role": role, "can": can}


async def shown(
    request: Request, template: str, context: Mapping[str, Any], *, me: Mapping[str, Any], status: int = 200
) -> Response:
    """The template with what all pages share."""
    project = context.get("project")
    told = told_by(request)
    here = request.url.path
    shared: dict[str, Any] = {"me": me, "csrf": csrf_of(request), "told": told, "here": here, "project": None}
    if project:
        base = f"/p/{project['name']}"
        role = project["role"]
        shared["can"] = project["can"]
        shared["links"] = [
            {
                "href": base + path,
                "name": name,
                "here": here == base + path,
                "count": context.get("counts", {}).get(path),
            }
            for path, name, who in PLACES
            if role in who
        ]
    answer = page(template, {**shared, **context}, status)
    return forget_told(answer) if told else answer


async def myself(request: Request) -> dict[str, Any]:
    """Who is signed in; strangers are led to the door."""
    return await get(request, "/me")


async def opened(request: Request, name: str, *, who: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(me, project), where I am one of `who`."""
    me = await myself(request)
    project = await project_of(request, name, me)
    if project["role"] not in who:
        raise PageError(403, f"This page is for {listed(who)}; you are {project['role']} here.")
    return me, project


def listed(who: frozenset[str]) -> str:
    order = [role for role in ("rater", "senior", "lead", "viewer") if role in who]
    return " and ".join(
        [", ".join(f"{role}s" for role in order[:-1]), f"{order[-1]}s"] if len(order) > 1 else [f"{order[0]}s"]
    )
