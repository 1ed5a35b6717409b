"""The safe fixes: what can be left out without anybody's judgment, each one listed. Nothing is edited in place."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keel.core.errors import DataError
from keel.core.files import atomic_write_text, file_sha256
from keel.data.doctor.examine import Examination
from keel.data.doctor.preference import surprises
from keel.data.doctor.sets import topic
from keel.data.formats import to_values, write_jsonl
from keel.data.records import Comparison, Record
from keel.data.snapshot import Snapshot, read_snapshot, snapshot_at, write_snapshot

CHANGES = ".changes.jsonl"
REASONS = {
    "duplicates": "It says the same as an earlier record.",
    "empty_answers": "An answer holds invisible characters only.",
    "identical_answers": "Both answers are the same text.",
    "leakage": "Its prompt stands, or nearly, among those that are measured on.",
}
"""Why a rule lets a record be left out."""


@dataclass(frozen=True, slots=True)
class Change:
    """One record left out, and why."""

    source: str  # "file:line"
    rule: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return {"source": self.source, "rule": self.rule, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """The records that stay, and what was left out."""

    examination: Examination
    kept: tuple[int, ...]
    """Positions of the entries that stay."""
    changes: tuple[Change, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Records left out by each rule."""
        return dict(Counter(change.rule for change in self.changes))

    @property
    def records(self) -> list[Record]:
        return [self.examination.patient.entries[at].record for at in self.kept]


def treat(examination: Examination) -> Treatment:
    """Leave out what could not be read and what a rule marks as removable; a record falls to the first such rule."""
    patient = examination.patient
    changes = list(untreated(examination).changes)
    gone: set[int] = set()
    for finding in examination.findings:
        for at in finding.drops:
            if at not in gone:
                gone.add(at)
                changes.append(Change(patient.source(at), finding.rule, REASONS[finding.rule]))
    kept = tuple(at for at in range(len(patient.entries)) if at not in gone)
    if not kept:
        raise DataError(f"{patient.name}: the fixes would leave no record at all. Look at the file first.")
    return Treatment(examination=examination, kept=kept, changes=tuple(changes))


def untreated(examination: Examination) -> Treatment:
    """Every record that can be read; the changes are those that cannot."""
    patient = examination.patient
    changes = tuple(Change(one.source, topic(one), one.fault) for one in patient.refused)
    return Treatment(examination=examination, kept=tuple(range(len(patient.entries))), changes=changes)


def write_treated(treatment: Treatment, out: Path) -> Snapshot | None:
    """What stays, as a new file of the rows as they were (OUT.jsonl), or as a snapshot folder where OUT has no suffix.

    Beside it, in OUT.changes.jsonl, every record that was left out and why. An existing file is never written over.
    """
    patient = treatment.examination.patient
    check_free(out)
    log = change_log(out)
    snapshot = None
    if out.suffix == ".jsonl":
        if patient.rows:
            rows = sorted({patient.entries[at].row for at in treatment.kept})
            text = "".join(
                json.dumps(dict(patient.rows[row].values), ensure_ascii=False, default=str) + "\n" for row in rows
            )
            atomic_write_text(out, text)
        else:
            write_jsonl(out, treatment.records)
    else:
        snapshot = freeze(treatment, out.parent, out.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(change.to_dict(), ensure_ascii=False) + "\n" for change in treatment.changes)
    atomic_write_text(log, "".join(lines))
    return snapshot


def check_free(out: Path) -> None:
    """Raise DataError where OUT cannot be written without writing over something, or is no file of JSON lines."""
    taken = [path for path in (out, change_log(out)) if path.exists()]
    if taken:
        raise DataError(f"{taken[0]} already exists, and the doctor never writes over anything. Name another file.")
    if out.suffix not in (".jsonl", ""):
        raise DataError(
            f"{out}: the doctor writes JSON lines. Name a file .jsonl, or a snapshot folder without suffix."
        )


def change_log(out: Path) -> Path:
    """Where the records that were left out are listed."""
    return out.with_name(out.name.removesuffix(".jsonl") + CHANGES)


def freeze(treatment: Treatment, directory: Path, name: str, more: Mapping[str, Any] | None = None) -> Snapshot:
    """The records that stay as the snapshot `directory`/`name`, with what is known of them in the manifest."""
    return write_snapshot(directory, name, map(to_values, treatment.records), known_of(treatment) | dict(more or {}))


def known_of(treatment: Treatment) -> dict[str, Any]:
    """The manifest of the records that stay: kind, format, sources, raters, models, what was left out."""
    patient = treatment.examination.patient
    compared = [record for record in treatment.records if isinstance(record, Comparison)]
    votes = Counter(vote.rater for record in compared for vote in record.votes)
    models = Counter(model for record in compared for model in record.models if model)
    known: dict[str, Any] = {
        "kind": patient.kind,
        "format": patient.format,
        "sided": patient.sided,
        "prompts": len({patient.keys[at] for at in treatment.kept}),
        "sources": _sources(patient.name, [row.place.path for row in patient.rows]),
        "left_out": treatment.counts,
        "doctor": treatment.examination.summary(),
    }
    if votes:
        known["raters"] = dict(sorted(votes.items()))
    if models:
        known["models"] = dict(sorted(models.items()))
    versions = sorted({str(v) for row in patient.rows if (v := row.values.get("guide_version")) is not None})
    if versions:
        known["guide_versions"] = versions
    if snapshot_at(patient.name):
        known["parent"] = read_snapshot(patient.name).id
    return known


def hard_pairs(examination: Examination, most: int = 500) -> list[Record]:
    """The comparisons whose labels a simple model of words denies most, hardest first; empty where it can name none."""
    found = surprises(examination.patient)
    if found is None or found[2][0] <= 0.5:
        return []
    decided = examination.patient.decided
    order = sorted(range(len(decided)), key=lambda i: (found[0][i], i))
    return [decided[i][1] for i in order[:most] if found[0][i] < 0.5]


def _sources(name: str, paths: list[str]) -> list[dict[str, Any]]:
    """Every file that rows came from, with its hash and how many came."""
    counts = Counter(paths) or Counter([name])
    return [
        {"file": Path(path).name, "rows": count} | ({"sha256": file_sha256(Path(path))} if Path(path).is_file() else {})
        for path, count in counts.items()
    ]
