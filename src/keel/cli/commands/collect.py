"""`keel collect`: freeze what raters said into a snapshot that recipes train on."""

import argparse
import json
from pathlib import Path
from typing import Any

from keel.cli.render import columns, next_step, out
from keel.core.errors import ConfigError

DESCRIPTION = """Freeze the judgments of a studio's project into an immutable snapshot: one record a pair with the
preference that its votes come to, every vote, and where the answers come from. The same judgments are the same
snapshot."""

EPILOG = """examples:
  keel collect studio.sqlite::help
  keel collect studio.sqlite::help --name week-1 --labels dawid_skene --export snapshots
  keel collect postgresql+psycopg://keel@db/keel::help --golden --name golden-1"""

METHODS = ("share", "majority", "weighted", "dawid_skene")


def add(commands: Any) -> None:
    parser = commands.add_parser("collect", help="freeze what raters said into a snapshot", description=DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument("place", metavar="STUDIO::PROJECT", help="a database file or URL, two colons, a project")
    parser.add_argument("--name", metavar="NAME", help="of the snapshot (default: votes- and the day)")
    parser.add_argument(
        "--labels",
        choices=METHODS,
        help="how votes become a preference (default: what the project's settings say, share unless changed)",
    )
    parser.add_argument("--golden", action="store_true", help="freeze the golden items instead, with seniors' answers")
    parser.add_argument(
        "--export", metavar="FOLDER", type=Path, help="also write it as FOLDER/NAME, which recipes read too"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(call=collect, parser=parser)


def collect(arguments: argparse.Namespace) -> None:
    """Freeze, and say what was frozen and how far the raters agree."""
    from keel.stages.collect import collect as freeze
    from keel.stages.place import Place
    from keel.stages.studio_snapshots import export, opened

    place = Place.of(arguments.place)
    if place.snapshot:
        raise ConfigError(
            f"{place}: keel collect makes a new snapshot. Write {place.studio}::{place.project}, and --name."
        )
    if place.served:
        raise ConfigError(f"{place}: give the studio's database, or freeze on its page of snapshots.")
    with opened(place) as store:
        made = freeze(store, place.project, name=arguments.name, labels=arguments.labels, golden=arguments.golden)
        snapshot, verdict = made.snapshot, made.gate.verdict
        reference = f"{place}@{snapshot.name}"
        folder = export(store, snapshot, arguments.export) if arguments.export else None
    if arguments.json:
        out(
            json.dumps(
                {
                    "snapshot": reference,
                    "content_hash": snapshot.content_hash,
                    **made.figures,
                    "gate": verdict.level,
                    "message": verdict.message,
                },
                indent=2,
            )
        )
        return
    out(f"{reference}  {snapshot.content_hash[:12]}" + ("" if made.fresh else "  (the same judgments as before)"))
    rows = [
        [name.replace("_", " "), str(made.figures[name])]
        for name in ("records", "votes", "ties", "both_bad", "skips", "settled", "raters")
    ]
    out(columns(rows))
    if not arguments.golden:
        out(f"{verdict.message} {verdict.remedy}".strip())
    if folder is not None:
        out(f"Also as {folder}")
    section = "golden" if arguments.golden else "comparisons"
    next_step(f"data: {{{section}: {{path: {reference}}}}} in a recipe trains on exactly this")
