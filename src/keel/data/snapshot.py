"""Snapshots: records frozen in a folder, named by the hash of what they say.

    DIR/NAME/
      records.jsonl   one record a line in canonical JSON, ordered by the hash of the line
      snapshot.json   the manifest: name, content_hash, counts, where the records came from

`content_hash` is the SHA-256 of records.jsonl. Canonical JSON (keys sorted, no spaces, UTF-8) makes it independent of
the file format that the records came in, and the order by hash makes it independent of theirs; a record that stands
twice counts twice. So the same judgments, collected in whatever order, are the same snapshot, and because the stored
order is the canonical one, the same hash is also the same training input. Whoever reads a snapshot checks both files:
a changed byte is an error.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keel import __version__
from keel.core.config import digest
from keel.core.errors import ArtifactError, ConfigError
from keel.core.files import atomic_directory, atomic_write_json, file_sha256

RECORDS, MANIFEST = "records.jsonl", "snapshot.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NAMED = re.compile(r"(?P<folder>.+)@(?P<hash>[0-9a-fA-F]{8,64})/*")
SHORT = 12  # hex digits of a hash that people read


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A snapshot whose files have been checked."""

    manifest: Mapping[str, Any]
    records: Path

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def content_hash(self) -> str:
        """64 hex digits."""
        return str(self.manifest["content_hash"])

    @property
    def id(self) -> str:
        """What people, recipes and lineages call it: NAME@ and the first 12 digits of the hash."""
        return f"{self.name}@{self.content_hash[:SHORT]}"


def canonical_lines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Each record as one line of canonical JSON with its line end, in the order of the lines' SHA-256."""
    lines = [
        json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"
        for record in records
    ]
    return sorted(lines, key=lambda line: hashlib.sha256(line.encode()).digest())


def hash_of_lines(lines: Iterable[str]) -> str:
    """The content hash of canonical lines, 64 hex digits."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode())
    return total.hexdigest()


def write_snapshot(
    directory: Path, name: str, records: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any]
) -> Snapshot:
    """Freeze `records` as `directory`/`name`; `manifest` holds what else is known of them, as JSON.

    A snapshot of that name with the same records is returned as it stands; with other records it is an error, since
    snapshots never change.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a snapshot: letters, digits, '.', '_' and '-' are allowed, a letter or digit first."
        )
    lines = canonical_lines(records)
    if not lines:
        raise ArtifactError(f"{directory / name}: there are no records to freeze.")
    content_hash, folder = hash_of_lines(lines), directory / name
    if folder.exists():
        if snapshot_at(folder) and (standing := read_snapshot(folder)).content_hash == content_hash:
            return standing
        raise ArtifactError(
            f"{folder} already exists and holds something else. A snapshot never changes: give these records another "
            "--name."
        )
    known = dict(manifest) | {
        "name": name,
        "content_hash": content_hash,
        "records": len(lines),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "keel": __version__,
    }
    with atomic_directory(folder) as unfinished:
        with (unfinished / RECORDS).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        atomic_write_json(unfinished / MANIFEST, known | {"manifest_hash": digest(known)})
        for file_name in (RECORDS, MANIFEST):
            (unfinished / file_name).chmod(0o444)
    return read_snapshot(folder)


def snapshot_at(path: str | Path) -> Path | None:
    """The snapshot folder that `path` means, a folder or FOLDER@HASH; None where no snapshot stands there."""
    folder, _ = _parts(path)
    return folder if (folder / MANIFEST).is_file() else None


def read_snapshot(path: str | Path) -> Snapshot:
    """The snapshot at `path` (a folder, or FOLDER@HASH with at least 8 digits), every byte of it checked."""
    folder, wanted = _parts(path)
    manifest = _manifest(folder)
    records = folder / RECORDS
    if not records.is_file():
        raise ArtifactError(f"{records} is missing: the snapshot is not whole. Copy the folder again.")
    found = file_sha256(records)
    if found != manifest["content_hash"]:
        raise ArtifactError(
            f"{records} was changed after it was frozen: its hash is {found[:SHORT]}, the snapshot's is "
            f"{manifest['content_hash'][:SHORT]}. Restore it from a copy, or freeze the changed records under another "
            "name with keel data snapshot."
        )
    if wanted and not found.startswith(wanted):
        raise ArtifactError(
            f"{folder} is the snapshot {manifest['name']}@{found[:SHORT]}, and @{wanted} was asked for. Point to the "
            "snapshot that has this hash, or correct the hash if this one is meant."
        )
    return Snapshot(manifest=manifest, records=records)


def _parts(path: str | Path) -> tuple[Path, str]:
    """The folder and the hash asked for, "" where none is."""
    named = _NAMED.fullmatch(str(path))
    if named and not Path(path).expanduser().exists():
        return Path(named["folder"]).expanduser(), named["hash"].lower()
    return Path(path).expanduser(), ""


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    try:
        known = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{folder} is no snapshot: it has no {MANIFEST}. keel data snapshot FILE --name NAME --to DIR makes one."
        ) from error
    except ValueError as error:
        raise ArtifactError(f"{file} is damaged ({error}). Copy the snapshot again.") from error
    if not isinstance(known, dict) or not {"name", "content_hash", "manifest_hash"} <= known.keys():
        raise ArtifactError(f"{file} is not the manifest of a snapshot. Copy the snapshot again.")
    if digest({key: value for key, value in known.items() if key != "manifest_hash"}) != known["manifest_hash"]:
        raise ArtifactError(f"{file} was changed after it was frozen. Restore it from a copy.")
    return known
