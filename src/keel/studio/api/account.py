"""Signing in and out, invitations, one's own password and API tokens."""

import time
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from keel.core.errors import ConflictError
from keel.store.rows import Session, Token, User
from keel.store.store import Transaction
from keel.store.texts import name_key
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Settings, address, audited, note
from keel.studio.api.models import Done, Line, Model, Password, PathId, ProjectName, Role, UserName
from keel.studio.auth import (
    SESSION_COOKIE,
    RateLimiter,
    csrf_token,
    hash_password,
    new_secret,
    new_token,
    password_matches,
    secret_hash,
)
from keel.studio.settings import StudioSettings

router = APIRouter(tags=["account"])
DAY_S = 86_400.0
InviteSecret = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{20,100}$", description="The last part of the link")]


class Credentials(Model):
    name: UserName
    password: Annotated[str, Field(max_length=200, json_schema_extra={"format": "password"})]


class SignedIn(Model):
    """The session is in the cookie; `csrf` goes into the header x-keel-csrf of every request that changes something."""

    id: int
    name: str
    admin: bool
    csrf: str


class Place(Model):
    """A project that somebody is in."""

    project: ProjectName
    title: str
    role: Role
    pseudonym: str


class Me(Model):
    id: int
    name: str
    email: str | None
    admin: bool
    projects: list[Place]


class NewPassword(Model):
    current: Annotated[str, Field(max_length=200)]
    new: Password
    keep_tokens: bool = False
    """Whether API tokens stay valid; without it whoever else had one is locked out too."""


class TokenWish(Model):
    name: Annotated[Line, Field(description="What it is for", examples=["nightly export"])]
    days: Annotated[float | None, Field(gt=0, le=3650, description="Until it expires; null is never")] = 90


class TokenShown(Model):
    id: int
    name: str
    created: float
    expires: float | None
    used: float | None
    revoked: float | None


class NewTokenShown(TokenShown):
    token: str
    """Shown this once."""


class InviteShown(Model):
    """What an invitation leads to."""

    project: ProjectName | None
    title: str | None
    role: str
    expires: float


class Newcomer(Model):
    """Who accepts an invitation. Somebody signed in leaves it out and joins as they are."""

    name: UserName | None = None
    password: Password | None = None
    email: Annotated[str | None, Field(max_length=320, examples=["ann@example.org"])] = None


class Accepted(Model):
    id: int
    name: str
    project: ProjectName | None
    role: str
    csrf: str | None


@router.post("/login")
def login(request: Request, response: Response, store: OpenStore, settings: Settings, given: Credentials) -> SignedIn:
    """Sign in with name and password. Failed attempts are limited by name and by address."""
    limits, keys = request.app.state.logins, _login_keys(request, given.name)
    waits = [limits.wait_s(key, cost) for key, cost in keys]
    if max(waits) > 0:
        _give_back(limits, keys, waits)
        raise ApiError(429, "Too many failed attempts.", hint="Wait, then try again.", retry_after_s=max(waits))
    with store.reading() as tx:
        user = tx.people.user_by_name(given.name)
        stored = tx.people.password_hash(user.id) if user and user.active else None
    if not password_matches(given.password, stored) or user is None:
        raise ApiError(401, "Name or password is wrong.", hint="Lost it? A lead or admin can set a new one.")
    _give_back(limits, keys, waits)
    with store.writing() as tx:
        csrf = begin_session(tx, response, settings, user)
        note(tx, user, "login", f"user {user.id}", {}, None)
    return SignedIn(id=user.id, name=user.name, admin=user.admin, csrf=csrf)


@router.post("/logout")
def logout(response: Response, store: OpenStore, visit: Permitted) -> Done:
    """End this session."""
    if visit.identity is None or visit.identity.token is not None:
        raise ApiError(400, "A token has no session to end.", hint="Revoke it: DELETE /api/v1/tokens/{id}")
    with store.writing() as tx:
        tx.access.end_session(secret_hash(visit.identity.secret))
        audited(tx, visit, "logout", f"user {visit.user.id}")
    response.delete_cookie(SESSION_COOKIE)
    return Done()


@router.get("/me")
def me(store: OpenStore, visit: Permitted) -> Me:
    """Who you are and where you take part."""
    user, places = visit.user, []
    with store.reading() as tx:
        for project in tx.projects.all_for(user.id):
            member = tx.people.membership(project.id, user.id)
            if member is not None and member.active:
                names = {"project": project.name, "title": project.title}
                places.append(Place(**names, role=member.role, pseudonym=member.pseudonym))
    return Me(id=user.id, name=user.name, email=user.email, admin=user.admin, projects=places)


@router.post("/me/password")
def change_password(
    request: Request, response: Response, store: OpenStore, settings: Settings, visit: Permitted, given: NewPassword
) -> SignedIn:
    """Set a new password; every other session of yours ends, and your API tokens are revoked unless you keep them."""
    user = visit.user
    key = f"password {user.id}"
    if (wait_s := request.app.state.logins.wait_s(key)) > 0:
        raise ApiError(429, "Too many failed attempts.", hint="Wait, then try again.", retry_after_s=wait_s)
    with store.reading() as tx:
        stored = tx.people.password_hash(user.id)
    if not password_matches(given.current, stored):
        raise ApiError(403, "The current password is wrong.", field="current")
    request.app.state.logins.give_back(key)
    hashed = hash_password(given.new)
    with store.writing() as tx:
        tx.people.set_password_hash(user.id, hashed)
        tx.access.end_sessions(user.id)
        revoked = 0 if given.keep_tokens else tx.access.revoke_tokens(user.id, time.time())
        csrf = begin_session(tx, response, settings, user)
        audited(tx, visit, "change password", f"user {user.id}", tokens_revoked=revoked)
    return SignedIn(id=user.id, name=user.name, admin=user.admin, csrf=csrf)


@router.get("/tokens")
def tokens(store: OpenStore, visit: Permitted) -> list[TokenShown]:
    """Your API tokens; what they are is not kept, only their hash."""
    with store.reading() as tx:
        return [_token(token) for token in tx.access.tokens(visit.user.id)]


@router.post("/tokens", status_code=201)
def create_token(store: OpenStore, visit: Permitted, given: TokenWish) -> NewTokenShown:
    """A token that may do what you may. It is shown this once; a token cannot make further ones."""
    if visit.identity is None or visit.identity.token is not None:
        raise ApiError(403, "A token cannot make tokens.", hint="Sign in with name and password.")
    secret, now = new_token(), time.time()
    with store.writing() as tx:
        expires = None if given.days is None else now + given.days * DAY_S
        token = tx.access.create_token(visit.user.id, given.name, secret_hash(secret), now=now, expires=expires)
        audited(tx, visit, "create token", f"token {token.id}")
    return NewTokenShown(**_token(token).model_dump(), token=secret)


@router.delete("/tokens/{id}")
def revoke_token(store: OpenStore, visit: Permitted, id: PathId) -> Done:
    """Make one of your tokens useless."""
    with store.writing() as tx:
        tx.access.revoke_token(id, visit.user.id, time.time())
        audited(tx, visit, "revoke token", f"token {id}")
    return Done()


@router.get("/invites/{token}")
def invite(store: OpenStore, token: InviteSecret) -> InviteShown:
    """What a link leads to."""
    with store.reading() as tx:
        found = tx.access.invite_by_hash(secret_hash(token), time.time())
        if found is None:
            raise ApiError(404, NO_INVITE, hint="Ask for a new one.")
        project = tx.projects.get(found.project_id) if found.project_id is not None else None
    return InviteShown(
        project=project.name if project else None,
        title=project.title if project else None,
        role=found.role,
        expires=found.expires,
    )


NO_INVITE = "This invite link is unknown, used up or too old."


@router.post("/invites/{token}/accept")
def accept_invite(
    response: Response,
    store: OpenStore,
    settings: Settings,
    visit: Permitted,
    token: InviteSecret,
    given: Newcomer | None = None,
) -> Accepted:
    """Take up an invitation: as a new user with name and password, or as the one who is signed in."""
    now, known = time.time(), visit.identity.user if visit.identity else None
    if known is None and (given is None or given.name is None or given.password is None):
        raise ApiError(422, "A name and a password are needed.", hint="Or sign in first and open the link again.")
    with store.reading() as tx:
        if tx.access.invite_by_hash(secret_hash(token), now) is None:  # before the work of hashing
            raise ApiError(404, NO_INVITE, hint="Ask for a new one.")
    hashed = hash_password(given.password) if known is None and given and given.password else None
    with store.writing() as tx:
        user = known or _newcomer(tx, given, hashed, now)
        taken = tx.access.take_invite(secret_hash(token), user.id, now)
        project = tx.projects.get(taken.project_id) if taken.project_id is not None else None
        csrf = begin_session(tx, response, settings, user) if known is None else None
        member = tx.people.membership(project.id, user.id) if project else None
        role = member.role if member else taken.role  # who is in the project already keeps their role
        note(tx, user, "accept invite", f"invite {taken.id}", {"role": role}, project)
    name = project.name if project else None
    return Accepted(id=user.id, name=user.name, project=name, role=role, csrf=csrf)


def begin_session(tx: Transaction, response: Response, settings: StudioSettings, user: User) -> str:
    """Set the cookie of a new session; its CSRF token."""
    secret, now = new_secret(), time.time()
    lasts_s = settings.session_days * DAY_S
    session: Session = tx.access.create_session(
        user.id, secret_hash(secret), csrf_token(secret), now=now, expires=now + lasts_s
    )
    response.set_cookie(
        SESSION_COOKIE, secret, max_age=round(lasts_s), path="/", httponly=True, samesite="lax", secure=settings.secure
    )
    return session.csrf


def _newcomer(tx: Transaction, given: Newcomer | None, hashed: str | None, now: float) -> User:
    assert given is not None
    assert given.name is not None
    try:
        return tx.people.create_user(given.name, now=now, email=given.email, password_hash=hashed)
    except ConflictError as error:
        hint = "If that is you, sign in first and open the link again."
        raise ApiError(409, str(error), field="name", hint=hint) from error


def _login_keys(request: Request, name: str) -> list[tuple[str, float]]:
    """What a failed login is charged to: one name from one address, and a fifth each the name and the address, so that
    neither guessing one password from everywhere nor one password for everybody gets far.
    """
    here, name = address(request), name_key(name)
    return [(f"{name} from {here}", 1.0), (f"name {name}", 0.2), (f"address {here}", 0.2)]


def _give_back(limits: RateLimiter, keys: list[tuple[str, float]], waits: list[float]) -> None:
    for (key, cost), wait_s in zip(keys, waits, strict=True):
        if wait_s == 0:
            limits.give_back(key, cost)


def _token(token: Token) -> TokenShown:
    return TokenShown(
        id=token.id,
        name=token.name,
        created=token.created,
        expires=token.expires,
        used=token.used,
        revoked=token.revoked,
    )
