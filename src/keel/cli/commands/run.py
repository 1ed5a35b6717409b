"""`keel run`, and each stage alone: `keel sft`, `keel reward`, `keel prefer`, `keel ppo`, `keel evaluate`."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.commands.options import add_out, add_overrides
from keel.cli.render import next_step
from keel.core.errors import ConfigError

EPILOG = """Finished stages are reused, an interrupted one goes on where its last checkpoint was: give the same command
again. keel config --fields lists what a recipe may say.

example:
  keel {command} recipes/sentiment.yaml -s ppo.kl.initial=0.1 --out runs/gentle"""

COMMANDS = {
    "run": "run all stages of a recipe",
    "sft": "run a recipe up to supervised fine-tuning",
    "reward": "run a recipe up to its reward model",
    "prefer": "run a recipe up to training on preferences",
    "ppo": "run a recipe up to reinforcement learning",
    "evaluate": "run a recipe up to the comparison with SFT",
}

METHOD_OF = {"ppo": "ppo", "prefer": "dpo"}
"""A method that runs the section which a command is named after."""


def add(commands: Any) -> None:
    for command, summary in COMMANDS.items():
        parser = commands.add_parser(command, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        parser.epilog = EPILOG.format(command=command)
        parser.add_argument("recipe", metavar="RECIPE", type=Path, help="a YAML file")
        add_overrides(parser)
        add_out(parser, "runs/ and the name of the recipe file")
        parser.add_argument(
            "--reuse",
            metavar="RUN",
            type=Path,
            action="append",
            default=[],
            help="take over finished stages of another run where data and settings are the same (may be repeated)",
        )
        parser.set_defaults(call=run, parser=parser, only=None if command == "run" else command)


def run(arguments: argparse.Namespace) -> None:
    """Run a recipe, all of it or up to one stage."""
    from keel.core.config import load_config
    from keel.stages.methods import TRAINERS
    from keel.stages.recipe import Recipe

    recipe = load_config(Recipe, arguments.recipe, arguments.set)
    if recipe.method and arguments.only in TRAINERS and getattr(recipe, arguments.only) is None:
        raise ConfigError(
            f"{arguments.recipe}: keel {arguments.only} has nothing to do, since method: {recipe.method} does not run "
            f"that section. Name a method that does, for example -s method={METHOD_OF[arguments.only]}."
        )
    if arguments.only and getattr(recipe, arguments.only) is None:
        raise ConfigError(
            f"{arguments.recipe}: keel {arguments.only} needs a section {arguments.only}: in the recipe. Add it; "
            f"{arguments.only}: {{}} takes all defaults."
        )
    run_dir = arguments.out or Path("runs") / arguments.recipe.stem

    from keel.cli.progress import watching
    from keel.stages import pipeline  # torch comes with it: only now that the recipe is known to be sound

    with watching() as progress:
        pipeline.run(
            recipe,
            run_dir,
            progress,
            only=arguments.only,
            reuse=arguments.reuse,
            recipe_folder=arguments.recipe.parent,
        )
    next_step(f"keel show {run_dir}, or open {run_dir / 'report.html'}")
