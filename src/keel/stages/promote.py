"""Which reward model or policy is in use: promotions, appended to one file and never changed. No torch here.

REGISTRY/promotions.jsonl    one line a promotion: what, to which stage, by whom, when, why, and on what evidence

A model is a candidate first and then in production; the newest line of a kind and stage says what stands there.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from keel.core.artifacts import Artifact, load_artifact
from keel.core.errors import ArtifactError, GateError
from keel.core.files import RunLock, explained_when_full
from keel.stages.lineage import POLICIES, lineage, siblings

FILE = "promotions.jsonl"
Stage = Literal["candidate", "production"]
STAGES: tuple[Stage, ...] = get_args(Stage)
What = Literal["reward", "policy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """One line of the registry."""

    what: What
    stage: Stage
    artifact: str
    """Id: hash of the content."""
    path: str
    by: str
    why: str
    at: str
    """ISO 8601, UTC."""
    evidence: Mapping[str, Any]
    """The golden probe's figures, the snapshots it was learned from, and whether the agreement gate was overridden."""
    members: Sequence[str] = field(default=())
    """Ids of the models of an ensemble, the first being `artifact`; empty for a single one."""


def promote(
    run: Path, registry: Path, *, what: What = "reward", stage: Stage = "candidate", by: str, why: str
) -> Promotion:
    """Append the promotion of a run's newest reward model or policy.

    GateError where its reward model was never probed on golden comparisons, or failed there, and for production where
    it was not a candidate before. ArtifactError for one whose files have changed.
    """
    if not why.strip() or not by.strip():
        raise GateError("A promotion says who and why. Give --by and --why; both are kept.")
    made = chosen(run, what)
    evidence = {"golden": golden_evidence(run, made), **origin(made[0])}
    for artifact in made:
        load_artifact(artifact.path, artifact.kind, verify=True)
    entry = Promotion(
        what=what,
        stage=stage,
        artifact=made[0].id,
        path=str(made[0].path.resolve()),
        by=by.strip(),
        why=why.strip(),
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        evidence=evidence,
        members=tuple(artifact.id for artifact in made) if len(made) > 1 else (),
    )
    with RunLock(registry):
        before = promotions(registry)
        if stage == "production" and not any(p.artifact == entry.artifact and p.stage == "candidate" for p in before):
            raise GateError(
                f"{made[0].path.name} was never a candidate in {registry}. Promote it to candidate first, look at what "
                "it does, and then to production."
            )
        append(registry / FILE, json.dumps(asdict(entry), ensure_ascii=False))
    return entry


def append(path: Path, line: str) -> None:
    """Add a line; what a killed process left half written goes first."""
    with explained_when_full(path), path.open("a+b") as file:
        file.seek(0)
        held = file.read()
        file.truncate(held.rfind(b"\n") + 1)
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def promotions(registry: Path) -> list[Promotion]:
    """Every promotion, oldest first. A line that a killed process left half written counts for nothing."""
    path = registry / FILE
    if not path.is_file():
        return []
    out = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line or (number == len(lines)):
            continue
        try:
            values: dict[str, Any] = json.loads(line)
            out.append(Promotion(**values | {"members": tuple(values["members"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(
                f"{path}, line {number}: damaged, no promotion ({error}). Restore the file from a copy; its lines are "
                "only ever added to."
            ) from error
    return out


def standing(registry: Path) -> dict[tuple[What, Stage], Promotion]:
    """What stands where now."""
    return {(entry.what, entry.stage): entry for entry in promotions(registry)}


def chosen(run: Path, what: What) -> list[Artifact]:
    """The artifacts of a run that are promoted: the members of its first reward model, or its last policy."""
    stages = summary_of(run).get("stages", {})
    if what == "policy":
        name = next((stages[stage]["artifact"] for stage in POLICIES if stage in stages), None)
        names = [name] if name else []
    else:
        reward = stages.get("reward", {})
        members = reward.get("members") or ([reward] if reward else [])
        names = [member["artifact"] for member in members]
    if not names:
        raise ArtifactError(f"{run}: this run has made no {'policy' if what == 'policy' else 'reward model'}.")
    return [load_artifact(run / "artifacts" / name) for name in names]


def summary_of(run: Path) -> dict[str, Any]:
    """The figures of a finished run."""
    path = run / "summary.json"
    if not path.is_file():
        raise ArtifactError(f"{path}: not there. Give the folder of a run that has finished.")
    return json.loads(path.read_text(encoding="utf-8"))


def golden_evidence(run: Path, made: Sequence[Artifact]) -> dict[str, Any]:
    """What the golden probe found of the reward models behind what is promoted. GateError where it refuses them."""
    behind = [found.artifact for artifact in made for found in lineage(artifact)]
    rewards = {artifact.id: artifact for artifact in behind if artifact.kind == "reward_model"}
    if not rewards:
        return {}  # a policy that no reward model taught
    refreshed = {parent for artifact in rewards.values() for parent in artifact.parents}
    last = rewards.keys() - refreshed
    probes = [
        artifact
        for artifact in siblings(run / "artifacts")
        if artifact.kind == "report" and "passed" in artifact.metrics and last <= set(artifact.parents)
    ]
    if not probes:
        names = ", ".join(sorted(rewards[key].path.name for key in last))
        raise GateError(
            f"{run}: {names} was never probed on golden comparisons, so nobody knows whether seniors would agree with "
            "it. Name comparisons that seniors judged as data.golden (keel collect … --golden freezes a project's) and "
            "run the recipe again: the model is kept, only the probe runs."
        )
    newest = max(probes, key=lambda probe: (probe.created, probe.path.stat().st_mtime))
    if not newest.metrics["passed"]:
        raise GateError(f"{run}: the golden probe was not passed. {newest.metrics['said']} Train a better model first.")
    wanted = ("accuracy", "accuracy_low", "accuracy_high", "decided_pairs", "train_accuracy", "overfit", "seen")
    return {"report": newest.id, **{name: newest.metrics[name] for name in wanted}}


def origin(artifact: Artifact) -> dict[str, Any]:
    """The snapshots that an artifact was learned from, and reasons given against the agreement gate."""
    behind = [found.artifact for found in lineage(artifact)]
    return {
        "snapshots": [
            {**found.config, **{k: found.metrics[k] for k in ("project", "guide_version") if k in found.metrics}}
            for found in behind
            if found.kind == "snapshot"
        ],
        "overrides": sorted({a.config["override_agreement"] for a in behind if "override_agreement" in a.config}),
    }
