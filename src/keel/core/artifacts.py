"""What a stage makes: a folder that is whole or absent, and knows what it is made of and from.

`artifact.json` in the folder names kind, parents, resolved config, metrics, and size and SHA-256 of every file.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keel import __version__
from keel.core.config import digest
from keel.core.errors import ArtifactError
from keel.core.files import atomic_directory, atomic_write_json, file_sha256, files_below, recover_directory

RECORD = "artifact.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A finished folder."""

    kind: str  # "policy", "reward_model", "report", …
    id: str  # hash of kind, stage_id and the content of every file; the same content has the same id anywhere
    stage_id: str  # hash of the stage's name, config and parents: what to look for before doing the work again
    path: Path
    parents: tuple[str, ...]  # ids of the artifacts that it was made from
    config: dict[str, Any]  # resolved settings of the stage
    metrics: dict[str, Any]
    created: str  # ISO 8601, UTC
    keel_version: str


def stage_id(stage: str, config: Mapping[str, Any], parents: Sequence[str]) -> str:
    """64 hex digits that change with anything that decides what a stage makes."""
    return digest({"stage": stage, "config": config, "parents": list(parents)})


def save_artifact(
    directory: Path,
    *,
    kind: str,
    stage_id: str,
    parents: Sequence[str],
    config: Mapping[str, Any],
    metrics: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    write: Callable[[Path], Mapping[str, Any] | None],
) -> Artifact:
    """Make the artifact `directory` with the files that `write(folder)` puts into the folder it is given.

    `metrics`, called after `write` if it is a function, and what `write` returns are stored together. The folder
    appears complete or not at all; one that stood there before is replaced.
    """
    with atomic_directory(directory) as folder:
        written = dict(write(folder) or {})
        measured = dict(metrics() if callable(metrics) else metrics)
        files = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in files_below(folder)
        }
        record = {
            "kind": kind,
            "id": digest({"kind": kind, "stage_id": stage_id, "files": files}),
            "stage_id": stage_id,
            "parents": list(parents),
            "config": dict(config),
            "metrics": measured | written,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "keel_version": __version__,
            "files": files,
        }
        atomic_write_json(folder / RECORD, record | {"record_sha256": digest(record)})
    return _artifact(directory, record)


def load_artifact(directory: Path, kind: str | None = None, *, verify: bool = False) -> Artifact:
    """The artifact in `directory`, checked: it is a `kind` (if given) and its files are there in full length.

    `verify` also reads every file and compares its SHA-256. Whatever is wrong is an ArtifactError naming the file.
    """
    recover_directory(directory)
    record = _read_record(directory)
    if kind is not None and record["kind"] != kind:
        raise ArtifactError(f"{directory}: expected a {kind} artifact, found a {record['kind']}. Give another folder.")
    for name, entry in record["files"].items():
        path = directory / name
        if not path.is_file():
            raise ArtifactError(f"{path}: the file is missing from a finished artifact. {_remedy(directory)}")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise ArtifactError(
                f"{path}: the file is damaged, {size} bytes instead of {entry['bytes']}. {_remedy(directory)}"
            )
        if verify and file_sha256(path) != entry["sha256"]:
            raise ArtifactError(f"{path}: the file is damaged, its SHA-256 has changed. {_remedy(directory)}")
    return _artifact(directory, record)


def _read_record(directory: Path) -> dict[str, Any]:
    path = directory / RECORD
    if not path.is_file():
        state = "there is no such folder" if not directory.is_dir() else f"the folder holds no {RECORD}"
        raise ArtifactError(f"{directory}: not an artifact of keel, {state}. Run the stage that makes it.")
    try:
        record = json.loads(path.read_bytes())
    except ValueError as error:
        raise ArtifactError(f"{path}: the file is damaged, not JSON. {_remedy(directory)}") from error
    seal = record.pop("record_sha256", None) if isinstance(record, dict) else None
    if seal is None or seal != digest(record):
        raise ArtifactError(f"{path}: the file is damaged or was edited. {_remedy(directory)}")
    return record


def _remedy(directory: Path) -> str:
    return f"Remove {directory} and give the same command again; only this stage is repeated."


def _artifact(directory: Path, record: Mapping[str, Any]) -> Artifact:
    return Artifact(
        kind=record["kind"],
        id=record["id"],
        stage_id=record["stage_id"],
        path=directory,
        parents=tuple(record["parents"]),
        config=record["config"],
        metrics=record["metrics"],
        created=record["created"],
        keel_version=record["keel_version"],
    )
