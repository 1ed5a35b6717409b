"""The rater's page. It is sent once; from then on it talks to the API by itself (static/judge.js)."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from keel.studio.api.access import JUDGES
from keel.studio.pages.inside import PageError, PageRoute, csrf_of, get
from keel.studio.pages.render import markdown, page
from keel.studio.pages.shell import opened

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/p/{name}/judge")
async def judge(request: Request, name: str) -> Response:
    me, project = await opened(request, name, who=JUDGES)
    guide = await guide_of(request, name)
    context = {
        "csrf": csrf_of(request),
        "me": me,
        "project": project,
        "settings": project["settings"],
        "guide": {"version": guide["version"], "html": markdown(guide["text"] or "*There is no guide yet.*")},
    }
    return page("judge.html", context)


@router.get("/p/{name}/judge/guide")
async def guide(request: Request, name: str) -> Response:
    """The newest guide alone, for the page whose guide has grown old."""
    return page("guide_only.html", {"html": markdown((await guide_of(request, name))["text"])})


async def guide_of(request: Request, name: str, version: int | None = None) -> dict[str, Any]:
    """A version of the guide, the newest unless told; an empty one where there is none."""
    try:
        return await get(request, f"/projects/{name}/guide", version=version)
    except PageError as error:
        if error.status != 404:
            raise
        return {"version": 0, "text": "", "created": None, "by": None, "versions": []}
