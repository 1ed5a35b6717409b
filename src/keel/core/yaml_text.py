"""YAML text with the line of every value remembered."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from keel.core.errors import ConfigError

STANDARD_TAGS = {f"tag:yaml.org,2002:{tag}" for tag in ("str", "int", "float", "bool", "null", "seq", "map")}

Keys = tuple[str | int, ...]
"""Where a value stands in a document: mapping keys and list positions from the top."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a YAML text says, and on which line it says it."""

    value: Any
    lines: dict[Keys, int]  # 1-based; only what was written out, not what an alias repeats


class _Loader(yaml.SafeLoader):
    """The safe loader with floats as in YAML 1.2 (1e-5 is a number) and dates left as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, quoting what the loader above would not read back as text."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    unusual = any(character in text for character in "\x85\u2028\u2029")  # line ends that folding would lose
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if unusual else None)


_Dumper.add_representer(str, _represent_text)


def write(value: Any) -> str:
    """YAML that `parse` reads back to an equal value; keys keep their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def parse(text: str, place: str) -> Document:
    """The document in `text`; `place` (a file name, say) begins every error message.

    Broken YAML, a key written twice, a key that is not text and a value that contains itself are ConfigErrors.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Keys, int] = {}
        if node is not None:
            _locate(node, (), lines, [], set(), place)
        return Document(value=None if node is None else loader.construct_document(node), lines=lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        what = str(error.problem or error.context)
        if what.startswith("but "):
            what = f"{error.context}, {what}"
        hint = " Indent with spaces, not tabs." if "'\\t'" in what else ""
        raise ConfigError(f"{place}{line}: not YAML: {what}.{hint}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{place}: not YAML: {error}") from error
    except ValueError as error:  # a value that its own tag refuses, such as `!!int x`
        raise ConfigError(f"{place}: not YAML: {error}") from error
    finally:
        loader.dispose()


def _locate(
    node: yaml.Node, keys: Keys, lines: dict[Keys, int], above: list[yaml.Node], done: set[int], place: str
) -> None:
    """Fill in `lines` for the node and all below it, refusing what cannot be a setting."""
    line = node.start_mark.line + 1
    if any(node is parent for parent in above):
        raise ConfigError(f"{place}, line {line}: {dotted(keys)} contains itself through an alias. Write it out.")
    if node.tag not in STANDARD_TAGS:
        raise ConfigError(f"{place}, line {line}: {dotted(keys)} has the tag {node.tag}; settings are plain values.")
    lines.setdefault(keys, line)
    if id(node) in done:
        return
    done.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            _locate(child, (*keys, position), lines, [*above, node], done, place)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                _locate(child, keys, lines, [*above, node], done, place)
                continue
            if key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or section"
                raise ConfigError(f"{place}, line {line}: the key {shown} is not text. Put it in quotes.")
            if key.value in first:
                name = dotted((*keys, key.value))
                raise ConfigError(
                    f"{place}, line {line}: {name} is set twice, first on line {first[key.value]}. Keep one of them."
                )
            first[key.value] = line
            lines[(*keys, key.value)] = line
            _locate(child, (*keys, key.value), lines, [*above, node], done, place)


def dotted(keys: Keys) -> str:
    """The way a field is named in messages and overrides: `ppo.kl.initial`, `rounds.0.prompts`."""
    return ".".join(map(str, keys))
