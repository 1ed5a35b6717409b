"""Projects, their settings and their guides."""

import re
from typing import TYPE_CHECKING

from sqlalchemy import Row, bindparam, insert, select, update

from keel.core.errors import ConflictError, DataError
from keel.store import tables
from keel.store.rows import STATES, Guide, Project, State
from keel.store.settings import ProjectSettings
from keel.store.slots import restate
from keel.store.texts import checked, checked_name

if TYPE_CHECKING:
    from keel.store.store import Transaction

PROJECTS, GUIDES = tables.projects, tables.guides
BY_ID = select(PROJECTS).where(PROJECTS.c.id == bindparam("project"))
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


class Projects:
    def __init__(self, tx: "Transaction") -> None:
        self._tx = tx
        self._known: dict[int, Project] = {}

    def create(self, name: str, title: str, settings: ProjectSettings, *, by: int | None, now: float) -> Project:
        """A new project in the state `setup`; `by`, if anybody, becomes its lead."""
        if not NAME.fullmatch(checked(name, "The project's name", 200)):
            raise DataError(
                f"{name!r} is no name for a project: expected 1 to 60 lower-case letters, digits, - and _, such as "
                "helpdesk-2024. The title may be any text."
            )
        if self.by_name(name) is not None:
            raise ConflictError(f"There is a project called {name!r} already. Choose another name.")
        values = {
            "name": name,
            "title": checked_name(title, "The project's title", 200),
            "state": "setup",
            "settings": settings.model_dump_json(),
            "guide_version": 0,
            "created": self._tx.at(now),
        }
        number = self._tx.insert(insert(PROJECTS), values)
        if by is not None:
            self._tx.people.join(number, by, "lead", now=now)
        return self.get(number)

    def get(self, project_id: int) -> Project:
        if project_id not in self._known:
            row = self._tx.one(BY_ID, f"There is no project {project_id}.", {"project": project_id})
            self._known[project_id] = project_of(row)
        return self._known[project_id]

    def forget(self) -> None:
        """Read projects anew from now on."""
        self._known.clear()

    def by_name(self, name: str) -> Project | None:
        row = self._tx.first(select(PROJECTS).where(PROJECTS.c.name == name))
        return None if row is None else project_of(row)

    def all(self) -> list[Project]:
        return [project_of(row) for row in self._tx.rows(select(PROJECTS).order_by(PROJECTS.c.name))]

    def all_for(self, user_id: int) -> list[Project]:
        """Those that the user is in; for an administrator all."""
        if self._tx.people.user(user_id).admin:
            return self.all()
        member = tables.memberships
        query = select(PROJECTS).join(member, member.c.project_id == PROJECTS.c.id)
        mine = query.where(member.c.user_id == user_id, member.c.active).order_by(PROJECTS.c.name)
        return [project_of(row) for row in self._tx.rows(mine)]

    def set_state(self, project_id: int, state: State) -> Project:
        """Which states may follow which is for whoever calls to know."""
        if state not in STATES:
            raise DataError(f"{state!r} is no state of a project. Expected one of {', '.join(STATES)}.")
        return self._change(project_id, state=state)

    def set_title(self, project_id: int, title: str) -> Project:
        return self._change(project_id, title=checked_name(title, "The project's title", 200))

    def update_settings(self, project_id: int, settings: ProjectSettings) -> Project:
        """Replace the settings; another overlap changes which items are complete."""
        self._tx.lock(project_id)
        overlap = self.get(project_id).settings.overlap
        project = self._change(project_id, settings=settings.model_dump_json())
        if settings.overlap != overlap:
            restate(self._tx, project_id, settings.overlap)
        return project

    def new_guide(self, project_id: int, text: str, *, by: int | None, now: float) -> Guide:
        """Append a version of the guide; leases given from now on carry it."""
        self._tx.lock(project_id)
        version = self.get(project_id).guide_version + 1
        values = {
            "project_id": project_id,
            "version": version,
            "text": checked(text, "The guide"),
            "by_user": by,
            "created": self._tx.at(now),
        }
        self._tx.run(insert(GUIDES).values(**values))
        self._change(project_id, guide_version=version)
        return Guide(project_id=project_id, version=version, text=text, by=by, created=values["created"])

    def guide(self, project_id: int, version: int | None = None) -> Guide | None:
        """A version of the guide, by default the newest; None where there is none."""
        query = select(GUIDES).where(GUIDES.c.project_id == project_id)
        if version is not None:
            query = query.where(GUIDES.c.version == version)
        row = self._tx.first(query.order_by(GUIDES.c.version.desc()).limit(1))
        return None if row is None else _guide(row)

    def guides(self, project_id: int) -> list[Guide]:
        """Every version, oldest first."""
        query = select(GUIDES).where(GUIDES.c.project_id == project_id).order_by(GUIDES.c.version)
        return [_guide(row) for row in self._tx.rows(query)]

    def _change(self, project_id: int, **values: object) -> Project:
        self.forget()
        self._tx.run(update(PROJECTS).where(PROJECTS.c.id == project_id).values(**values))
        return self.get(project_id)


def project_of(row: Row) -> Project:
    """A row of `projects`."""
    return Project(
        id=row.id,
        name=row.name,
        title=row.title,
        state=row.state,
        settings=ProjectSettings.model_validate_json(row.settings),
        guide_version=row.guide_version,
        created=row.created,
    )


def _guide(row: Row) -> Guide:
    return Guide(project_id=row.project_id, version=row.version, text=row.text, by=row.by_user, created=row.created)
