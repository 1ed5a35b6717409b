"""The connection to a studio's database: where it is, whose it is, and how its transactions begin.

SQLite: WAL, full synchronisation, foreign keys, BEGIN IMMEDIATE for writers, so that a writer never fails for having
read first. Keep the file on a local disk; network file systems break WAL. PostgreSQL: psycopg 3; writers of one project
follow each other by an advisory lock.
"""

import os
import sqlite3
import time
import weakref
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from keel.core.errors import ArtifactError, ConfigError
from keel.store.database import APPLICATION as QUEUE
from keel.store.database import BUSY
from keel.store.faults import explained

APPLICATION = 0x6B656573
"""`kees` in ASCII, at byte 68 of every SQLite file of a studio (PRAGMA application_id)."""
WRITING = "keel_writing"
"""Execution option of a connection whose transaction will write."""
POOL = 8
OVERFLOW = 24
"""Connections kept, and made on top of them while many are needed."""

_engines: "weakref.WeakSet[Engine]" = weakref.WeakSet()


def _forget_connections() -> None:
    for engine in _engines:
        engine.dispose(close=False)  # they are the parent's


os.register_at_fork(after_in_child=_forget_connections)


def parse(url: str | Path) -> URL:
    """The address of a database; a bare path is an SQLite file. ConfigError for a kind that keel does not know."""
    text = str(url)
    if "://" not in text:
        if not text.strip():
            raise ConfigError("The database has no name. Give a path such as studio.sqlite, or postgresql://host/name.")
        return URL.create("sqlite", database=text)
    try:
        address = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError("This is no address of a database. Give a path, sqlite:///path or postgresql://…") from None
    if address.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return address.set(drivername="postgresql+psycopg")
    if address.drivername == "sqlite" and address.database and address.database != ":memory:":
        return address
    raise ConfigError(
        f"keel cannot use {address.render_as_string(hide_password=True)!r} as a database. Expected a path, "
        "sqlite:///path or postgresql://user@host/name."
    )


def connect(address: URL, busy_s: float) -> Engine:
    """An engine for the address; the file or server must be there (`prepare_file`)."""
    pool: dict[str, Any] = {"poolclass": QueuePool, "pool_size": POOL, "max_overflow": OVERFLOW, "pool_timeout": busy_s}
    pool["pool_use_lifo"] = True  # the connection used last has its statements prepared
    if address.get_backend_name() == "sqlite":
        engine = create_engine(address, connect_args={"timeout": busy_s, "check_same_thread": False}, **pool)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        try:
            engine = create_engine(address, pool_pre_ping=True, **pool)
        except ModuleNotFoundError as error:
            raise ConfigError("PostgreSQL needs psycopg: pip install 'keel-rlhf[postgres]'.") from error
        event.listen(engine, "connect", _set_up_postgresql(busy_s))
    _engines.add(engine)
    return engine


def place_of(address: URL) -> str:
    """How messages name the database: the path, or the address without its password."""
    if address.get_backend_name() == "sqlite":
        return address.database or ""
    return address.set(drivername="postgresql").render_as_string(hide_password=True)


def prepare_file(path: Path, busy_s: float) -> None:
    """Begin or check the SQLite file and switch it to WAL; ArtifactError for another program's or a damaged one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{path.parent}: cannot make the folder of the database ({error.strerror}).") from error
    # Names and password hashes will be in it, for nobody else on this machine to read; WAL takes its rights over. What
    # is wrong with the path SQLite says below, in the words of every other failure.
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(path, timeout=busy_s, isolation_level=None)) as connection:
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            if application == QUEUE:
                raise ArtifactError(
                    f"{path}: the judging queue of a run, not a studio's database. Give the studio a file of its own, "
                    "or answer this one with keel judge."
                )
            # a file that another process begins at this moment has tables and number only together
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION and (application or version or tables) and _is_foreign(connection):
                raise ArtifactError(
                    f"{path}: an SQLite file of another program, keel leaves it alone. Give another path; keel begins "
                    "a new file there."
                )
            _use_wal(connection, busy_s)
    except sqlite3.Error as error:
        raise explained(error, str(path), busy_s) from error


def _is_foreign(connection: sqlite3.Connection) -> bool:
    """The number read once more: it may have come between the two readings."""
    return connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION


def _use_wal(connection: sqlite3.Connection, busy_s: float) -> None:
    """Switch to WAL once for all; two processes that begin a file together do not wait for each other here."""
    end = time.monotonic() + busy_s
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says so
    pragmas = ("foreign_keys = ON", "synchronous = FULL", "cache_size = -16000", "temp_store = MEMORY")
    for pragma in (*pragmas, "secure_delete = ON"):  # what is erased is overwritten, not only unlinked
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get(WRITING, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _set_up_postgresql(busy_s: float) -> Any:
    def set_up(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {round(busy_s * 1000)}")
            cursor.execute("SET client_min_messages = warning")
        connection.commit()

    return set_up
