"""Every test that asks for `store` runs on a real SQLite file and on a real PostgreSQL server."""

import shutil

import pytest
from helpers.postgres import postgres_server

from keel.store import tables
from keel.store.store import Store


@pytest.fixture(scope="session")
def postgres():
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres(postgres):
    name = postgres.database()
    Store.open(postgres.url(name)).close()
    return name


@pytest.fixture(scope="session")
def emptied_postgres(postgres, migrated_postgres):
    """A database that is emptied for each test, which takes a moment less than a new one."""
    return postgres.database(migrated_postgres)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory):
    path = tmp_path_factory.mktemp("migrated") / "studio.sqlite"
    Store.open(path).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The address of a database with empty tables, nobody connected."""
    if request.param == "sqlite":
        path = tmp_path / "studio.sqlite"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        return str(path)
    server, name = request.getfixturevalue("postgres"), request.getfixturevalue("emptied_postgres")
    rows = ", ".join(name for name in tables.metadata.tables)
    # as the superuser that it is: the triggers that keep rows rest meanwhile
    server.run(f"SET session_replication_role = replica; TRUNCATE {rows} RESTART IDENTITY", name)
    return server.url(name)


@pytest.fixture
def store(url):
    with Store.open(url) as store:
        yield store
