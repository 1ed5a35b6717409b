"""Coming in and going out: sign in, accept an invitation, sign out."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from keel.studio.pages.inside import PageError, PageRoute, add_cookies, call, csrf_of, get, told_by
from keel.studio.pages.render import page

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Field = Annotated[str, Form()]


def local(address: str) -> str:
    """`address` if it is a path of this studio, else `/`: a link must not send people elsewhere after they sign in."""
    return address if address.startswith("/") and not address.startswith(("//", "/\\")) else "/"


@router.get("/login")
async def login_page(request: Request, next: str = "/") -> Response:  # the field's name in addresses
    return page("login.html", {"csrf": "", "next": local(next), "name": "", "told": None})


@router.post("/login")
async def login(request: Request, name: Field, password: Field, next: Field = "/") -> Response:
    reply = await call(request, "POST", "/login", {"name": name.strip(), "password": password})
    try:
        reply.checked()
    except PageError as error:
        told = " ".join(filter(None, (error.message, error.hint)))
        context = {"csrf": "", "next": local(next), "name": name, "told": told}
        return page("login.html", context, error.status)
    return add_cookies(RedirectResponse(local(next), 303), reply)


@router.post("/logout")
async def logout(request: Request, csrf: Field = "") -> Response:
    reply = await call(request, "POST", "/logout", csrf=csrf)
    reply.checked()
    return add_cookies(RedirectResponse("/login", 303), reply)


async def visitor(request: Request) -> dict[str, Any] | None:
    try:
        return await get(request, "/me")
    except PageError:
        return None


@router.get("/invite/{token}")
async def invite_page(request: Request, token: str) -> Response:
    invite = await get(request, f"/invites/{quote(token, safe='')}")
    me = await visitor(request)
    context = {"csrf": csrf_of(request), "invite": invite, "me": me, "name": "", "told": told_by(request)}
    return page("invite.html", context)


@router.post("/invite/{token}")
async def accept(request: Request, token: str, name: Field = "", password: Field = "", csrf: Field = "") -> Response:
    path = f"/invites/{quote(token, safe='')}"
    invite = await get(request, path)
    me = await visitor(request)
    body = {} if me else {"name": name.strip(), "password": password}
    reply = await call(request, "POST", f"{path}/accept", body, csrf=csrf)
    try:
        reply.checked()
    except PageError as error:
        told = " ".join(filter(None, (error.message, error.hint)))
        context = {"csrf": csrf, "invite": invite, "me": me, "name": name, "told": told}
        return page("invite.html", context, error.status)
    role, project = invite.get("role"), invite.get("project")
    then = "/" if not project else f"/p/{project}" + ("/judge" if role == "rater" else "")
    return add_cookies(RedirectResponse(then, 303), reply)
