"""Texts and values on their way into the database and back: JSON in one form, and nothing that a database refuses."""

import hashlib
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from keel.core.errors import DataError
from keel.data.records import Message, Prompt

MAX_CHARS = 1_000_000
"""Longest text that an item, a guide or a rationale may have."""


def canonical(value: Any, what: str) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no nan. DataError names what cannot be written."""
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{what}: cannot be written as JSON ({error}).") from error
    return text


def checked(text: str, what: str, limit: int = MAX_CHARS) -> str:
    """The text as it is. DataError for NUL and lone surrogates, which databases refuse, and for one too long."""
    if len(text) > limit:
        raise DataError(f"{what}: {len(text):,} characters, more than the {limit:,} that fit. Shorten it.")
    if "\0" in text:
        raise DataError(f"{what}: holds a NUL character (U+0000) at position {text.index(chr(0))}. Take it out.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what}: holds half of a character (a lone surrogate) at position {error.start}, so it is no Unicode "
            "text. Read the source with the right encoding."
        ) from error
    return text


def checked_or_none(text: str | None, what: str, limit: int = MAX_CHARS) -> str | None:
    """As `checked`; an absent or blank text is None."""
    return checked(text, what, limit) if text is not None and text.strip() else None


def name_key(name: str) -> str:
    """Under what two names are the same: compatibility forms, letter case and spaces apart."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def checked_name(name: str, what: str, limit: int = 100) -> str:
    """A name for people: not blank, no control or invisible formatting characters."""
    name = " ".join(checked(name, what, limit).split())
    if not name_key(name):
        raise DataError(f"{what}: is blank. Give a name.")
    odd = next((c for c in name if unicodedata.category(c) in {"Cc", "Cf", "Co", "Cn"}), None)
    if odd is not None:
        raise DataError(f"{what}: holds the invisible character U+{ord(odd):04X}. Write the name without it.")
    return name


def number(value: float, what: str) -> float:
    """The value as a finite float."""
    if not math.isfinite(value):
        raise DataError(f"{what}: is {value}, expected a finite number.")
    return float(value)


def skill_key(skills: Iterable[str]) -> str:
    """Skills in the one form that can be compared: sorted, each once, JSON."""
    return canonical(sorted({checked_name(skill, "A skill") for skill in skills}), "skills")


def prompt_json(prompt: Prompt, what: str) -> str:
    """A prompt as JSON: a text, or a list of messages."""
    if isinstance(prompt, str):
        return canonical(checked(prompt, what), what)
    for message in prompt:
        checked(message.content, what)
    turns = [{"role": checked(turn.role, what, 100), "content": turn.content} for turn in prompt]
    return canonical(turns, what)


def prompt_of(text: str) -> Prompt:
    """The prompt that `prompt_json` wrote."""
    value = json.loads(text)
    if isinstance(value, str):
        return value
    return tuple(Message(turn["role"], turn["content"]) for turn in value)


def mapping_of(text: str) -> Mapping[str, Any]:
    return json.loads(text)


def strings_of(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def content_key(prompt: str, a: str, b: str) -> str:
    """Hash of an item, 32 hex digits, whichever answer stands first; `prompt` as JSON."""
    first, second = sorted((a, b))
    text = canonical([prompt, first, second], "item")
    return hashlib.sha256(text.encode()).hexdigest()[:32]
