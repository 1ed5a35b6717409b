"""`keel judge-ai`: a model as a rater of a studio's project."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.commands.options import add_overrides
from keel.cli.render import columns, next_step, out
from keel.core.errors import ConfigError

DESCRIPTION = """Let a model judge a project's pairs like any rater: under a pseudonym, blind, each pair in both orders.
What it is worth stands on its card: kappa with people, golden items, pull to the first side, consistency."""

EPILOG = """examples:
  keel judge-ai studio.sqlite::help --name qwen --endpoint http://localhost:8000/v1#qwen --key-env MY_KEY
  keel judge-ai studio.sqlite::help --name rules --python judges.py:judge -s limit=200"""


def add(commands: Any) -> None:
    parser = commands.add_parser("judge-ai", help="let a model judge a project's pairs", description=DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument("place", metavar="STUDIO::PROJECT", help="a database file or URL, two colons, a project")
    parser.add_argument("--settings", metavar="FILE", type=Path, help="a YAML file; options add to it")
    parser.add_argument("--name", metavar="NAME", help="of the judge in the studio")
    parser.add_argument("--python", metavar="FILE:FUNCTION", help="a function that judges")
    parser.add_argument("--endpoint", metavar="ADDRESS#MODEL", help="a served model that judges")
    parser.add_argument("--key-env", metavar="VARIABLE", help="environment variable with the API key")
    parser.add_argument("--own-answers", action="store_true", help="let it judge answers that it gave itself")
    add_overrides(parser)
    parser.set_defaults(call=judge_ai, parser=parser)


def judge_ai(arguments: argparse.Namespace) -> None:
    """Judge until nothing is left, and show the judge's card."""
    from keel.core.config import load_config
    from keel.stages.ai_judge import JudgeConfig, judge_project
    from keel.stages.place import Place
    from keel.stages.studio_snapshots import opened

    base: dict[str, Any] = {"name": arguments.name} if arguments.name else {}
    if arguments.python:
        base["python"] = arguments.python
    if arguments.endpoint:
        url, mark, served = arguments.endpoint.partition("#")
        if not mark or not served:
            raise ConfigError(f"--endpoint {arguments.endpoint}: which model there? Write {url}#MODEL.")
        base["endpoint"] = {"url": url, "model": served, "key_env": arguments.key_env}
    if arguments.own_answers:
        base["own_answers"] = True
    config = load_config(JudgeConfig, arguments.settings, arguments.set, base)
    place = Place.of(arguments.place)
    if place.served or place.snapshot:
        raise ConfigError(f"{place}: give the studio's database and a project, as in studio.sqlite::help.")
    folder = arguments.settings.parent if arguments.settings else Path()

    from keel.cli.progress import watching

    with opened(place) as store, watching() as progress:
        done = judge_project(store, place.project, config, progress, folder)
    share = f" ({done.consistent / done.items:.0%})" if done.items else ""
    out(f"{config.name}, here {done.pseudonym}: {done.items} items judged, {done.consistent}{share} alike both ways.")
    if done.unclear:
        out(f"  {done.unclear} verdicts could not be read and count as skips")
    if done.card is not None:
        card = done.card
        out(
            columns(
                [
                    ["kappa with the others (quadratic weights)", str(card.kappa)],
                    [f"right on golden items ({card.num_gold})", str(card.gold_accuracy)],
                    ["share for the answer shown first", str(card.position.share)],
                    [f"the same with sides swapped ({card.repeats.num_repeats})", str(card.repeats.agreement)],
                ]
            )
        )
        out(card.advice)
    next_step(f"keel collect {place}")
