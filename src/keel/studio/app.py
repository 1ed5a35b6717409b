"""The application: REST under /api/v1, pages for people, and what every answer has in common."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keel import __version__
from keel.store.store import Store
from keel.studio import pages
from keel.studio.api import router
from keel.studio.api.errors import add_handlers
from keel.studio.api.identity import SAFE, Visits
from keel.studio.auth import RateLimiter
from keel.studio.figures import Kept
from keel.studio.settings import MIB, StudioSettings
from keel.studio.shown import Recent, Shown
from keel.studio.writer import Writer

DESCRIPTION = """Everything that the studio's pages do: projects, items, votes, agreement, calibration, snapshots.

Sign in with `POST /api/v1/login` and send what it returns as `csrf` in the header `x-keel-csrf` with every request that
changes something; or send `Authorization: Bearer keel_...` with a token from `POST /api/v1/tokens`. Every refusal is
`{"error": {"message", "field"?, "hint"?}}`."""
JUDGING = ("/next", "/judgments", "/undo", "/release")
"""What raters send all the time; it changes nobody's rights."""
PROGRESS_S = 2.0
"""How long a rater's progress, told with a judgment, is told again with the next pair."""
STATIC = Path(__file__).parent / "static"
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; form-action 'self'; "
        "img-src 'self' data:"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def create_app(store: Store, settings: StudioSettings | None = None) -> FastAPI:
    """The studio on an open store, which the caller closes."""
    settings = settings or StudioSettings()
    app = FastAPI(
        title="keel studio",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # the usual viewers come from other sites
        redoc_url=None,
    )
    app.state.store = store
    app.state.settings = settings
    app.state.requests = RateLimiter(settings.requests_per_s, settings.requests_burst)
    app.state.logins = RateLimiter(settings.login_attempts / settings.login_window_s, settings.login_attempts)
    app.state.figures = Kept()
    app.state.visits = Visits()
    app.state.shown = Shown()
    app.state.progress = Recent(PROGRESS_S)
    app.state.writer = Writer(store)
    add_handlers(app)
    app.include_router(router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(Shell, settings=settings)
    return app


class Shell:
    """Around every request: a limit on its size, and headers that tell the browser what it may do with the answer."""

    def __init__(self, app: ASGIApp, settings: StudioSettings) -> None:
        self.app, self.settings = app, settings
        headers = dict(HEADERS)
        if settings.secure:
            headers["strict-transport-security"] = "max-age=31536000"
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        kept = scope["path"].startswith("/static/")
        changes = scope["method"] not in SAFE and not scope["path"].endswith(JUDGING)
        extra = self._headers if kept else [*self._headers, (b"cache-control", b"no-store")]

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                if changes:
                    scope["app"].state.visits.forget()
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in given)]
            await send(message)

        await self.app(scope, _limited(receive, self._most(scope)), sent)

    def _most(self, scope: Scope) -> int:
        imports = scope["method"] == "POST" and scope["path"].endswith("/items")
        return self.settings.max_import if imports else self.settings.max_body


def _limited(receive: Receive, most: int) -> Receive:
    taken = 0

    async def limited() -> Any:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            size = f"{most // MIB} MiB" if most >= MIB else f"{most // 1024} KiB"
            raise HTTPException(413, f"The request is larger than {size}. Send it in several parts.")
        return message

    return limited
