"""The arguments of `keel data` that say where records are, and the settings that they describe."""

import argparse
import contextlib
import logging
from collections.abc import Iterator
from typing import Any, get_args

from keel.core.errors import ConfigError


def add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where records are and how to read them."""
    parser.add_argument("file", metavar="FILE", help="a file, a folder of files, or the id of a set on the hub")
    parser.add_argument("--format", metavar="F", default="auto", help="how records are written (default: detected)")
    parser.add_argument(
        "--column", metavar="NAME=OWN", action="append", default=[], help="keel's name for a column of the file"
    )


def source(arguments: argparse.Namespace, **settings: Any) -> Any:
    """The DataConfig that the arguments and `settings` describe; unusable records are dropped and counted."""
    from keel.core.config import load_config
    from keel.data.formats import DataConfig

    checked_format("--format", arguments.format)
    pairs = [text.partition("=") for text in arguments.column]
    for text, (name, equals, own) in zip(arguments.column, pairs, strict=True):
        if not (name and equals and own):
            raise ConfigError(f"--column {text}: write keel's name, =, the file's own, as in --column prompt=question.")
    base = {
        "path": arguments.file,
        "format": arguments.format,
        "columns": {name: own for name, _, own in pairs},
        "on_error": "drop",
    }
    return load_config(DataConfig, None, base=base | settings)


def checked_format(option: str, name: str) -> None:
    """ConfigError with a suggestion where `name` is no format."""
    from keel.core.explain import suggest
    from keel.data.formats import Format

    if name not in get_args(Format) or (option != "--format" and name == "auto"):
        known = [known for known in get_args(Format) if option == "--format" or known != "auto"]
        raise ConfigError(f"{option} {name}: no such format.{suggest(name, known)} Known: {', '.join(known)}.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What was dropped is part of the answer here, so it need not be warned of as well."""
    logger = logging.getLogger("keel.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
