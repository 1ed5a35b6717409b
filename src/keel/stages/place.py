"""Where a studio's project and its snapshots are: `STUDIO::PROJECT` and `STUDIO::PROJECT@SNAPSHOT`.

STUDIO is a SQLite file, a database URL (postgresql+psycopg://…), or for delivery the web address of a running studio.
SNAPSHOT is the name of a snapshot, or at least 8 digits of its hash. Two colons tell a project from a path.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from keel.core.errors import ConfigError

MARK = "::"
PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")
WRITE = "Write STUDIO::PROJECT or STUDIO::PROJECT@SNAPSHOT, as in studio.sqlite::help@week-1."


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A project of a studio, and perhaps a snapshot of it."""

    studio: str
    project: str
    snapshot: str | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """What `text` says; ConfigError where it says no project."""
        studio, mark, rest = text.rpartition(MARK)
        project, at, snapshot = rest.partition("@")
        if not mark or not studio or not PROJECT.fullmatch(project) or (at and not snapshot):
            raise ConfigError(f"{without_password(text)!r} names no project of a studio. {WRITE}")
        return cls(studio=studio, project=project, snapshot=snapshot or None)

    @property
    def served(self) -> bool:
        """Whether the studio is asked over HTTP, not opened as a database."""
        return self.studio.startswith(("http://", "https://"))

    @property
    def is_file(self) -> bool:
        return "://" not in self.studio

    def below(self, folder: Path) -> Self:
        """The same with a relative file taken from `folder` where it does not stand here."""
        if not self.is_file or Path(self.studio).expanduser().exists() or not (folder / self.studio).exists():
            return self
        return type(self)(studio=str(folder / self.studio), project=self.project, snapshot=self.snapshot)

    @property
    def address(self) -> str:
        """The place as it is written, password and all."""
        return f"{self.studio}{MARK}{self.project}" + (f"@{self.snapshot}" if self.snapshot else "")

    def __str__(self) -> str:
        return without_password(self.address)


def names_place(path: str) -> bool:
    """Whether a path of a recipe means a studio's snapshot."""
    return MARK in path and not Path(path).expanduser().exists()


def without_password(text: str) -> str:
    """A database URL as it may be shown."""
    return re.sub(r"(://[^:/@]+):[^@/]+@", r"\1:***@", text)
