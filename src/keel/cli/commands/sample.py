"""`keel sample`: candidate pairs for raters, from one or several models."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.commands.options import add_overrides
from keel.cli.render import next_step, out
from keel.core.errors import ConfigError

DESCRIPTION = """Answer prompts with one or several models, here or behind an OpenAI-compatible address, and put the
answers side by side for raters. Every answer keeps where it comes from; what is drawn once is never drawn again."""

EPILOG = """examples:
  keel sample --prompts prompts.jsonl --model runs/help --out samples/help
  keel sample --prompts prompts.jsonl --model sft=runs/help --model big=http://localhost:8000/v1#qwen \\
      --key-env MY_KEY --to studio.sqlite::help
  keel sample sample.yaml -s samples=4 --to http://localhost:8080::help --token-env KEEL_TOKEN"""


def add(commands: Any) -> None:
    parser = commands.add_parser("sample", help="make candidate pairs for raters", description=DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument("settings", metavar="SETTINGS", type=Path, nargs="?", help="a YAML file; options add to it")
    parser.add_argument("--prompts", metavar="FILE", help="where the prompts come from")
    parser.add_argument(
        "--model",
        metavar="[NAME=]PLACE",
        action="append",
        default=[],
        help="who answers: a model or run folder, or ADDRESS#MODEL for a served one (may be repeated)",
    )
    parser.add_argument("--key-env", metavar="VARIABLE", help="environment variable with the API key of served models")
    add_overrides(parser)
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where answers and pairs go (default: samples/NAME)")
    parser.add_argument("--to", metavar="PLACE", help="also put the pairs into a project: STUDIO::PROJECT")
    parser.add_argument("--token-env", metavar="VARIABLE", help="environment variable with the API token of a studio")
    parser.add_argument("--priority", metavar="N", type=float, default=0.0, help="of the items; larger is sooner")
    parser.set_defaults(call=sample, parser=parser)


def sample(arguments: argparse.Namespace) -> None:
    """Draw answers, pair them, and hand them on."""
    from keel.core.config import load_config
    from keel.stages.place import Place
    from keel.stages.sampling import SampleConfig

    base: dict[str, Any] = {}
    if arguments.prompts:
        base["prompts"] = {"path": arguments.prompts}
    if arguments.model:
        base["models"] = [model(text, arguments.key_env) for text in arguments.model]
    if arguments.settings is None and not {"prompts", "models"} <= base.keys():
        raise ConfigError("keel sample needs a settings file, or --prompts FILE and at least one --model.")
    config = load_config(SampleConfig, arguments.settings, arguments.set, base)
    place = Place.of(arguments.to) if arguments.to else None
    name = arguments.settings.stem if arguments.settings else Path(arguments.prompts).name.split(".")[0]
    folder = arguments.out or Path("samples") / name

    from keel.cli.progress import watching
    from keel.stages.deliver import deliver
    from keel.stages.sample import PAIRS
    from keel.stages.sample import sample as draw

    with watching() as progress:
        drawn = draw(config, folder, progress)
    cost = f", ${drawn.usd:.4f} so far" if drawn.usd else ""
    out(f"{len(drawn.pairs)} pairs of {drawn.responses} answers ({drawn.fresh} drawn now{cost}): {folder / PAIRS}")
    for reason, count in drawn.dropped.items():
        out(f"  dropped {count}: {reason}")
    if place is None:
        next_step(f"keel sample … --to studio.sqlite::PROJECT puts them before raters; or read {folder / PAIRS}")
        return
    sent = deliver(drawn.pairs, place, token_env=arguments.token_env, priority=arguments.priority)
    out(f"{place}: {sent.added} items added, {sent.known} were there.")
    next_step(f"keel collect {place} freezes what raters say of them")


def model(text: str, key_env: str | None) -> dict[str, Any]:
    """The settings that `--model [NAME=]PLACE` stands for."""
    name, equals, place = text.partition("=")
    if not equals or "/" in name:
        name, place = "", text
    if place.startswith(("http://", "https://")):
        url, _, served = place.partition("#")
        if not served:
            raise ConfigError(f"--model {text}: which model there? Write {place}#MODEL.")
        return {"name": name or served, "endpoint": {"url": url, "model": served, "key_env": key_env}}
    if not place:
        raise ConfigError(f"--model {text}: where is it? Write NAME=FOLDER or NAME=ADDRESS#MODEL.")
    return {"name": name or Path(place).name, "checkpoint": {"path": place}}
