"""`keel promote`: which reward model or policy is in use, who said so, and on what evidence."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.render import columns, next_step, out
from keel.core.errors import ConfigError

DESCRIPTION = """Put a run's reward model (or policy) forward: as a candidate first, then for production. Promotions are
appended to a file and never changed. A reward model that was not probed on golden comparisons, or failed there, is
refused."""

EPILOG = """examples:
  keel promote runs/help --why "first model on week-1"
  keel promote runs/help --as production --why "a week as candidate, no complaints"
  keel promote --list"""


def add(commands: Any) -> None:
    parser = commands.add_parser("promote", help="put a reward model or policy to use", description=DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", type=Path, nargs="?", help="a run folder")
    parser.add_argument("--what", choices=("reward", "policy"), default="reward", help="of the run (default: reward)")
    parser.add_argument("--as", dest="stage", choices=("candidate", "production"), default="candidate")
    parser.add_argument("--why", metavar="TEXT", help="the reason, which is kept")
    parser.add_argument("--by", metavar="NAME", help="who promotes (default: your login name)")
    parser.add_argument("--to", metavar="FOLDER", type=Path, default=Path("registry"), help="default: registry")
    parser.add_argument("--list", action="store_true", help="show every promotion instead")
    parser.set_defaults(call=promote, parser=parser)


def promote(arguments: argparse.Namespace) -> None:
    """Append a promotion, or list them."""
    from keel.stages.promote import promote as put_forward

    if arguments.list:
        show(arguments.to)
        return
    if arguments.run is None or not arguments.why:
        raise ConfigError(
            'keel promote needs a run and a reason: keel promote RUN --why "…". --list shows what there is.'
        )
    from keel.cli.commands.judge import login_name

    entry = put_forward(
        arguments.run,
        arguments.to,
        what=arguments.what,
        stage=arguments.stage,
        by=arguments.by or login_name(),
        why=arguments.why,
    )
    out(f"{entry.what} {Path(entry.path).name} ({entry.artifact[:12]}) is now {entry.stage}.")
    golden = entry.evidence["golden"]
    if golden:
        interval = f"{golden['accuracy_low']:.1%} to {golden['accuracy_high']:.1%}"
        out(f"  golden probe: right on {golden['accuracy']:.1%} ({interval}) of {golden['decided_pairs']} pairs")
    for snapshot in entry.evidence["snapshots"]:
        out(f"  learned from {snapshot['name']} ({snapshot['content_hash'][:12]})")
    for reason in entry.evidence["overrides"]:
        out(f"  agreement gate overridden: {reason}")
    next_step(f"keel promote --list --to {arguments.to}")


def show(registry: Path) -> None:
    """Every promotion; those that stand are marked."""
    from keel.stages.promote import promotions, standing

    entries, now = promotions(registry), standing(registry)
    if not entries:
        out(f"{registry}: nothing has been promoted.")
        next_step('keel promote RUN --why "…"')
        return
    rows = [
        [
            "*" if now[(entry.what, entry.stage)] == entry else " ",
            entry.at,
            entry.stage,
            entry.what,
            f"{Path(entry.path).name} ({entry.artifact[:12]})",
            entry.by,
            entry.why,
        ]
        for entry in entries
    ]
    out(columns(rows))
    next_step("* marks what stands")
