"""Snapshots of a studio, as recipes and folders want them: looked up, checked by hash, copied."""

from pathlib import Path

from keel.core.errors import ArtifactError, ConfigError
from keel.data.snapshot import Snapshot as Folder
from keel.data.snapshot import write_snapshot
from keel.stages.place import Place, without_password
from keel.store.rows import Snapshot
from keel.store.store import Store


def opened(place: Place) -> Store:
    """The studio's database; one that is not there is not begun."""
    if place.is_file and not Path(place.studio).expanduser().is_file():
        raise ArtifactError(
            f"{place.studio}: there is no such database. keel studio begins one; a path in a recipe starts at the "
            "working directory or beside the recipe."
        )
    return Store.open(str(Path(place.studio).expanduser()) if place.is_file else place.studio)


def looked_up(store: Store, place: Place) -> Snapshot:
    """The snapshot that a place names."""
    if place.snapshot is None:
        raise ConfigError(
            f"{place} names a project, and a project goes on changing. Name a snapshot, {place}@NAME; "
            f"keel collect {place} makes one."
        )
    with store.reading() as tx:
        return tx.snapshots.get(place.project, place.snapshot)


def without_secret(place: Place) -> Place:
    """The place; ConfigError for one with a password, since recipes are copied into every run."""
    if without_password(place.studio) != place.studio:
        raise ConfigError(
            f"{place}: a recipe is copied into every run, so it must not hold a password. Leave it out of the URL and "
            "give it in the environment: PGPASSWORD, or a ~/.pgpass file."
        )
    return place


def copy_lines(store: Store, snapshot: Snapshot, target: Path) -> None:
    """Write the records, checked against the snapshot's hash while they are read."""
    with store.reading() as tx, target.open("wb") as file:
        file.writelines(tx.snapshots.lines(snapshot))


def export(store: Store, snapshot: Snapshot, folder: Path) -> Path:
    """The snapshot as a folder `folder`/NAME of the same hash, with its manifest."""
    with store.reading() as tx:
        written: Folder = write_snapshot(folder, snapshot.name, tx.snapshots.read(snapshot), snapshot.manifest)
    if written.content_hash != snapshot.content_hash:
        raise ArtifactError(f"{folder / snapshot.name}: the copy is not the snapshot. Remove it and export again.")
    return folder / snapshot.name
