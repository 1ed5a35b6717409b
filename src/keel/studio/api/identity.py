"""Who asks, and whether they may: from a cookie or a bearer token to a row of the access table."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from keel.core.errors import AccessError
from keel.store.access import USED_EVERY_S
from keel.store.rows import Membership, Project, Token, User
from keel.store.store import Store, Transaction
from keel.studio.api.access import ACCESS, Caller
from keel.studio.api.errors import ApiError
from keel.studio.api.models import is_project_name
from keel.studio.auth import CSRF_HEADER, SESSION_COOKIE, csrf_matches, secret_hash
from keel.studio.settings import StudioSettings

PREFIX = "/api/v1"
STRANGERS: frozenset[Caller] = frozenset({"stranger"})
OUTSIDERS: frozenset[Caller] = frozenset({"outsider"})
VISIT_S = 2.0
MOST_VISITS = 10_000
Scheme: TypeAlias = Literal["session", "token"]
SAFE = ("GET", "HEAD", "OPTIONS")
NOT_SIGNED_IN = "You are not signed in, or your session or token is no longer valid."
HOW_TO_SIGN_IN = "Sign in again with POST /api/v1/login, or send the header Authorization: Bearer keel_..."


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A signed-in user."""

    user: User
    secret: str
    """The session or the token in plain, for this request only."""
    token: Token | None
    """None for a session."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Visit:
    """One permitted request: who asks, of which project, as what."""

    identity: Identity | None
    project: Project | None
    membership: Membership | None
    callers: frozenset[Caller]

    @property
    def user(self) -> User:
        if self.identity is None:
            raise AccessError(NOT_SIGNED_IN)
        return self.identity.user

    @property
    def of(self) -> Project:
        """The project that the address names."""
        assert self.project is not None
        return self.project

    @property
    def member(self) -> Membership:
        """Of somebody who judges."""
        assert self.membership is not None
        return self.membership

    @property
    def leads(self) -> bool:
        return bool(self.callers & {"lead", "admin"})


STRANGER = Visit(identity=None, project=None, membership=None, callers=STRANGERS)


def store_of(request: Request) -> Store:
    return request.app.state.store


def settings_of(request: Request) -> StudioSettings:
    return request.app.state.settings


def visits_of(request: Request) -> "Visits":
    return request.app.state.visits


def address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


class Visits:
    """Who is who, kept for `VISIT_S`: a rater's requests come in quick succession, all from the same session.

    The application forgets all of it with every change that it makes itself, so only what another process changes
    (a command on the terminal, a second server) takes `VISIT_S` to be felt.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str | None], tuple[float, Visit]] = {}
        self._generation = 0

    def kept(self, key: tuple[str, str | None]) -> Visit | None:
        until, visit = self._found.get(key, (0.0, None))
        return visit if time.monotonic() < until else None

    def keep(self, key: tuple[str, str | None], visit: Visit, generation: int) -> None:
        """Unless something was forgotten since `generation`."""
        with self._lock:
            if generation == self._generation:
                if len(self._found) >= MOST_VISITS:
                    self._found.clear()
                self._found[key] = (time.monotonic() + VISIT_S, visit)

    @property
    def generation(self) -> int:
        return self._generation

    def forget(self) -> None:
        with self._lock:
            self._generation += 1
            self._found.clear()


async def permitted(request: Request) -> Visit:
    """The visit, where the access table allows it. Tells strangers 401, outsiders 404 and members 403."""
    allowed = ACCESS.get((request.method, request.scope["route"].path.removeprefix(PREFIX)), frozenset())
    visits, name = visits_of(request), request.path_params.get("p")
    scheme, secret = credentials(request)
    visit = visits.kept((f"{scheme} {secret}", name)) if secret else STRANGER
    if visit is None:
        generation = visits.generation
        visit = await run_in_threadpool(look_up, store_of(request), scheme, secret, name)
        if visit.identity is not None:
            visits.keep((f"{scheme} {secret}", name), visit, generation)
    _take_turn(request, visit.identity)
    if visit.identity is not None and scheme == "session" and not csrf_given(request, secret):
        if "stranger" not in allowed:
            raise ApiError(403, f"The header {CSRF_HEADER} is missing or not of this session.", hint=HOW_TO_SIGN_IN)
        visit = STRANGER
    if not visit.callers & allowed or (name is not None and visit.project is None):
        _refuse(name, visit, allowed)
    return visit


Permitted: TypeAlias = Annotated[Visit, Depends(permitted)]
OpenStore: TypeAlias = Annotated[Store, Depends(store_of)]
Settings: TypeAlias = Annotated[StudioSettings, Depends(settings_of)]


def credentials(request: Request) -> tuple[Scheme, str]:
    """What is sent to be recognised by; an Authorization header goes before a cookie."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return "token", given.strip()
    return "session", request.cookies.get(SESSION_COOKIE, "")


def look_up(store: Store, scheme: Scheme, secret: str, name: str | None) -> Visit:
    """Who that is, and in the project of that name; the stranger for what is not valid (any more)."""
    now = time.time()
    with store.reading() as tx:
        identity = identify(tx, scheme, secret, now)
        if identity is None:
            return STRANGER
        project = tx.projects.by_name(name) if name is not None and is_project_name(name) else None
        membership, callers = callers_in(tx, identity, project)
    token = identity.token
    if token is not None and (token.used is None or now - token.used >= USED_EVERY_S):
        with store.writing() as tx:
            tx.access.note_use(token, now)
    return Visit(identity=identity, project=project, membership=membership, callers=callers)


def identify(tx: Transaction, scheme: Scheme, secret: str, now: float) -> Identity | None:
    """The user of a session or token that is valid now."""
    if scheme == "token":
        token = tx.access.token_by_hash(secret_hash(secret), now)
        return Identity(user=tx.people.user(token.user_id), secret=secret, token=token) if token else None
    session = tx.access.session_by_hash(secret_hash(secret), now)
    return Identity(user=tx.people.user(session.user_id), secret=secret, token=None) if session else None


def csrf_given(request: Request, secret: str) -> bool:
    return request.method in SAFE or csrf_matches(secret, request.headers.get(CSRF_HEADER, ""))


def callers_in(
    tx: Transaction, identity: Identity, project: Project | None
) -> tuple[Membership | None, frozenset[Caller]]:
    """What somebody is to a project; outside of projects an admin or an outsider."""
    membership = tx.people.membership(project.id, identity.user.id) if project else None
    if membership is not None and not membership.active:
        membership = None
    roles: set[Caller] = {"admin"} if identity.user.admin else set()
    if membership is not None:
        roles.add(membership.role)
    return membership, frozenset(roles) or OUTSIDERS


def audited(tx: Transaction, visit: Visit, action: str, target: str, **details: Any) -> None:
    """Note in the log that the visitor did this; no names in it, so that erasing a person works."""
    note(tx, visit.identity.user if visit.identity else None, action, target, details, visit.project)


def note(
    tx: Transaction, user: User | None, action: str, target: str, details: Mapping[str, Any], project: Project | None
) -> None:
    tx.audit.add(
        action,
        at=time.time(),
        user_id=user.id if user else None,
        project_id=project.id if project else None,
        target=target,
        details=details,
    )


def _take_turn(request: Request, identity: Identity | None) -> None:
    key = f"user {identity.user.id}" if identity else f"from {address(request)}"
    wait_s = request.app.state.requests.wait_s(key)
    if wait_s > 0:
        raise ApiError(429, "Too many requests at once.", hint="Wait a moment.", retry_after_s=wait_s)


def _refuse(name: str | None, visit: Visit, allowed: frozenset[Caller]) -> None:
    callers = visit.callers
    if "stranger" in callers:
        raise ApiError(401, NOT_SIGNED_IN, hint=HOW_TO_SIGN_IN)
    if name is not None and (visit.project is None or callers == OUTSIDERS):
        raise ApiError(404, "There is no such project, or you are not in it.", field="p")
    if callers == {"admin"} and allowed:
        raise ApiError(403, "Whoever judges is a member. Join the project first.", hint="POST /projects/{p}/members")
    may = " or ".join(sorted(allowed)) or "nobody"
    raise ApiError(403, f"This is for {may}; you are {' and '.join(sorted(callers))} here.")
