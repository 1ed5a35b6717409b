"""Functions that a recipe names: `file.py:function` beside the recipe, or `package.module:function`."""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from keel.core.errors import ConfigError
from keel.core.files import file_sha256


def load_function(spec: str, field: str, folder: Path) -> Callable[..., Any]:
    """The function that `spec` names; relative files start at `folder`. Runs the file, as importing does."""
    where, _, name = spec.rpartition(":")
    if not where or not name:
        raise ConfigError(
            f"{field}: {spec!r} names no function. Write `file.py:function` or `package.module:function`."
        )
    module = _load_file(folder / where, field) if where.endswith(".py") else _load_module(where, field)
    function = getattr(module, name, None)
    if not callable(function):
        known = ", ".join(n for n, v in vars(module).items() if callable(v) and not n.startswith("_")) or "none"
        raise ConfigError(f"{field}: {where} has no function `{name}`. It has: {known}.")
    return function


def function_identity(spec: str | None, folder: Path) -> str | None:
    """What a stage's hash sees of a function: its name, and its file's content when it is a file."""
    if spec is None:
        return None
    where = spec.rpartition(":")[0]
    path = folder / where
    return f"{spec}@{file_sha256(path)}" if where.endswith(".py") and path.is_file() else spec


def _load_file(path: Path, field: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{field}: there is no file {path}. Paths start at the recipe's folder.")
    spec = importlib.util.spec_from_file_location(f"keel_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{field}: {path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load_module(name: str, field: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{field}: no module {name} can be imported ({error}).") from error
