"""The studio's database, opened: transactions, and the repositories that hang on them.

    store = Store.open("studio.sqlite")
    with store.writing() as tx:
        ann = tx.people.create_user("Ann", now=store.clock())

Any number of threads and processes may hold the same database open.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, CursorResult, Engine, Row, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.base import Executable

from keel.core.errors import MissingError
from keel.store.access import Access
from keel.store.audit import Audit
from keel.store.engine import WRITING, connect, parse, place_of, prepare_file
from keel.store.faults import busy, explained
from keel.store.items import Items
from keel.store.migrate import prepare
from keel.store.people import People
from keel.store.projects import Projects
from keel.store.rounds import Rounds
from keel.store.snapshots import Snapshots
from keel.store.votes import Work

LOCK_SPACE = 0x6B656573
"""First key of the advisory locks (PostgreSQL), the second being the project."""
LOCK = text("SELECT pg_advisory_xact_lock(:space, :project)")

# newest of what is stored; rows of the first three are written in the order of their times
NEWEST = text(
    """SELECT (SELECT created FROM judgments ORDER BY id DESC LIMIT 1) AS judged,
              (SELECT at FROM audit ORDER BY id DESC LIMIT 1) AS noted,
              (SELECT created FROM items ORDER BY id DESC LIMIT 1) AS added,
              (SELECT max(leased) FROM leases WHERE state = 'live') AS leased"""
)


class Transaction:
    """One unit of work. The repositories share it: what several of them write is on disk together or not at all."""

    def __init__(self, connection: Connection, place: str, hints: dict[tuple[int, int], list[int]]) -> None:
        self._connection = connection
        self._locked: set[int] = set()
        self._newest: float | None = None
        self.place = place
        self.hints = hints
        """Items that a long search for a (project, user) found and did not use; a hint only."""

    @cached_property
    def people(self) -> People:
        return People(self)

    @cached_property
    def access(self) -> Access:
        return Access(self)

    @cached_property
    def projects(self) -> Projects:
        return Projects(self)

    @cached_property
    def items(self) -> Items:
        return Items(self)

    @cached_property
    def work(self) -> Work:
        return Work(self)

    @cached_property
    def rounds(self) -> Rounds:
        return Rounds(self)

    @cached_property
    def snapshots(self) -> Snapshots:
        return Snapshots(self)

    @cached_property
    def audit(self) -> Audit:
        return Audit(self)

    def run(self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()) -> CursorResult:
        """Execute; a sequence of values runs the statement for each."""
        return self._connection.execute(statement, values or None)

    def rows(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Sequence[Row]:
        return self._connection.execute(statement, values).all()

    def first(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Row | None:
        return self._connection.execute(statement, values).first()

    def one(self, statement: Executable, missing: str, values: Mapping[str, Any] | None = None) -> Row:
        """The only row; MissingError with the message `missing` where there is none."""
        row = self._connection.execute(statement, values).first()
        if row is None:
            raise MissingError(missing)
        return row

    def insert(self, statement: Executable, values: Mapping[str, Any]) -> int:
        """Insert one row; its id."""
        key = self._connection.execute(statement, values).inserted_primary_key
        assert key is not None
        return key[0]

    def lock(self, project_id: int) -> bool:
        """Keep other writers of the project out until the end. SQLite has only one writer anyway.

        True where what was read before may have changed while this waited.
        """
        if self._connection.dialect.name != "postgresql" or project_id in self._locked:
            return False
        self._locked.add(project_id)
        self.run(LOCK, {"space": LOCK_SPACE, "project": project_id})
        self.projects.forget()
        return True

    def at(self, now: float) -> float:
        """`now`, or the newest stored time where that is later: stored times never run backwards."""
        if self._newest is None:
            self._newest = self.newest()
        self._newest = max(now, self._newest)
        return self._newest

    def newest(self) -> float:
        """The newest time of a judgment, a running lease, an item or an audit entry; 0 in an empty database."""
        row = self._connection.execute(NEWEST).one()
        return max((value for value in row if value is not None), default=0.0)


class Store:
    """A studio's database."""

    def __init__(self, engine: Engine, place: str, busy_s: float, wall: Callable[[], float]) -> None:
        self.place = place
        """Path or address, without a password."""
        self._engine = engine
        self._busy_s = busy_s
        self._wall = wall
        self._ahead = 0.0
        self._hints: dict[tuple[int, int], list[int]] = {}
        # SQLite lets waiting writers in at random; in one process they come in turn
        self._writer = threading.Lock() if engine.dialect.name == "sqlite" else None

    @classmethod
    def open(cls, url: str | Path, *, busy_s: float = 15.0, wall: Callable[[], float] = time.time) -> Self:
        """Open, begin or migrate the database at a path or address.

        `busy_s` is how long a writer waits for the others, `wall` the clock. ArtifactError where it cannot be used:
        damaged, of another program, of a newer keel, locked, unreachable.
        """
        address = parse(url)
        place = place_of(address)
        if address.get_backend_name() == "sqlite":
            prepare_file(Path(place), busy_s)
        engine = connect(address, busy_s)
        try:
            prepare(engine, place)
        except (DBAPIError, PoolTimeout) as error:
            engine.dispose()
            raise explained(error, place, busy_s) from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, place, busy_s, wall)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def clock(self) -> float:
        """UTC seconds, never less than the newest stored time.

        Where the wall clock was set back, it runs on from what is stored until the wall clock has caught up.
        """
        with self.reading() as tx:
            return self.clock_of(tx)

    def clock_of(self, tx: Transaction) -> float:
        """The same within a transaction, which asks for the newest time once; one that writes has its locks by then."""
        newest, wall = tx.at(0.0), self._wall()
        self._ahead = 0.0 if wall >= newest else max(self._ahead, newest - wall)
        return wall + self._ahead

    def sweep(self) -> None:
        """Empty SQLite's write-ahead log, which holds what was erased until others write over it."""
        if self._writer is None:
            return
        try:
            with closing(self._engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
            raise explained(error, self.place, self._busy_s) from error

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """One state of the database throughout; writing in it is an error on PostgreSQL."""
        options: dict[str, Any] = {}
        if self._engine.dialect.name == "postgresql":
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._transaction(options) as tx:
            yield tx

    @contextmanager
    def writing(self) -> Iterator[Transaction]:
        """On leaving without an error everything is on disk, else nothing is."""
        if self._writer is None:
            with self._transaction({WRITING: True}) as tx:
                yield tx
            return
        if not self._writer.acquire(timeout=self._busy_s):
            raise busy(self.place, self._busy_s)
        try:
            with self._transaction({WRITING: True}) as tx:
                yield tx
        finally:
            self._writer.release()

    @contextmanager
    def _transaction(self, options: Mapping[str, Any]) -> Iterator[Transaction]:
        try:
            with self._engine.connect().execution_options(**options) as connection, connection.begin():
                yield Transaction(connection, self.place, self._hints)
        except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
            raise explained(error, self.place, self._busy_s) from error
