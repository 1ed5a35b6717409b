"""From an artifact back to what it was made from, and what that was made from: policy, labels, snapshot, raters."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keel.core.artifacts import RECORD, Artifact, load_artifact
from keel.core.errors import ArtifactError

POLICIES = ("prefer", "ppo", "rejection", "constitution", "sft")
"""Stages of a summary that make a policy, the last one first; prefer may follow ppo, never the other way round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ancestor:
    """An artifact in a lineage."""

    artifact: Artifact
    depth: int
    """0 for the one asked about, 1 for its parents, and so on; the shortest way counts."""


def lineage(artifact: Artifact) -> list[Ancestor]:
    """The artifact and all that it comes from, nearest first. ArtifactError for a parent that is not in the run."""
    there = {found.id: found for found in siblings(artifact.path.parent)}
    out: dict[str, Ancestor] = {artifact.id: Ancestor(artifact=artifact, depth=0)}
    waiting = [out[artifact.id]]
    while waiting:
        child = waiting.pop(0)
        for parent in child.artifact.parents:
            if parent in out:
                continue
            if parent not in there:
                raise ArtifactError(
                    f"{child.artifact.path}: was made from the artifact {parent[:12]}, which is not in "
                    f"{artifact.path.parent}. Copy the whole run folder, or run the recipe again."
                )
            out[parent] = Ancestor(artifact=there[parent], depth=child.depth + 1)
            waiting.append(out[parent])
    return list(out.values())


def siblings(folder: Path) -> Iterator[Artifact]:
    """Every finished artifact in a run's folder of artifacts."""
    for path in sorted(folder.iterdir()):
        if (path / RECORD).is_file():
            yield load_artifact(path)
