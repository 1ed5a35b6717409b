"""`keel prioritise`: have those pairs judged next that a reward model learns most from."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.render import next_step, out
from keel.core.errors import ConfigError

DESCRIPTION = """Score the open pairs of a studio's project with the reward model of a finished run, and put those first
on which the members of an ensemble disagree, or of which a single model is least certain. Raters get them next."""

EPILOG = """examples:
  keel prioritise runs/help studio.sqlite::help
  keel prioritise runs/help studio.sqlite::help --count 300 --method uncertainty"""


def add(commands: Any) -> None:
    parser = commands.add_parser("prioritise", help="choose the pairs that raters judge next", description=DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder with a reward model")
    parser.add_argument("place", metavar="STUDIO::PROJECT", help="a database file or URL, two colons, a project")
    parser.add_argument(
        "--count",
        metavar="N",
        type=int,
        default=100,
        help="pairs to put first; all others get priority 0 (default: 100)",
    )
    parser.add_argument(
        "--method",
        choices=("disagreement", "uncertainty"),
        help="default: disagreement for an ensemble, uncertainty for a single reward model",
    )
    parser.add_argument(
        "--diversity",
        metavar="X",
        type=float,
        default=1.0,
        help="how much less a pair counts that divides an ensemble as one taken before did; 0: no less (default: 1)",
    )
    parser.set_defaults(call=prioritise, parser=parser)


def prioritise(arguments: argparse.Namespace) -> None:
    """Score, write the priorities, and say what comes first."""
    from keel.stages.place import Place
    from keel.stages.studio_snapshots import opened

    place = Place.of(arguments.place)
    if place.snapshot:
        raise ConfigError(f"{place}: a snapshot never changes. Write {place.studio}::{place.project}.")
    if place.served:
        raise ConfigError(f"{place}: give the studio's database, not its web address.")
    with opened(place) as store:
        from keel.stages.prioritise import prioritise as put_first  # torch

        done = put_first(
            store,
            place.project,
            arguments.run,
            count=arguments.count,
            method=arguments.method,
            diversity=arguments.diversity,
        )
    judges = "1 reward model" if len(done.models) == 1 else f"an ensemble of {len(done.models)}"
    out(f"{len(done.first)} of {done.scored} open pairs put first, by {done.method} of {judges}.")
    if done.too_long:
        out(f"{done.too_long} more do not fit into the run's data.max_tokens and come last.")
    out(f"First: item {', item '.join(str(item.id) for item in done.first[:5])}")
    next_step(f"raters get them next; then keel collect {place}, and train again")
