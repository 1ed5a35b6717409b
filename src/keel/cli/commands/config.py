"""`keel config`."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.commands.options import add_overrides
from keel.cli.render import BOLD, next_step, out, styled
from keel.core.errors import ConfigError

EPILOG = """examples:
  keel config recipes/sentiment.yaml -s ppo.kl.initial=0.1 > mine.yaml
  keel config --fields ppo.kl"""


def add(commands: Any) -> None:
    parser = commands.add_parser("config", help="print a recipe with all its defaults, or explain the settings")
    parser.epilog = EPILOG
    parser.add_argument("recipe", metavar="RECIPE", type=Path, nargs="?", help="a YAML file")
    add_overrides(parser)
    parser.add_argument(
        "--fields", metavar="PREFIX", nargs="?", const="", help="every setting (below PREFIX) with type, default, help"
    )
    parser.set_defaults(call=config, parser=parser)


def config(arguments: argparse.Namespace) -> None:
    """Print the resolved recipe as YAML, or the settings there are."""
    if arguments.fields is not None:
        show_fields(arguments.fields)
        next_step("keel config RECIPE.yaml -s KEY=VALUE")
        return
    if arguments.recipe is None:
        raise ConfigError("keel config needs a recipe: keel config RECIPE.yaml, or keel config --fields to list all.")
    from keel.core.config import load_config, to_yaml
    from keel.stages.recipe import Recipe

    out(to_yaml(load_config(Recipe, arguments.recipe, arguments.set)).rstrip())
    given = "".join(f" -s {text}" for text in arguments.set)
    next_step(f"keel run {arguments.recipe}{given}")


def show_fields(prefix: str) -> None:
    """Every setting whose name is `prefix` or stands below it."""
    import sys
    import textwrap

    from keel.core.config import fields_of
    from keel.core.explain import suggest
    from keel.stages.recipe import Recipe

    fields = fields_of(Recipe)
    prefix = prefix.strip(".")
    chosen = [doc for doc in fields if not prefix or doc.name == prefix or doc.name.startswith(f"{prefix}.")]
    if not chosen:
        raise ConfigError(f"'{prefix}' is not a setting.{suggest(prefix, [doc.name for doc in fields])}")
    for doc in chosen:
        default = f" = {doc.default}" if doc.default else ""
        out(f"{styled(doc.name, BOLD, sys.stdout)}: {doc.type}{default}")
        if doc.help:
            out(textwrap.fill(doc.help, 110, initial_indent="    ", subsequent_indent="    "))
