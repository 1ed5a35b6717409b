"""Users and what they are in each project."""

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from keel.core.errors import ConflictError, DataError, MissingError
from keel.store import tables
from keel.store.rows import ROLES, Membership, Role, User
from keel.store.texts import checked, checked_name, checked_or_none, name_key, number, skill_key, strings_of

if TYPE_CHECKING:
    from keel.store.store import Transaction

USERS, MEMBERS = tables.users, tables.memberships
# with whether the user is an administrator
EACH = select(MEMBERS, USERS.c.admin).join(USERS, USERS.c.id == MEMBERS.c.user_id)
MEMBER = EACH.where(MEMBERS.c.project_id == bindparam("project"), MEMBERS.c.user_id == bindparam("user"))
INSIDERS = ("senior", "lead")
"""Roles that may read votes and known answers. Who had one stays an insider in another."""

SHADES = "amber azure coral copper cream ebony golden green grey hazel indigo ivory jade lilac lime maroon mint navy"
SHADES += " ochre olive pearl pink plum ruby rust sand silver teal umber violet white wine"
BIRDS = "avocet bunting crane curlew dipper dove dunlin eider finch gannet godwit grebe gull heron hobby ibis jackdaw"
BIRDS += " kestrel kite lapwing lark linnet magpie merlin osprey ouzel owl petrel pipit plover puffin quail raven robin"
BIRDS += " rook shrike siskin skua snipe stork swan swift teal tern thrush wagtail warbler wren"


class People:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx

    def create_user(
        self,
        name: str,
        *,
        now: float,
        email: str | None = None,
        admin: bool = False,
        kind: Literal["person", "model"] = "person",
        password_hash: str | None = None,
    ) -> User:
        """A new user. ConflictError where somebody has the name, whatever its letter case."""
        name = checked_name(name, "The user's name")
        if self.user_by_name(name) is not None:
            raise ConflictError(f"There is a user called {name!r} already. Choose another name.")
        values = {
            "name": name,
            "name_key": name_key(name),
            "email": checked_or_none(email, "The e-mail address", 320),
            "admin": admin,
            "active": True,
            "kind": kind,
            "password_hash": password_hash,
            "created": self._tx.at(now),
        }
        return self.user(self._tx.insert(insert(USERS), values))

    def user(self, user_id: int) -> User:
        return _user(self._tx.one(select(USERS).where(USERS.c.id == user_id), f"There is no user {user_id}."))

    def user_by_name(self, name: str) -> User | None:
        row = self._tx.first(select(USERS).where(USERS.c.name_key == name_key(name)))
        return None if row is None else _user(row)

    def users(self) -> list[User]:
        """Everybody, in the order they came, the erased included."""
        return [_user(row) for row in self._tx.rows(select(USERS).order_by(USERS.c.id))]

    def any_admin(self) -> bool:
        return self._num_admins() > 0

    def password_hash(self, user_id: int) -> str | None:
        """None where the user has no password and can log in only by token."""
        return self._tx.one(select(USERS.c.password_hash).where(USERS.c.id == user_id), f"There is no user {user_id}.")[
            0
        ]

    def set_password_hash(self, user_id: int, password_hash: str) -> None:
        self._change(user_id, password_hash=password_hash)

    def set_active(self, user_id: int, active: bool) -> None:
        """Let the user in or keep them out. ConflictError for the last administrator."""
        if not active:
            self._keep_an_admin(user_id)
        self._change(user_id, active=active)

    def set_admin(self, user_id: int, admin: bool) -> None:
        """Who was one could read all that is told to leads, and stays an insider where they are a member."""
        if not admin:
            self._keep_an_admin(user_id)
            if self.user(user_id).admin:
                self._tx.run(update(MEMBERS).where(MEMBERS.c.user_id == user_id).values(insider=True))
        self._change(user_id, admin=admin)

    def erase(self, user_id: int, *, by: int | None, now: float) -> None:
        """Forget who somebody is: name, e-mail, password, tokens and sessions go, and nothing brings them back.

        Their judgments stay under the pseudonym, and what they held goes to others.
        """
        if self.user(user_id).erased:
            return
        self._keep_an_admin(user_id)
        for member in self._tx.rows(select(MEMBERS.c.project_id).where(MEMBERS.c.user_id == user_id)):
            self._tx.work.release_all(member.project_id, user_id)
        for table in (tables.tokens, tables.sessions):
            self._tx.run(delete(table).where(table.c.user_id == user_id))
        self._tx.run(update(MEMBERS).where(MEMBERS.c.user_id == user_id).values(active=False))
        self._change(
            user_id,
            name=f"erased-{user_id}",
            name_key=None,
            email=None,
            password_hash=None,
            admin=False,
            active=False,
            erased=self._tx.at(now),
        )
        self._tx.audit.add("erase", at=now, user_id=by, target=f"user {user_id}")

    def join(
        self,
        project_id: int,
        user_id: int,
        role: Role,
        *,
        now: float,
        skills: Iterable[str] = (),
        weight: float = 1.0,
    ) -> Membership:
        """Make the user a member under a fresh pseudonym; one who is or was keeps theirs and takes the new role."""
        self._tx.lock(project_id)
        if self.user(user_id).erased:
            raise ConflictError(f"User {user_id} was erased and cannot join. Create a new user.")
        values = {"role": _role(role), "skills": skill_key(skills), "weight": _weight(weight), "active": True}
        if self.membership(project_id, user_id) is None:
            names = {"project_id": project_id, "user_id": user_id, "pseudonym": self._pseudonym(project_id)}
            self._tx.run(insert(MEMBERS).values(**names, **values, joined=self._tx.at(now), insider=role in INSIDERS))
        else:
            self._change_member(project_id, user_id, **values, **_of_role(role))
        return self._member(project_id, user_id)

    def membership(self, project_id: int, user_id: int) -> Membership | None:
        """None for somebody who never joined; look at `active` too."""
        row = self._tx.first(MEMBER, {"project": project_id, "user": user_id})
        return None if row is None else member_of(row)

    def by_pseudonym(self, project_id: int, pseudonym: str) -> Membership:
        query = EACH.where(MEMBERS.c.project_id == project_id, MEMBERS.c.pseudonym == pseudonym)
        return member_of(self._tx.one(query, f"Nobody in this project is called {pseudonym!r}."))

    def members(self, project_id: int) -> list[Membership]:
        """In the order they joined, those who left included."""
        query = EACH.where(MEMBERS.c.project_id == project_id).order_by(MEMBERS.c.joined, MEMBERS.c.user_id)
        return [member_of(row) for row in self._tx.rows(query)]

    def set_role(self, project_id: int, user_id: int, role: Role) -> None:
        self._change_member(project_id, user_id, role=_role(role), **_of_role(role))

    def set_skills(self, project_id: int, user_id: int, skills: Iterable[str], weight: float | None = None) -> None:
        self._change_member(project_id, user_id, skills=skill_key(skills))
        if weight is not None:
            self._change_member(project_id, user_id, weight=_weight(weight))

    def set_member_active(self, project_id: int, user_id: int, active: bool) -> None:
        """Let somebody back in, or out: what they hold then goes to others, what they said stays."""
        self._tx.lock(project_id)
        if not active:
            self._tx.work.release_all(project_id, user_id)
        self._change_member(project_id, user_id, active=active)

    def unlock(self, project_id: int, user_ids: Iterable[int], round_number: int) -> None:
        """Note that these raters passed calibration in that round."""
        for user_id in user_ids:
            self._change_member(project_id, user_id, unlocked_round=round_number)

    def _member(self, project_id: int, user_id: int) -> Membership:
        member = self.membership(project_id, user_id)
        if member is None:
            raise MissingError(f"User {user_id} is not in project {project_id}.")
        return member

    def _change_member(self, project_id: int, user_id: int, **values: object) -> None:
        query = update(MEMBERS).where(MEMBERS.c.project_id == project_id, MEMBERS.c.user_id == user_id)
        if not self._tx.run(query.values(**values)).rowcount:
            raise MissingError(f"User {user_id} is not in project {project_id}.")

    def _change(self, user_id: int, **values: object) -> None:
        if not self._tx.run(update(USERS).where(USERS.c.id == user_id).values(**values)).rowcount:
            raise MissingError(f"There is no user {user_id}.")

    def _num_admins(self) -> int:
        return self._tx.rows(select(func.count()).select_from(USERS).where(USERS.c.admin, USERS.c.active))[0][0]

    def _keep_an_admin(self, user_id: int) -> None:
        user = self.user(user_id)
        if user.admin and user.active and self._num_admins() == 1:
            raise ConflictError(f"User {user_id} is the only administrator. Make another one first.")

    def _pseudonym(self, project_id: int) -> str:
        """Two words drawn at random, so that nothing can be read from them, not even who came first."""
        taken = {row[0] for row in self._tx.rows(select(MEMBERS.c.pseudonym).where(MEMBERS.c.project_id == project_id))}
        number_of_digits = 0
        while True:
            name = f"{secrets.choice(SHADES.split())}-{secrets.choice(BIRDS.split())}"
            if number_of_digits:
                name += f"-{secrets.randbelow(10**number_of_digits)}"
            if name not in taken:
                return name
            number_of_digits += 1


def member_of(row: Row) -> Membership:
    """A row of `memberships` with the user's `admin`."""
    return Membership(
        user_id=row.user_id,
        project_id=row.project_id,
        role=row.role,
        pseudonym=row.pseudonym,
        skills=strings_of(row.skills),
        weight=row.weight,
        active=row.active,
        unlocked_round=row.unlocked_round,
        joined=row.joined,
        insider=row.insider or row.admin,
    )


def _user(row: Row) -> User:
    return User(
        id=row.id,
        name=row.name,
        email=row.email,
        admin=row.admin,
        active=row.active,
        created=row.created,
        kind=row.kind,
        erased=row.erased is not None,
    )


def _role(role: str) -> str:
    if role not in ROLES:
        raise DataError(f"{checked(role, 'The role', 100)!r} is no role. Expected one of {', '.join(ROLES)}.")
    return role


def _of_role(role: str) -> dict[str, bool]:
    """What taking a role changes besides the role."""
    return {"insider": True} if role in INSIDERS else {}


def _weight(weight: float) -> float:
    if number(weight, "The weight of a rater") < 0:
        raise DataError(f"The weight of a rater is {weight}, expected at least 0.")
    return float(weight)
