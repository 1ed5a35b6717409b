"""One's own account: tokens for programs and the password."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from keel.studio.pages.inside import PageRoute, act, add_cookies, call, get, onward
from keel.studio.pages.shell import myself, shown

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Field = Annotated[str, Form()]


@router.get("/account")
async def account(request: Request) -> Response:
    return await account_page(request)


async def account_page(request: Request, token: str | None = None) -> Response:
    me = await myself(request)
    return await shown(request, "account.html", {"tokens": await get(request, "/tokens"), "token": token}, me=me)


@router.post("/account/tokens")
async def new_token(request: Request, name: Field, csrf: Field = "") -> Response:
    reply = await call(request, "POST", "/tokens", {"name": name.strip()}, csrf=csrf)
    return await account_page(request, token=reply.checked()["token"])


@router.post("/account/tokens/{token}/revoke")
async def revoke(request: Request, token: int, csrf: Field = "") -> Response:
    return await act(request, "DELETE", f"/tokens/{token}", then="/account", told="The token is revoked.", csrf=csrf)


@router.post("/account/password")
async def password(request: Request, current: Field, new: Field, keep: Field = "", csrf: Field = "") -> Response:
    body = {"current": current, "new": new, "keep_tokens": keep == "true"}
    reply = await call(request, "POST", "/me/password", body, csrf=csrf)
    reply.checked()
    return add_cookies(onward("/account", "The password is changed."), reply)
