"""`keel version`."""

import argparse
import platform
from typing import Any

from keel import __version__
from keel.cli.render import next_step, out

PACKAGES = ("torch", "transformers", "peft", "datasets", "pydantic", "numpy")


def add(commands: Any) -> None:
    parser = commands.add_parser("version", help="versions of keel and of what it builds on")
    parser.set_defaults(call=version, parser=parser)


def version(arguments: argparse.Namespace) -> None:
    """One line with keel's version, one with those of its packages; none of them is imported for it."""
    from importlib import metadata

    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    out(f"keel {__version__}")
    out(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}; {', '.join(found)}")
    next_step("keel demo")
