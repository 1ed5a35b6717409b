"""One SQLite file that several processes write at once: opened, checked, migrated, and every failure explained.

A connection lives as long as one transaction, so nothing is left to close, and forks and threads share nothing. The
file is in WAL mode with full synchronisation: what a transaction wrote is on disk when it returns, and a process killed
in the middle of one leaves the file as it was before. Keep it on a local disk; network file systems break WAL.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from keel.core.errors import ArtifactError

APPLICATION = 0x6B65656C
"""`keel` in ASCII, at byte 68 of every file of ours (PRAGMA application_id)."""
BUSY_S = 60.0
"""How long a writer waits for the others."""

Migration = Sequence[str]
"""SQL statements that lead from one version of the tables to the next, all of them or none."""


class Database:
    """A file whose tables are those of `migrations`; its version is their number (PRAGMA user_version)."""

    def __init__(self, path: Path, migrations: Sequence[Migration]) -> None:
        """Opens or begins the file. ArtifactError for a damaged one, another program's, or one of a newer keel."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            version = self._version(connection, len(migrations))
            self._use_wal(connection)
        if version < len(migrations):
            self._migrate(migrations)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the file throughout."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection that is the only writer; on leaving without an error everything is on disk, else nothing."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            # isolation_level None: transactions begin and end where this file says so
            with closing(sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)) as connection:
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA synchronous = FULL")
                yield connection
        except sqlite3.Error as error:
            raise ArtifactError(f"{self.path}: {_explained(error)}") from error

    def _version(self, connection: sqlite3.Connection, known: int) -> int:
        """The version of the tables, 0 in an empty file."""
        fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if fault != "ok":
            raise ArtifactError(f"{self.path}: {DAMAGED} ({fault}).")
        connection.execute("BEGIN")
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        connection.execute("COMMIT")
        if application != APPLICATION and (application or version or tables):
            raise ArtifactError(
                f"{self.path}: an SQLite file of another program, keel leaves it alone. Move it away; keel begins a "
                "new one."
            )
        if version > known:
            raise ArtifactError(
                f"{self.path}: version {version} of its tables, written by a newer keel; this one knows up to {known}. "
                "Upgrade keel, or use the one that wrote the file."
            )
        return version

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Switch to WAL once for all; two processes that begin a file together do not wait for each other here."""
        end = time.monotonic() + BUSY_S
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        """Bring the tables up to date, a transaction a version."""
        for number, statements in enumerate(migrations, start=1):
            with self.writing() as connection:
                if connection.execute("PRAGMA user_version").fetchone()[0] >= number:
                    continue  # another process was faster
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {number}")


BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
DAMAGED = (
    "the file is damaged or is no SQLite file. Restore it from a copy, or move it away; keel begins a new one, and "
    "what was answered in this one is then unknown to it"
)


def _explained(error: sqlite3.Error) -> str:
    """What went wrong and what to do, from SQLite's primary error code."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in BUSY:
        return f"another process has been writing for {BUSY_S:.0f} s. Stop it, and give the same command again."
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}:
        return f"{DAMAGED} ({error})."
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full. Nothing already answered is lost: free some space and give the same command again."
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return f"cannot be written ({error}). Give this user the right to write the file and its folder."
    if code == sqlite3.SQLITE_IOERR:
        return (
            f"{error}: the disk is full or failing, or a limit on the size of files is reached. Nothing already "
            "answered is lost: put it right and give the same command again."
        )
    return f"{error}. Nothing already answered is lost."
