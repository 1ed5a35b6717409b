"""`keel demo`."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.commands.options import add_out, add_overrides
from keel.cli.render import next_step

DESCRIPTION = """A small help desk, made up on the spot, goes through everything that keel does: simulated raters vote,
a model is fine-tuned, a reward model learns from the votes, PPO optimises against it, and the true preference, which
training never sees, says whether answers got better. Offline, a few minutes on two cores."""


def add(commands: Any) -> None:
    parser = commands.add_parser("demo", help="see the whole of it in a few minutes, offline", description=DESCRIPTION)
    parser.add_argument("--seed", type=int, default=0, help="another seed is another world (default: 0)")
    parser.add_argument("--quick", action="store_true", help="a smaller run that shows the parts, not the result")
    add_overrides(parser)
    add_out(parser, "runs/demo")
    parser.set_defaults(call=demo, parser=parser)


def demo(arguments: argparse.Namespace) -> None:
    """Run the demonstration."""
    from keel.cli.progress import watching
    from keel.demo.run import main_demo

    run_dir = arguments.out or Path("runs/demo")
    with watching() as progress:
        main_demo(run_dir, arguments.seed, arguments.set, progress, quick=arguments.quick)
    next_step(f"keel show {run_dir}, or open {run_dir / 'report.html'}")
