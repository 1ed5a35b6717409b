"""Options that several commands share."""

import argparse
from pathlib import Path


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """`-s key=value`, any number of times; `arguments.set` is the list."""
    parser.add_argument(
        "-s",
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one setting, for example -s ppo.kl.initial=0.1 (value as in YAML; may be repeated)",
    )


def add_out(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--out", metavar="RUN", type=Path, help=f"run folder (default: {default})")
