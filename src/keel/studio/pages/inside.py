"""The pages' way to data: the studio's own REST API, called within the process.

A page therefore shows and does exactly what the API allows to the same person, by the same rules, limits and audit log;
nothing is decided twice, and whatever a page does can be done by a program.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from keel.studio.api.identity import SAFE
from keel.studio.auth import CSRF_HEADER, SESSION_COOKIE, csrf_token
from keel.studio.pages.render import page

TOLD_COOKIE = "keel_told"
"""What the next page tells: the result of the form that was just sent."""


class PageError(Exception):
    """The API refused; the person is told why on a page."""

    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer of the API."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content) if self.content else None

    def checked(self) -> Any:
        """The JSON; a refusal is raised."""
        if self.status < 400:
            return self.json()
        error = (self.json() or {}).get("error", {})
        raise PageError(self.status, error.get("message", "The studio could not do that."), error.get("hint"))

    def cookies(self) -> list[bytes]:
        return [value for name, value in self.headers if name.lower() == b"set-cookie"]


async def call(
    request: Request,
    method: str,
    path: str,
    body: Any = None,
    *,
    csrf: str = "",
    query: Mapping[str, Any] | None = None,
    raw: tuple[str, bytes] | None = None,
) -> Reply:
    """The API's answer to `request`'s person. `raw` is (content type, bytes) in place of a JSON body."""
    kind, content = raw or ("application/json", b"" if body is None else json.dumps(body).encode())
    target = "/api/v1" + path
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode())]
    headers += [(CSRF_HEADER.encode(), csrf.encode("ascii", "ignore"))] if csrf else []
    headers += [(n, v) for n, v in request.scope["headers"] if n in (b"cookie", b"host", b"user-agent", b"origin")]
    wanted = {name: value for name, value in (query or {}).items() if value not in (None, "")}
    scope = {
        **{name: request.scope.get(name) for name in ("asgi", "http_version", "scheme", "client", "server")},
        "type": "http",
        "method": method,
        "path": target,
        "raw_path": quote(target).encode(),
        "root_path": "",
        "query_string": urlencode(wanted, doseq=True).encode(),
        "headers": headers,
    }
    started: dict[str, Any] = {}
    pieces: list[bytes] = []
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            started.update(status=message["status"], headers=tuple(message["headers"]))
        elif message["type"] == "http.response.body":
            pieces.append(message.get("body", b""))

    await request.app(scope, receive, send)
    return Reply(status=started["status"], headers=started["headers"], content=b"".join(pieces))


async def get(request: Request, path: str, **query: Any) -> Any:
    """The JSON at an address of the API."""
    return (await call(request, "GET", path, query=query)).checked()


def csrf_of(request: Request) -> str:
    """What this session's pages send back with every form; empty for strangers."""
    secret = request.cookies.get(SESSION_COOKIE)
    return csrf_token(secret) if secret else ""


async def act(
    request: Request, method: str, path: str, body: Any = None, *, then: str, told: str | None = None, csrf: str
) -> Response:
    """Does it through the API and goes on to the page `then`, which tells `told`."""
    (await call(request, method, path, body, csrf=csrf)).checked()
    return onward(then, told)


def onward(then: str, told: str | None = None) -> Response:
    answer = RedirectResponse(then, 303)
    if told:
        answer.set_cookie(TOLD_COOKIE, quote(told), max_age=60, httponly=True, samesite="lax")
    return answer


ELSEWHERE = ("cross-site", "same-site")
"""What browsers say of a form on another site; signing in needs no session, so no token guards it."""
LIVE, THEN = "x-keel-live", "x-keel-then"


def for_script(request: Request, answer: Response) -> Response:
    """A form that a script sends is told where to go on, and goes there itself: a redirect that fetch follows would
    show the next page, and what it tells, to nobody.
    """
    if LIVE in request.headers and answer.status_code == 303:
        then = answer.headers["location"]
        kept = [(name, value) for name, value in answer.raw_headers if name == b"set-cookie"]
        answer = Response(status_code=204, headers={THEN: then})
        answer.raw_headers.extend(kept)
    return answer


def _from_elsewhere(request: Request) -> bool:
    """Whether another site sent a form, as far as the browser says: over plain http it sends the origin alone."""
    if (site := request.headers.get("sec-fetch-site")) is not None:
        return site in ELSEWHERE
    origin = request.headers.get("origin")
    own = {request.headers.get("host"), urlsplit(request.app.state.settings.public_url or "").netloc}
    return origin is not None and urlsplit(origin).netloc not in own - {"", None}


class PageRoute(APIRoute):
    """A page: what the API refuses becomes a page too, and strangers are led to the door."""

    def get_route_handler(self) -> Any:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            if request.method not in SAFE and _from_elsewhere(request):
                return refused(request, PageError(403, "This form was sent by another site. Open the studio itself."))
            try:
                return for_script(request, await handle(request))
            except RequestValidationError as error:
                field = error.errors()[0]["loc"][-1]
                return refused(request, PageError(422, f"{field}: {error.errors()[0]['msg']}."))
            except PageError as error:
                if error.status == 401:
                    back = request.url.path if request.method == "GET" else "/"
                    return RedirectResponse(f"/login?next={quote(back)}", 303)
                return refused(request, error)

        return handled


def refused(request: Request, error: PageError) -> HTMLResponse:
    """The refusal as a page."""
    titles = {403: "This is not open to you", 404: "There is nothing here", 429: "Too fast"}
    context = {
        "csrf": csrf_of(request),
        "title": titles.get(error.status, "That did not work"),
        "message": error.message,
        "hint": error.hint,
        "back": request.headers.get("referer"),
    }
    return page("message.html", context, error.status)


def add_cookies(answer: Response, reply: Reply) -> Response:
    """The API's cookies, passed on to the browser."""
    for value in reply.cookies():
        answer.raw_headers.append((b"set-cookie", value))
    return answer


def told_by(request: Request) -> str | None:
    """What the last form has to tell, if anything."""
    text = request.cookies.get(TOLD_COOKIE)
    return unquote(text) if text else None


def forget_told(answer: Response) -> Response:
    answer.delete_cookie(TOLD_COOKIE)
    return answer
