"""Validation errors in sentences: where, what was found, what was expected, what to do."""

import difflib
import json
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from keel.core.schema import field_type, fields_of, sections_at
from keel.core.yaml_text import Keys, dotted

EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "none_required": "nothing",
    "model_type": "a section of settings",
    "model_attributes_type": "a section of settings",
    "dict_type": "a section of settings",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "too_short": "at least {min_length} items",
    "too_long": "at most {max_length} items",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "string_pattern_mismatch": "text like {pattern}",
    "union_tag_invalid": "{discriminator} to be {expected_tags}",
    "union_tag_not_found": "a section that names its {discriminator}",
}
SECTION_TYPES = {"model_type", "model_attributes_type", "dict_type"}
NUMBER_TYPES = {"int_type", "float_type", "bool_type"}
MAX_FOUND = 60  # characters of a wrong value that a message repeats
MAX_KNOWN = 16  # names that a message lists


def problems(error: ValidationError, cls: type[BaseModel], data: Any, place: Callable[[Keys], str]) -> list[str]:
    """One sentence for each field that is wrong; `place(keys)` says where the value at `keys` was written."""
    by_field: dict[Keys, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_field.setdefault(_keys(detail, data), []).append(detail)
    in_order = sorted(by_field.items(), key=lambda item: _rank(item[0], data))
    return [f"{place(keys)}: {_sentence(cls, data, keys, details)}" for keys, details in in_order]


def _rank(keys: Keys, data: Any) -> list[int]:
    """Sorts fields into the order in which they were written."""
    rank = []
    for key in keys:
        if isinstance(data, dict):
            rank.append(list(data).index(key) if key in data else len(data))
            data = data.get(key)
        else:
            position = int(key)
            rank.append(position)
            data = data[position] if isinstance(data, list) and position < len(data) else None
    return rank


def coercions(written: Any, taken: Any, place: Callable[[Keys], str], keys: Keys = ()) -> list[str]:
    """One sentence for each plain value that validation took for another type: true for 1, "5" for 5, 1 for true.

    Text for a float is fine ("1e-5"), and so is 2.0 for 2. `taken` is the dumped config.
    """
    if isinstance(written, dict) and isinstance(taken, dict):
        pairs = [(key, written[key], taken[key]) for key in written if key in taken]
    elif isinstance(written, list) and isinstance(taken, (list, tuple)) and len(written) == len(taken):
        pairs = [(position, *both) for position, both in enumerate(zip(written, taken, strict=True))]
    else:
        pairs = []
        expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(type(taken))
        wrong = (
            (isinstance(written, bool) and not isinstance(taken, bool))
            or (isinstance(written, (int, float, str)) and not isinstance(written, bool) and isinstance(taken, bool))
            or (isinstance(written, str) and isinstance(taken, int) and _is_number(written))
        )
        if expected and wrong:
            hint = " Remove the quotes." if isinstance(written, str) else ""
            return [f"{place(keys)}: {dotted(keys)}: expected {expected}, found {_shown(written)}.{hint}"]
    return [line for key, old, new in pairs for line in coercions(old, new, place, (*keys, key))]


def suggest(name: str, known: Iterable[str]) -> str:
    """A question to end a message with where some known name is close to `name`, nothing otherwise."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _keys(detail: ErrorDetails, data: Any) -> Keys:
    """Where in `data` the error is: pydantic's location without the names of union members that it mixes in."""
    keys: list[str | int] = []
    value = data
    for step, key in enumerate(detail["loc"]):
        inside_list = isinstance(value, list) and isinstance(key, int) and key < len(value)
        if inside_list or (isinstance(value, dict) and key in value):
            keys.append(key)
            value = value[key]
        elif detail["type"] == "missing" and step == len(detail["loc"]) - 1:
            keys.append(key)
    return tuple(keys)


def _sentence(cls: type[BaseModel], data: Any, keys: Keys, details: list[ErrorDetails]) -> str:
    kind, name = details[0]["type"], dotted(keys)
    if kind == "extra_forbidden":
        return _unknown(cls, data, keys)
    if kind == "missing":
        infos = [section.model_fields.get(str(keys[-1])) for section in sections_at(cls, keys[:-1], data)]
        types = " | ".join(dict.fromkeys(field_type(info) for info in infos if info))
        return f"{name} is missing. Set it: {types}."
    if kind in ("value_error", "assertion_error"):
        said = str(details[0].get("ctx", {}).get("error", details[0]["msg"]))
        return f"{name}: {said}" if name else said
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
    start = f"{name}: expected" if name else "Expected"
    return f"{start} {expected}, found {_shown(details[0]['input'])}.{_hint(details)}"


def _expected(detail: ErrorDetails) -> str:
    phrase = EXPECTED.get(detail["type"])
    context = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in detail.get("ctx", {}).items()
    }
    return phrase.format(**context) if phrase else detail["msg"]


def _unknown(cls: type[BaseModel], data: Any, keys: Keys) -> str:
    name = str(keys[-1])
    known = [field for section in sections_at(cls, keys[:-1], data) for field in section.model_fields]
    advice = suggest(name, known)
    if not advice:
        elsewhere = [doc.name for doc in fields_of(cls) if doc.name.rpartition(".")[2] == name]
        advice = f" Elsewhere there is {', '.join(elsewhere[:4])}." if elsewhere else ""
    if not advice and known:
        listed = ", ".join(dict.fromkeys(known[:MAX_KNOWN])) + (", …" if len(known) > MAX_KNOWN else "")
        advice = f" Known here: {listed}."
    return f"{dotted(keys)} is not a setting.{advice}"


def _hint(details: list[ErrorDetails]) -> str:
    found, kinds = details[0]["input"], {detail["type"] for detail in details}
    if "literal_error" in kinds and isinstance(found, str):
        choices = " ".join(str(detail.get("ctx", {}).get("expected", "")) for detail in details)
        return suggest(found, choices.split("'")[1::2])
    if "union_tag_invalid" in kinds:
        context = details[0].get("ctx", {})
        return suggest(str(context.get("tag")), str(context.get("expected_tags", "")).split("'")[1::2])
    if kinds & NUMBER_TYPES and isinstance(found, str) and _is_number(found):
        return " Remove the quotes."
    if "string_type" in kinds and isinstance(found, (int, float)):
        return " Put it in quotes."
    if kinds & SECTION_TYPES and found is None:
        return " Remove the key, or write {} after it for the defaults."
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_FOUND else text[:MAX_FOUND] + "…"
