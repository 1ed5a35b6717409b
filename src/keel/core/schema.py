"""What a Config class says about its fields, in words."""

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from keel.core.yaml_text import Keys

PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "nothing"}
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "min_length": "length >=", "max_length": "length <="}


@dataclass(frozen=True, kw_only=True)
class FieldDoc:
    """One setting as its help line shows it."""

    name: str  # dotted; `[]` after the name of a list of sections
    type: str  # in words: "number > 0", '"head" | "implicit"', "section"
    default: str  # as one would write it in YAML; "required" where there is none, "" for a section
    help: str  # the text under the field, "" where there is none


def fields_of(cls: type[BaseModel]) -> list[FieldDoc]:
    """Every setting of a Config class in the order written, sections before what they hold.

    Sections that are alternatives to each other list their fields one after the other; a field that several of them
    share appears once, with the types joined.
    """
    merged: dict[str, FieldDoc] = {}
    for doc in _walk(cls, ""):
        known = merged.get(doc.name)
        if known and doc.type not in known.type.split(" | "):
            doc = FieldDoc(name=doc.name, type=f"{known.type} | {doc.type}", default=known.default, help=known.help)
        elif known:
            continue
        merged[doc.name] = doc
    return list(merged.values())


def _walk(cls: type[BaseModel], prefix: str) -> Iterator[FieldDoc]:
    for name, info in cls.model_fields.items():
        sections = sections_in(info.annotation)
        listed = "[]" if get_origin(_bare(info.annotation)) in (list, tuple) and sections else ""
        dotted = f"{prefix}{name}{listed}"
        yield FieldDoc(name=dotted, type=field_type(info), default=_default(info), help=" ".join(_help(info).split()))
        for section in sections:
            yield from _walk(section, f"{dotted}.")


def _help(info: FieldInfo) -> str:
    return info.description or ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel) or value is PydanticUndefined:
        return ""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)  # as one would write it
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def field_type(info: FieldInfo) -> str:
    """The field's type with its bounds: "number > 0, <= 1"."""
    bounds = [
        f"{sign} {getattr(rule, key):g}"
        for rule in info.metadata
        for key, sign in BOUNDS.items()
        if isinstance(getattr(rule, key, None), (int, float))
    ]
    return f"{type_name(info.annotation)} {', '.join(bounds)}".strip()


def type_name(annotation: Any) -> str:
    """A type in plain words, without an article: "whole number", "list of text", '"auto" | number'."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(args[0])
    if origin is Literal:
        return " | ".join(json.dumps(choice) for choice in args)
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(type_name(arg) for arg in args))
    if origin in (list, tuple, set, frozenset) and args:
        inside = dict.fromkeys(type_name(arg) for arg in args if arg is not Ellipsis)
        return f"list of {' and '.join(inside)}"
    if origin in (dict, Mapping):
        return f"section of {type_name(args[1])}"
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return "section"
        if issubclass(annotation, PurePath):
            return "path"
        return annotation.__name__
    return str(annotation)


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """The Config classes that a value of this type may be or hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for arg in get_args(annotation) for section in sections_in(arg)]


def sections_at(cls: type[BaseModel], keys: Keys, data: Any) -> list[type[BaseModel]]:
    """The Config classes that the value at `keys` of `data` may be, alternatives narrowed by their Literal fields."""
    found, value = [cls], data
    for key in keys:
        value = _child(value, key)
        if isinstance(key, str):
            annotations = [section.model_fields[key].annotation for section in found if key in section.model_fields]
            found = [section for annotation in annotations for section in sections_in(annotation)]
        if isinstance(value, dict):
            found = [section for section in found if _may_be(section, value)] or found
    return found


def _may_be(section: type[BaseModel], data: dict[str, Any]) -> bool:
    return all(
        data.get(name, choices[0]) in choices
        for name, info in section.model_fields.items()
        if get_origin(info.annotation) is Literal and (choices := get_args(info.annotation))
    )


def _child(value: Any, key: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return value[key]
    return None


def _bare(annotation: Any) -> Any:
    """The annotation without Annotated and without None."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bare(args[0])
    if origin in (Union, types.UnionType):
        rest = [arg for arg in args if arg is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else annotation
    return annotation
