"""Addresses below a project that lead nowhere, told to people as a page. Included last."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from keel.studio.pages.inside import PageError, PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/p/{name}/{rest:path}")
async def nowhere(request: Request, name: str, rest: str) -> Response:
    raise PageError(404, f"A project has no page {rest!r}.")
