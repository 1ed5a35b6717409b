"""Functions that a recipe names: `file.py:function` beside the recipe, or `package.module:function`."""

import functools
import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from keel.core.errors import ConfigError, KeelError, TrainingError
from keel.core.files import file_sha256

REPEAT = "Correct it and give the same command again; finished stages are kept."
"""How a message about somebody's function ends where it stops the run."""
LONGEST_SAID = 600
"""Characters of an exception's own text; some hold whole batches."""


def load_function(spec: str, field: str, folder: Path) -> Callable[..., Any]:
    """The function that `spec` names; relative files start at `folder`. Runs the file, as importing does.

    Whatever the function raises when it is called comes out as a TrainingError that names its file and line.
    """
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
    file = str(module.__file__)

    @functools.wraps(function)
    def guarded(*arguments: Any) -> Any:
        with _explained(TrainingError, field, spec, file):
            return function(*arguments)

    return guarded


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function's third argument has this name."""
    try:
        return list(inspect.signature(function).parameters)[2:3] == [name]
    except (TypeError, ValueError):  # some functions written in C cannot say
        return False


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
    with _explained(ConfigError, field, str(path), str(path)):
        spec.loader.exec_module(module)
    return module


def _load_module(name: str, field: str) -> ModuleType:
    with _explained(ConfigError, field, f"importing {name}", ""):
        return importlib.import_module(name)


@contextmanager
def _explained(kind: type[KeelError], field: str, what: str, file: str) -> Iterator[None]:
    """Turn whatever somebody else's code raises into a message with its place."""
    try:
        yield
    except KeelError:
        raise
    except Exception as error:  # not our code: anything may come out of it
        where = f" at {place}" if (place := _place(error, file)) else ""
        said = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
        said = said if len(said) <= LONGEST_SAID else f"{said[:LONGEST_SAID]}…"
        raise kind(f"{field}: {what} failed{where} ({said}). {REPEAT}") from error


def _place(error: Exception, file: str) -> str:
    """The last line of `file` that took part, or of whatever file did; empty when it was never entered."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if frame.filename == file]
    last = (own or frames or [None])[-1]
    return "" if last is None else f"{last.filename}, line {last.lineno}"
