"""`keel data snapshot`: records frozen in a folder that is named by the hash of what they say."""

import argparse
import json
from pathlib import Path
from typing import Any

from keel.cli.commands.data_source import add_source, source
from keel.cli.render import columns, next_step, note, out
from keel.core.errors import ConfigError

EPILOG = """The snapshot is a folder DIR/NAME of records.jsonl and snapshot.json. It is never written over, and whatever
reads it checks every byte. A recipe takes it as path: DIR/NAME, or DIR/NAME@HASH to insist on its content.

examples:
  keel data snapshot ratings.jsonl --name ratings-1 --to snapshots
  keel data snapshot ratings.jsonl --name ratings-1 --to snapshots --guide-version 3
  keel data snapshot snapshots/ratings-1 --check"""


def add(actions: Any) -> None:
    parser = actions.add_parser("snapshot", help="freeze records in a folder named by the hash of their content")
    parser.epilog = EPILOG
    add_source(parser)
    parser.add_argument("--name", metavar="NAME", help="what the snapshot is called")
    parser.add_argument("--to", metavar="DIR", type=Path, help="the folder that holds snapshots")
    parser.add_argument("--guide-version", metavar="N", help="the version of the guide that raters followed")
    parser.add_argument("--check", action="store_true", help="check the snapshot FILE instead, and show its manifest")
    parser.add_argument("--json", action="store_true", help="the manifest as JSON")
    parser.set_defaults(call=snapshot, parser=parser)


def snapshot(arguments: argparse.Namespace) -> None:
    """Freeze the records of a file, or check a snapshot."""
    from keel.data.doctor.examine import examine
    from keel.data.doctor.patient import open_patient
    from keel.data.doctor.treat import freeze, untreated
    from keel.data.snapshot import read_snapshot

    if arguments.check:
        found = read_snapshot(arguments.file)
        note(f"{found.id} is as it was frozen")
    else:
        if not (arguments.name and arguments.to):
            raise ConfigError("a snapshot needs --name NAME and --to DIR.")
        examination = examine(open_patient(source(arguments)))
        more = {"guide_version": arguments.guide_version} if arguments.guide_version else {}
        found = freeze(untreated(examination), arguments.to, arguments.name, more)
        if (known := found.manifest.get("guide_version")) != more.get("guide_version", known):
            raise ConfigError(
                f"{found.records.parent} holds these records already, frozen {_guide(known)}, and a snapshot never "
                "changes. Give another --name to freeze them with another guide version."
            )
        if examination.patient.refused:
            note(f"{len(examination.patient.refused):,} records cannot be read and are not in the snapshot")
        if examination.severity != "ok":
            note(f"the doctor says: {examination.headline} See keel data doctor {arguments.file}")
    if arguments.json:
        out(json.dumps(found.manifest, indent=2, ensure_ascii=False))
    else:
        out(found.id)
        skipped = {"name", "content_hash", "manifest_hash", "sources", "doctor"}
        out(columns([[key, _shown(value)] for key, value in found.manifest.items() if key not in skipped]))
    folder = found.records.parent
    section = str(found.manifest.get("kind", "comparisons"))
    next_step(f"name it in a recipe, under data: {section}: {{path: {folder}@{found.content_hash[:12]}}}")


def _guide(version: Any) -> str:
    return "without a guide version" if version is None else f"with guide version {version}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items()) or "nothing"
    return str(value)
