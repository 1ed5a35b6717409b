"""Typed settings: one frozen class a section, read from YAML, changed by `a.b=value`, written back.

    class SftConfig(Config):
        learning_rate: float = Field(2e-5, gt=0)
        \"\"\"Peak learning rate of AdamW.\"\"\"

    config = load_config(SftConfig, Path("sft.yaml"), ["learning_rate=1e-4"])

The Python name is the YAML key and the override. Unknown keys are errors. `None` means absent.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from keel.core.errors import ConfigError
from keel.core.explain import coercions, problems
from keel.core.schema import FieldDoc, fields_of
from keel.core.yaml_text import Keys, dotted, parse, write

__all__ = ["Config", "FieldDoc", "digest", "fields_of", "load_config", "to_dict", "to_yaml"]

Loaded = TypeVar("Loaded", bound="Config")


class Config(BaseModel):
    """A section of settings: frozen, no unknown keys, help text under each field.

    A validator that finds values in contradiction raises ValueError with the numbers; `load_config` adds the place.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


def load_config(
    cls: type[Loaded],
    path: Path | None,
    overrides: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> Loaded:
    """The settings in the YAML file `path`, changed by `overrides`, on top of `base`.

    Each override is `dotted.key=value` with the value written as in YAML; list positions count from 0. Sections merge
    key by key, everything else is replaced. ConfigError names file, line and field of every problem at once.
    """
    source = _Source(path)
    if base:
        source.lay(json.loads(json.dumps(base, default=str)), {(key,): "base settings" for key in base})
    if path is not None:
        source.lay(*_read(path))
    for override in overrides:
        source.override(override)
    try:
        config = cls.model_validate(source.data)
    except ValidationError as error:
        raise ConfigError("\n".join(problems(error, cls, source.data, source.place))) from error
    except ConfigError as error:
        raise ConfigError(f"{source.place(())}: {error}") from error
    if coerced := coercions(source.data, config.model_dump(), source.place):
        raise ConfigError("\n".join(coerced))
    return config


class _Source:
    """Settings from several places, each value with the place that it came from."""

    def __init__(self, path: Path | None) -> None:
        self.data: dict[str, Any] = {}
        self.top = str(path) if path else "settings"
        self.places: dict[Keys, str] = {}

    def place(self, keys: Keys) -> str:
        """Where the value at `keys` was written, or the section nearest above it."""
        near = next((self.places[keys[:end]] for end in range(len(keys), 0, -1) if keys[:end] in self.places), None)
        return near or self.top

    def lay(self, data: dict[str, Any], places: dict[Keys, str]) -> None:
        """Merge `data` over what is there."""
        self.data = _merge(self.data, data)
        self.places |= places

    def override(self, text: str) -> None:
        """Apply one `dotted.key=value`."""
        place = f"-s {text}"
        name, equals, value_text = text.partition("=")
        if not equals or not name.strip() or not all(part.strip() for part in name.split(".")):
            raise ConfigError(f"{place}: an override is written key=value, for example -s ppo.kl.initial=0.1.")
        keys: Keys = tuple(int(part) if part.isdigit() else part for part in name.strip().split("."))
        document = parse(value_text, place)
        self.data = _put(self.data, keys, document.value, place)
        if not isinstance(document.value, dict):
            self.places = {known: where for known, where in self.places.items() if known[: len(keys)] != keys}
        self.places |= {(*keys, *below): place for below in [(), *document.lines]}


def _read(path: Path) -> tuple[dict[str, Any], dict[Keys, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file (looked from {Path.cwd()}).{_neighbours(path)}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: this is a folder; a recipe is a YAML file.{_neighbours(path / 'x')}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); a recipe is a YAML file.") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    document = parse(text, str(path))
    if document.value is None:
        raise ConfigError(f"{path}: the file holds no settings. Write at least one key: value line.")
    if not isinstance(document.value, dict):
        raise ConfigError(f"{path}, line 1: expected key: value lines, found {type(document.value).__name__}.")
    return document.value, {keys: f"{path}, line {line}" for keys, line in document.lines.items()}


def _neighbours(path: Path) -> str:
    """YAML files that stand where `path` would."""
    found = sorted(str(file) for file in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
    return f" There is {', '.join(found[:5])}." if found else ""


def _merge(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _merge(below.get(key), value) for key, value in above.items()}
    return above


def _put(data: Any, keys: Keys, value: Any, place: str) -> Any:
    """A copy of `data` with `value` at `keys`; absent sections on the way are made."""
    if not keys:
        return _merge(data, value) if isinstance(value, dict) else value
    key, rest = keys[0], keys[1:]
    if isinstance(data, list):
        if not isinstance(key, int) or key >= len(data):
            raise ConfigError(f"{place}: '{key}' is not a position of a list of {len(data)}; positions count from 0.")
        return [_put(item, rest, value, place) if at == key else item for at, item in enumerate(data)]
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{place}: {dotted(keys)} would stand below {json.dumps(data)}, which is not a section.")
    return data | {str(key): _put(data.get(str(key)), rest, value, place)}


def to_dict(config: Config) -> dict[str, Any]:
    """Every setting, ready for JSON."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    """Every setting as YAML that `load_config` reads back to an equal config."""
    return write(to_dict(config))


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of a JSON value, independent of key order and spacing."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
