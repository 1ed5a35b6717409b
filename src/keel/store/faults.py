"""What a database says went wrong, in words that say what to do."""

import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from keel.core.errors import ArtifactError, ConflictError, KeelError
from keel.store.database import BUSY

KEPT = "Nothing that was acknowledged is lost"
DAMAGED = (
    f"the file is damaged or is no SQLite file. {KEPT} to a copy: restore the newest one, or move the file away and "
    "begin anew"
)


def explained(error: DBAPIError | PoolTimeout | sqlite3.Error, place: str, busy_s: float) -> KeelError:
    """An error of the driver as one of ours; `place` names the database without a password."""
    if isinstance(error, PoolTimeout):
        return ArtifactError(f"{place}: every connection has been in use for {busy_s:.0f} s. Try again.")
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return _of_sqlite(original, place, busy_s)
    return _of_postgresql(original, place, busy_s)


def busy(place: str, busy_s: float) -> ArtifactError:
    """Another writer holds the database for longer than anybody waits."""
    return ArtifactError(
        f"{place}: another process has been writing for {busy_s:g} s. Nothing was changed: stop that process, or try "
        "again when it is done."
    )


def _of_sqlite(error: sqlite3.Error, place: str, busy_s: float) -> KeelError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in BUSY:
        return busy(place, busy_s)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}:
        return ArtifactError(f"{place}: {DAMAGED} ({error}).")
    if code == sqlite3.SQLITE_FULL:
        return ArtifactError(f"{place}: the disk is full. {KEPT}: free some space and do the same again.")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return ArtifactError(
            f"{place}: cannot be written ({error}). Give this user the right to write the file and its folder."
        )
    if code == sqlite3.SQLITE_IOERR:
        return ArtifactError(
            f"{place}: {error}: the disk is full or failing, or a limit on the size of files is reached. {KEPT}: put "
            "it right and do the same again."
        )
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConflictError(f"{place}: refused by the database ({error}). Nothing was changed.")
    return ArtifactError(f"{place}: {error}. {KEPT}.")


def _of_postgresql(error: BaseException | None, place: str, busy_s: float) -> KeelError:
    code = getattr(error, "sqlstate", None) or ""
    said = " ".join(str(error).split()) or "no reason given"
    if code.startswith("23"):
        return ConflictError(f"{place}: refused by the database ({said}). Nothing was changed.")
    if code in {"55P03", "40P01", "40001"}:
        return busy(place, busy_s)
    if code == "53100":
        return ArtifactError(f"{place}: the server's disk is full. {KEPT}: free some space and do the same again.")
    if code in {"28P01", "28000", "42501"}:
        return ArtifactError(f"{place}: {said}. Check user and password, and that the user may write the database.")
    if code == "3D000":
        return ArtifactError(f"{place}: {said}. Create it first: createdb.")
    if not code or code.startswith(("08", "57", "53")):
        return ArtifactError(f"{place}: the PostgreSQL server cannot be reached ({said}). {KEPT}; start it and retry.")
    return ArtifactError(f"{place}: {said}. {KEPT}.")
