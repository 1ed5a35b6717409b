"""People: users of the installation, members of a project, invitations, the audit log."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from keel.core.errors import ConflictError
from keel.store.rows import AuditEntry, Membership, Project, User
from keel.store.store import Transaction
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Settings, audited
from keel.studio.api.models import Done, Id, Model, Note, Password, PathId, ProjectPath, Role, Skill, UserName, Word
from keel.studio.auth import hash_password, new_secret, secret_hash

router = APIRouter(tags=["people"])
DAY_S = 86_400.0


class UserShown(Model):
    id: int
    name: str
    email: str | None
    admin: bool
    active: bool
    kind: Literal["person", "model"]
    created: float


class NewUser(Model):
    name: UserName
    password: Annotated[Password | None, Field(description="Without one the user comes in by an invite only")] = None
    email: Annotated[str | None, Field(max_length=320)] = None
    admin: bool = False


class UserChange(Model):
    active: Annotated[bool | None, Field(description="false keeps the user out at once")] = None
    admin: bool | None = None
    password: Annotated[Password | None, Field(description="A new one; every session of the user ends")] = None


class MemberShown(Model):
    pseudonym: str
    """What others, exports and snapshots see."""
    user_id: int
    name: str
    """Told to leads only."""
    kind: Literal["person", "model"]
    role: Role
    skills: list[str]
    weight: float
    active: bool
    unlocked_round: int | None
    joined: float


class NewMember(Model):
    name: Annotated[UserName, Field(description="Of somebody who has an account")]
    role: Role = "rater"
    skills: tuple[Skill, ...] = ()


class MemberChange(Model):
    role: Role | None = None
    skills: tuple[Skill, ...] | None = None
    weight: Annotated[float | None, Field(ge=0, le=100, allow_inf_nan=False)] = None
    active: bool | None = None
    unlock: Annotated[Note | None, Field(min_length=3)] = None
    """Why the rater may judge without having passed calibration; kept in the log."""


class InviteWish(Model):
    role: Role = "rater"
    uses: Annotated[int, Field(ge=1, le=1000, description="How many people the link lets in")] = 1
    days: Annotated[float | None, Field(gt=0, le=365, description="Until it expires; the studio's usual if null")] = (
        None
    )
    skills: tuple[Skill, ...] = ()


class InviteMade(Model):
    url: str
    """Shown this once."""
    token: str
    role: Role
    uses: int
    expires: float


class OpenInvite(Model):
    """A link that still lets people in. What it is, is not kept: only its hash."""

    id: int
    role: Role
    skills: list[str]
    uses_left: int
    created: float
    expires: float


class AuditShown(Model):
    id: int
    at: float
    user: str | None
    """Name of who did it to admins, pseudonym to leads; null where keel did."""
    project: str | None
    action: str
    target: str
    details: dict[str, Any]


AuditLimit = Annotated[int, Query(ge=1, le=1000)]
Before = Annotated[Id | None, Query(description="Only entries with a smaller id: the next page")]


@router.get("/users")
def users(store: OpenStore, visit: Permitted) -> list[UserShown]:
    """Everybody with an account; erased ones are left out."""
    with store.reading() as tx:
        return [_user(user) for user in tx.people.users() if not user.erased]


@router.post("/users", status_code=201)
def create_user(store: OpenStore, visit: Permitted, given: NewUser) -> UserShown:
    """A new account."""
    hashed = hash_password(given.password) if given.password is not None else None
    with store.writing() as tx:
        user = tx.people.create_user(
            given.name, now=time.time(), email=given.email, admin=given.admin, password_hash=hashed
        )
        audited(tx, visit, "create user", f"user {user.id}", admin=given.admin)
    return _user(user)


@router.patch("/users/{id}")
def change_user(store: OpenStore, visit: Permitted, id: PathId, given: UserChange) -> UserShown:
    """Let somebody in or keep them out, make or unmake an admin, set a new password, which revokes their tokens."""
    hashed = hash_password(given.password) if given.password is not None else None
    with store.writing() as tx:
        if tx.people.user(id).erased:
            raise ConflictError(f"User {id} was erased; nothing can be changed.")
        if given.active is not None:
            tx.people.set_active(id, given.active)
        if given.admin is not None:
            tx.people.set_admin(id, given.admin)
        if hashed is not None:
            tx.people.set_password_hash(id, hashed)
        if hashed is not None or given.active is False:
            tx.access.end_sessions(id)
        if hashed is not None:
            tx.access.revoke_tokens(id, time.time())
        told = given.model_dump(exclude_none=True, exclude={"password"})
        audited(tx, visit, "change user", f"user {id}", **told, password=hashed is not None)
        return _user(tx.people.user(id))


@router.post("/users/{id}/erase")
def erase_user(store: OpenStore, visit: Permitted, id: PathId) -> Done:
    """Forget who somebody is, for good. Judgments stay under the pseudonym."""
    with store.writing() as tx:
        tx.people.erase(id, by=visit.user.id, now=time.time())  # the store notes it in the log
    store.sweep()
    return Done()


@router.get("/projects/{p}/members")
def members(store: OpenStore, visit: Permitted, p: ProjectPath) -> list[MemberShown]:
    """Who takes part, those who left included, with names: for leads only."""
    with store.reading() as tx:
        return [_member(tx, member) for member in tx.people.members(visit.of.id)]


@router.post("/projects/{p}/members", status_code=201)
def add_member(store: OpenStore, visit: Permitted, p: ProjectPath, given: NewMember) -> MemberShown:
    """Take somebody with an account into the project, under a fresh pseudonym."""
    with store.writing() as tx:
        user = tx.people.user_by_name(given.name)
        if user is None:
            hint = "Send them a link: POST /projects/{p}/invites"
            raise ApiError(404, f"Nobody with an account is called {given.name!r}.", field="name", hint=hint)
        member = tx.people.join(visit.of.id, user.id, given.role, now=time.time(), skills=given.skills)
        audited(tx, visit, "add member", member.pseudonym, role=given.role)
        return _member(tx, member)


@router.patch("/projects/{p}/members/{pseudonym}")
def change_member(
    store: OpenStore, visit: Permitted, p: ProjectPath, pseudonym: Word, given: MemberChange
) -> MemberShown:
    """Another role, other skills, another weight of the votes."""
    with store.writing() as tx:
        member = tx.people.by_pseudonym(visit.of.id, pseudonym)
        if given.role is not None:
            _keep_a_lead(tx, visit.of, member, stays=given.role == "lead")
            tx.people.set_role(visit.of.id, member.user_id, given.role)
        if given.skills is not None or given.weight is not None:
            skills = member.skills if given.skills is None else given.skills
            tx.people.set_skills(visit.of.id, member.user_id, skills, given.weight)
        if given.active is not None:
            _keep_a_lead(tx, visit.of, member, stays=given.active)
            tx.people.set_member_active(visit.of.id, member.user_id, given.active)
        if given.unlock is not None:
            passed = tx.rounds.newest_passed(visit.of.id)
            tx.people.unlock(visit.of.id, [member.user_id], passed.number if passed else 0)
        audited(tx, visit, "change member", pseudonym, **given.model_dump(exclude_none=True, mode="json"))
        return _member(tx, tx.people.by_pseudonym(visit.of.id, pseudonym))


@router.delete("/projects/{p}/members/{pseudonym}")
def remove_member(store: OpenStore, visit: Permitted, p: ProjectPath, pseudonym: Word) -> Done:
    """Let somebody go: what they held goes to others, what they said stays."""
    with store.writing() as tx:
        member = tx.people.by_pseudonym(visit.of.id, pseudonym)
        _keep_a_lead(tx, visit.of, member, stays=False)
        tx.people.set_member_active(visit.of.id, member.user_id, False)
        audited(tx, visit, "remove member", pseudonym)
    return Done()


@router.post("/projects/{p}/invites", status_code=201)
def invite(store: OpenStore, settings: Settings, visit: Permitted, p: ProjectPath, given: InviteWish) -> InviteMade:
    """A link that lets people in. It is shown this once."""
    secret, now = new_secret(), time.time()
    expires = now + (given.days or settings.invite_days) * DAY_S
    with store.writing() as tx:
        made = tx.access.create_invite(
            visit.of.id,
            given.role,
            secret_hash(secret),
            by=visit.user.id,
            now=now,
            expires=expires,
            uses=given.uses,
            skills=given.skills,
        )
        audited(tx, visit, "invite", f"invite {made.id}", role=given.role, uses=given.uses)
    return InviteMade(
        url=f"{settings.url}/invite/{secret}", token=secret, role=given.role, uses=given.uses, expires=expires
    )


@router.get("/projects/{p}/invites")
def invites(store: OpenStore, visit: Permitted, p: ProjectPath) -> list[OpenInvite]:
    """The links that still let people in, newest first."""
    with store.reading() as tx:
        found = tx.access.invites(visit.of.id, time.time())
    return [
        OpenInvite(
            id=invite.id,
            role=invite.role,
            skills=list(invite.skills),
            uses_left=invite.uses_left,
            created=invite.created,
            expires=invite.expires,
        )
        for invite in found
        if invite.role != "admin"
    ]


@router.delete("/projects/{p}/invites/{id}")
def revoke_invite(store: OpenStore, visit: Permitted, p: ProjectPath, id: PathId) -> Done:
    """Make a link useless; who came in by it stays."""
    with store.writing() as tx:
        tx.access.revoke_invite(id, visit.of.id)
        audited(tx, visit, "revoke invite", f"invite {id}")
    return Done()


@router.get("/audit")
def audit(store: OpenStore, visit: Permitted, limit: AuditLimit = 100, before: Before = None) -> list[AuditShown]:
    """Who did what in the whole installation, newest first."""
    with store.reading() as tx:
        names = {user.id: user.name for user in tx.people.users()}
        projects = {project.id: project.name for project in tx.projects.all()}
        return [_entry(entry, names, projects) for entry in tx.audit.find(before=before, limit=limit)]


@router.get("/projects/{p}/audit")
def project_audit(
    store: OpenStore, visit: Permitted, p: ProjectPath, limit: AuditLimit = 100, before: Before = None
) -> list[AuditShown]:
    """Who did what in this project, newest first."""
    with store.reading() as tx:
        names = {member.user_id: member.pseudonym for member in tx.people.members(visit.of.id)}
        found = tx.audit.find(project_id=visit.of.id, before=before, limit=limit)
    return [_entry(entry, names, {visit.of.id: visit.of.name}) for entry in found]


def _keep_a_lead(tx: Transaction, project: Project, member: Membership, *, stays: bool) -> None:
    leads = [other for other in tx.people.members(project.id) if other.role == "lead" and other.active]
    if not stays and [lead.user_id for lead in leads] == [member.user_id]:
        raise ConflictError(f"{member.pseudonym} is the only lead of this project. Make another one first.")


def _user(user: User) -> UserShown:
    return UserShown(
        id=user.id,
        name=user.name,
        email=user.email,
        admin=user.admin,
        active=user.active,
        kind=user.kind,
        created=user.created,
    )


def _member(tx: Transaction, member: Membership) -> MemberShown:
    user = tx.people.user(member.user_id)
    return MemberShown(
        pseudonym=member.pseudonym,
        user_id=member.user_id,
        name=user.name,
        kind=user.kind,
        role=member.role,
        skills=list(member.skills),
        weight=member.weight,
        active=member.active,
        unlocked_round=member.unlocked_round,
        joined=member.joined,
    )


def _entry(entry: AuditEntry, names: dict[int, str], projects: dict[int, str]) -> AuditShown:
    who = names.get(entry.user_id, "somebody outside the project") if entry.user_id is not None else None
    return AuditShown(
        id=entry.id,
        at=entry.at,
        user=who,
        project=projects.get(entry.project_id) if entry.project_id is not None else None,
        action=entry.action,
        target=entry.target,
        details=dict(entry.details),
    )
