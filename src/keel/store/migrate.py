"""Bring a studio's database to the version this keel knows, one transaction a step, whoever else opens it meanwhile."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from keel.core.errors import ArtifactError
from keel.store.engine import WRITING
from keel.store.migrations import REVISIONS
from keel.store.tables import VERSION_TABLE

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x6B656573
"""Key of the advisory lock (PostgreSQL) that whoever migrates holds."""


def prepare(engine: Engine, place: str) -> None:
    """Migrate where needed. ArtifactError for a database of a newer keel or of another program."""
    with engine.connect() as connection:
        version = _version(connection, place)
    for revision in REVISIONS[_steps(version) :]:
        with engine.connect().execution_options(**{WRITING: True}) as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            now = _version(connection, place)
            if _steps(now) < _steps(revision):  # else another process was faster
                _upgrade(connection, revision)


def _steps(version: str | None) -> int:
    return 0 if version is None else REVISIONS.index(version) + 1


def _version(connection: Connection, place: str) -> str | None:
    """The revision of the tables, None in an empty database."""
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        if tables:
            raise ArtifactError(
                f"{place}: holds tables of another program ({', '.join(sorted(tables)[:3])}), keel leaves it alone. "
                "Give keel a database of its own."
            )
        return None
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
    if version is not None and version not in REVISIONS:
        raise ArtifactError(
            f"{place}: version {version} of its tables, written by a newer keel; this one knows up to {REVISIONS[-1]}. "
            "Upgrade keel, or use the one that wrote it."
        )
    return version


def _upgrade(connection: Connection, revision: str) -> None:
    from alembic import command  # a third of a second, and needed only when there is something to do
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    command.upgrade(config, revision)
