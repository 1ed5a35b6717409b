"""API tokens, invite links and logged-in browsers. Of their secrets the database knows only hashes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Row, delete, insert, select, update

from keel.core.errors import ConflictError, DataError, MissingError
from keel.store import tables
from keel.store.rows import ROLES, Invite, Role, Session, Token
from keel.store.texts import checked_name, skill_key, strings_of

if TYPE_CHECKING:
    from keel.store.store import Transaction

TOKENS, INVITES, SESSIONS = tables.tokens, tables.invites, tables.sessions
USED_EVERY_S = 60.0
"""A token's last use is noted at most so often: no write for every request."""


class Access:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx

    def create_token(
        self, user_id: int, name: str, token_hash: str, *, now: float, expires: float | None = None
    ) -> Token:
        values = {"user_id": user_id, "name": checked_name(name, "The token's name"), "token_hash": token_hash}
        number = self._tx.insert(insert(TOKENS), {**values, "created": now, "expires": expires})
        return _token(self._tx.one(select(TOKENS).where(TOKENS.c.id == number), ""))

    def token_by_hash(self, token_hash: str, now: float) -> Token | None:
        """The token if it is valid now: neither expired nor revoked, its user active."""
        query = (
            select(TOKENS)
            .join(tables.users, tables.users.c.id == TOKENS.c.user_id)
            .where(TOKENS.c.token_hash == token_hash, TOKENS.c.revoked.is_(None), tables.users.c.active)
        )
        row = self._tx.first(query)
        return None if row is None or (row.expires is not None and row.expires <= now) else _token(row)

    def note_use(self, token: Token, now: float) -> None:
        """Note when a token was last used; nothing is written where that was under a minute ago."""
        if token.used is None or now - token.used >= USED_EVERY_S:
            self._tx.run(update(TOKENS).where(TOKENS.c.id == token.id).values(used=now))

    def tokens(self, user_id: int) -> list[Token]:
        return [_token(row) for row in self._tx.rows(select(TOKENS).where(TOKENS.c.user_id == user_id))]

    def revoke_token(self, token_id: int, user_id: int, now: float) -> None:
        """MissingError where the user has no such token."""
        query = update(TOKENS).where(TOKENS.c.id == token_id, TOKENS.c.user_id == user_id, TOKENS.c.revoked.is_(None))
        if not self._tx.run(query.values(revoked=now)).rowcount:
            raise MissingError(f"You have no token {token_id} in use.")

    def revoke_tokens(self, user_id: int, now: float) -> int:
        """Make all tokens of a user useless; how many were in use."""
        query = update(TOKENS).where(TOKENS.c.user_id == user_id, TOKENS.c.revoked.is_(None))
        return self._tx.run(query.values(revoked=now)).rowcount

    def create_invite(
        self,
        project_id: int | None,
        role: Role | Literal["admin"],
        token_hash: str,
        *,
        by: int | None,
        now: float,
        expires: float,
        uses: int = 1,
        skills: Iterable[str] = (),
    ) -> Invite:
        """A link into a project, or with `project_id` None one that makes an administrator."""
        if (role not in ROLES) if project_id is not None else (role != "admin"):
            raise DataError(f"{role!r} is no role to invite somebody to. Expected one of {', '.join(ROLES)}.")
        if not 1 <= uses <= 1000:
            raise DataError(f"uses={uses}: an invite link can be used 1 to 1000 times.")
        values = {
            "project_id": project_id,
            "role": role,
            "skills": skill_key(skills),
            "token_hash": token_hash,
            "uses_left": uses,
            "created": now,
            "expires": expires,
            "by_user": by,
        }
        number = self._tx.insert(insert(INVITES), values)
        return _invite(self._tx.one(select(INVITES).where(INVITES.c.id == number), ""))

    def invite_by_hash(self, token_hash: str, now: float) -> Invite | None:
        """The invite if it can still be used."""
        row = self._tx.first(
            select(INVITES).where(INVITES.c.token_hash == token_hash, INVITES.c.uses_left > 0, INVITES.c.expires > now)
        )
        return None if row is None else _invite(row)

    def invites(self, project_id: int | None, now: float) -> list[Invite]:
        """Those that can still be used, newest first."""
        query = select(INVITES).where(INVITES.c.project_id.is_not_distinct_from(project_id))
        usable = query.where(INVITES.c.uses_left > 0, INVITES.c.expires > now).order_by(INVITES.c.id.desc())
        return [_invite(row) for row in self._tx.rows(usable)]

    def revoke_invite(self, invite_id: int, project_id: int | None) -> None:
        query = update(INVITES).where(INVITES.c.id == invite_id, INVITES.c.project_id.is_not_distinct_from(project_id))
        if not self._tx.run(query.values(uses_left=0)).rowcount:
            raise MissingError(f"There is no invite {invite_id} here.")

    def take_invite(self, token_hash: str, user_id: int, now: float) -> Invite:
        """Use a link: the user joins the project, or becomes administrator. An active member leaves it unused.

        MissingError for a link that is unknown, used up or too old; ConflictError for somebody who was taken out of the
        project, whom only a lead lets in again.
        """
        query = update(INVITES).where(
            INVITES.c.token_hash == token_hash, INVITES.c.uses_left > 0, INVITES.c.expires > now
        )
        invite = self.invite_by_hash(token_hash, now)
        if invite is not None and invite.project_id is not None:
            member = self._tx.people.membership(invite.project_id, user_id)
            if member is not None and member.active:
                return invite
            if member is not None:
                raise ConflictError("You were taken out of this project. Ask its lead to let you in again.")
        if invite is None or not self._tx.run(query.values(uses_left=INVITES.c.uses_left - 1)).rowcount:
            raise MissingError("This invite link is unknown, used up or too old. Ask for a new one.")
        if invite.project_id is None:
            self._tx.people.set_admin(user_id, True)
        elif invite.role != "admin":
            self._tx.people.join(invite.project_id, user_id, invite.role, now=now, skills=invite.skills)
        return invite

    def create_session(self, user_id: int, session_hash: str, csrf: str, *, now: float, expires: float) -> Session:
        """A logged-in browser; the user's sessions that are over are forgotten."""
        self._tx.run(delete(SESSIONS).where(SESSIONS.c.user_id == user_id, SESSIONS.c.expires <= now))
        values = {"user_id": user_id, "session_hash": session_hash, "csrf": csrf, "created": now, "expires": expires}
        number = self._tx.insert(insert(SESSIONS), values)
        return Session(id=number, user_id=user_id, csrf=csrf, created=now, expires=expires)

    def session_by_hash(self, session_hash: str, now: float) -> Session | None:
        """The session if it is valid now and its user active."""
        query = (
            select(SESSIONS)
            .join(tables.users, tables.users.c.id == SESSIONS.c.user_id)
            .where(SESSIONS.c.session_hash == session_hash, SESSIONS.c.expires > now, tables.users.c.active)
        )
        row = self._tx.first(query)
        if row is None:
            return None
        return Session(id=row.id, user_id=row.user_id, csrf=row.csrf, created=row.created, expires=row.expires)

    def end_session(self, session_hash: str) -> None:
        self._tx.run(delete(SESSIONS).where(SESSIONS.c.session_hash == session_hash))

    def end_sessions(self, user_id: int) -> None:
        """Log the user out everywhere."""
        self._tx.run(delete(SESSIONS).where(SESSIONS.c.user_id == user_id))


def _token(row: Row) -> Token:
    return Token(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        created=row.created,
        expires=row.expires,
        used=row.used,
        revoked=row.revoked,
    )


def _invite(row: Row) -> Invite:
    return Invite(
        id=row.id,
        project_id=row.project_id,
        role=row.role,
        skills=strings_of(row.skills),
        uses_left=row.uses_left,
        created=row.created,
        expires=row.expires,
        by=row.by_user,
    )
