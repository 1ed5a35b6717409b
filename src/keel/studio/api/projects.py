"""Projects: what they ask, how they are set, which guide raters follow."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field, ValidationError, create_model

from keel.core.errors import ConflictError
from keel.store.rows import Guide, Membership, Project, State
from keel.store.settings import ProjectSettings, Rationale
from keel.store.store import Transaction
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Visit, audited
from keel.studio.api.models import Id, Line, Model, Note, ProjectName, ProjectPath, Role, Text
from keel.studio.markdown import safe_html

router = APIRouter(tags=["projects"])
MOST_HIDDEN = 0.8
MOST_USD = 10_000.0
"""For one judgment; more is a slip of the keys, and infinity no sum."""


class RatingSettings(Model):
    """What a rater needs to know of the settings."""

    ties: bool
    both_bad: bool
    strength: bool
    rationale: Rationale
    lease_seconds: float


class ProjectLine(Model):
    """A project in a list."""

    name: ProjectName
    title: str
    state: State
    role: Role | Literal["admin"]
    created: float
    votes: int | None
    """Current votes; not told to raters."""
    votes_wanted: int | None


class ProjectShown(Model):
    name: ProjectName
    title: str
    state: State
    role: Role | Literal["admin"]
    pseudonym: str | None
    unlocked_round: int | None
    """Number of the calibration round that you passed."""
    guide_version: int
    created: float
    settings: ProjectSettings | RatingSettings
    """In full for leads, seniors and viewers; to raters what concerns them."""


class NewProject(Model):
    name: ProjectName
    title: Annotated[Line, Field(examples=["Help desk, spring"])]
    settings: ProjectSettings = ProjectSettings()
    guide: Annotated[Text | None, Field(description="First version of the guide, Markdown")] = None


# A default that is not validated stands for "left out"; null is refused wherever the setting has no None.
_fields: dict[str, Any] = {
    name: (field.annotation, Field(None, description=field.description))
    for name, field in ProjectSettings.model_fields.items()
}
SettingsChange: Any = create_model(
    "SettingsChange", __base__=Model, __doc__="Settings to change; those left out stay as they are.", **_fields
)


class ProjectChange(Model):
    title: Line | None = None
    settings: SettingsChange | None = None


class StateWish(Model):
    state: Literal["setup", "open", "paused", "closed"]
    override: Annotated[
        Note | None, Field(description="Why to open without a passed calibration; kept in the log", min_length=3)
    ] = None


class GuideText(Model):
    text: Annotated[Text, Field(min_length=1, examples=["# How to judge\n\nRead both answers to the end."])]


class GuideVersion(Model):
    version: int
    created: float
    by: str | None
    """Pseudonym of who wrote it, told to leads."""


class GuideShown(Model):
    version: int
    """0 and an empty text before the first."""
    text: str
    html: str
    created: float | None
    versions: list[GuideVersion]
    """Newest first."""


@router.get("/projects")
def projects(store: OpenStore, visit: Permitted) -> list[ProjectLine]:
    """Your projects; an admin's are all."""
    with store.reading() as tx:
        found = []
        for project in tx.projects.all_for(visit.user.id):
            member = tx.people.membership(project.id, visit.user.id)
            member = member if member and member.active else None
            role: Role | Literal["admin"] = member.role if member else "admin"
            told = tx.work.progress(project.id) if role != "rater" else None
            found.append(
                ProjectLine(
                    name=project.name,
                    title=project.title,
                    state=project.state,
                    role=role,
                    created=project.created,
                    votes=told.votes if told else None,
                    votes_wanted=told.votes_wanted if told else None,
                )
            )
        return found


@router.post("/projects", status_code=201)
def create_project(store: OpenStore, visit: Permitted, given: NewProject) -> ProjectShown:
    """A new project in the state `setup`, of which you are the lead."""
    now = time.time()
    with store.writing() as tx:
        project = tx.projects.create(
            given.name, given.title, checked_settings(given.settings), by=visit.user.id, now=now
        )
        if given.guide is not None:
            tx.projects.new_guide(project.id, given.guide, by=visit.user.id, now=now)
        audited(tx, visit, "create project", f"project {project.name}")
        return _shown(tx.projects.get(project.id), tx.people.membership(project.id, visit.user.id))


@router.get("/projects/{p}")
def project(visit: Permitted, p: ProjectPath) -> ProjectShown:
    """A project and what you are in it."""
    return _shown(visit.of, visit.membership)


@router.patch("/projects/{p}")
def change_project(store: OpenStore, visit: Permitted, p: ProjectPath, given: ProjectChange) -> ProjectShown:
    """Another title, or other settings."""
    with store.writing() as tx:
        now_set = tx.projects.get(visit.of.id).settings
        if given.title is not None:
            tx.projects.set_title(visit.of.id, given.title)
        changed = given.settings.model_dump(exclude_unset=True) if given.settings is not None else {}
        if changed:
            tx.projects.update_settings(visit.of.id, _merged(now_set, changed))
        audited(tx, visit, "change project", f"project {p}", title=given.title is not None, settings=changed)
        return _shown(tx.projects.get(visit.of.id), visit.membership)


@router.post("/projects/{p}/state")
def set_state(store: OpenStore, visit: Permitted, p: ProjectPath, given: StateWish) -> ProjectShown:
    """Open, pause or close a project. Opening needs a passed calibration round, or a reason that is kept."""
    with store.writing() as tx:
        if given.state == "open":
            _may_open(tx, visit.of, given.override)
        tx.projects.set_state(visit.of.id, given.state)
        details = {"state": given.state, "override": given.override}
        audited(tx, visit, "set state", f"project {p}", **details)
        return _shown(tx.projects.get(visit.of.id), visit.membership)


@router.get("/projects/{p}/guide")
def guide(
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    version: Annotated[Id | None, Query(description="The newest where left out")] = None,
) -> GuideShown:
    """A version of the guide, as Markdown and as safe HTML."""
    with store.reading() as tx:
        found = tx.projects.guide(visit.of.id, version)
        if found is None and version is not None:
            raise ApiError(404, f"The guide has no version {version}.", field="version")
        return _guide(tx, visit, found)


@router.post("/projects/{p}/guide", status_code=201)
def new_guide(store: OpenStore, visit: Permitted, p: ProjectPath, given: GuideText) -> GuideShown:
    """A new version of the guide. Raters see it with their next pair; judgments carry the version they were made by."""
    with store.writing() as tx:
        made = tx.projects.new_guide(visit.of.id, given.text, by=visit.user.id, now=time.time())
        audited(tx, visit, "new guide", f"guide {made.version}")
        return _guide(tx, visit, made)


def _may_open(tx: Transaction, project: Project, override: str | None) -> None:
    if project.state == "calibrating" and tx.rounds.current(project.id) is not None:
        raise ConflictError("A calibration round is open. Close it first; if it is passed, the project opens.")
    passed = any(past.state == "passed" for past in tx.rounds.all(project.id))
    if not passed and override is None:
        raise ApiError(
            409,
            "No calibration round was passed yet, so nobody knows whether the raters agree on what they are asked.",
            field="override",
            hint="Open a round, or give a reason as `override`; it is kept in the log.",
        )


def _merged(settings: ProjectSettings, changed: dict[str, Any]) -> ProjectSettings:
    try:
        merged = ProjectSettings.model_validate({**settings.model_dump(), **changed})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("settings", *first["loc"]))
        raise ApiError(422, str(first["msg"]), field=field) from error
    return checked_settings(merged)


def checked_settings(settings: ProjectSettings) -> ProjectSettings:
    """The settings, unless golden items and repeats leave no room for votes, or a vote costs more than anybody pays."""
    if settings.usd_per_judgment > MOST_USD:
        raise ApiError(
            422, f"Pay for one judgment: at most {MOST_USD:,.0f} US dollars.", field="settings.usd_per_judgment"
        )
    if settings.golden_share + settings.repeat_share > MOST_HIDDEN:
        raise ApiError(
            422,
            f"Golden items ({settings.golden_share:.0%}) and repeats ({settings.repeat_share:.0%}) together may be at "
            f"most {MOST_HIDDEN:.0%} of a rater's pairs.",
            field="settings.golden_share",
        )
    return settings


def _shown(project: Project, membership: Membership | None) -> ProjectShown:
    role: Role | Literal["admin"] = membership.role if membership else "admin"
    settings = project.settings
    told = {name: getattr(settings, name) for name in RatingSettings.model_fields}
    return ProjectShown(
        name=project.name,
        title=project.title,
        state=project.state,
        role=role,
        pseudonym=membership.pseudonym if membership else None,
        unlocked_round=membership.unlocked_round if membership else None,
        guide_version=project.guide_version,
        created=project.created,
        settings=RatingSettings(**told) if role == "rater" else settings,
    )


def _guide(tx: Transaction, visit: Visit, found: Guide | None) -> GuideShown:
    names = {m.user_id: m.pseudonym for m in tx.people.members(visit.of.id)} if visit.leads else {}
    versions = [
        GuideVersion(version=past.version, created=past.created, by=names.get(past.by) if past.by else None)
        for past in reversed(tx.projects.guides(visit.of.id))
    ]
    text = found.text if found else ""
    created = found.created if found else None
    version = found.version if found else 0
    return GuideShown(version=version, text=text, html=safe_html(text), created=created, versions=versions)
