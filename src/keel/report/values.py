"""Loose values from JSON made safe to show: numbers, prompts, and text that models or people wrote."""

import math
import re
from collections.abc import Mapping

# Control codes could steer a terminal, bidi marks reorder the text around them, lone surrogates cannot be encoded.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def number(value: object) -> float:
    """`value` as a float, nan when it is absent or no number. JSON writers differ on how they spell nan."""
    if isinstance(value, bool) or value is None:
        return math.nan
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return math.nan
    return math.nan


def first_known(*values: float) -> float:
    """The first of `values` that is finite; nan when none is."""
    return next((value for value in values if math.isfinite(value)), math.nan)


def whole(value: object) -> bool:
    """Whether `value` is a number that int() accepts."""
    return math.isfinite(number(value))


def prompt_as_text(prompt: object) -> str:
    """A prompt as one string; chat messages become paragraphs headed by their role."""
    if isinstance(prompt, list | tuple):
        parts = [
            f"{message.get('role', '')}: {message.get('content', '')}" if isinstance(message, Mapping) else str(message)
            for message in prompt
        ]
        return "\n".join(parts)
    return "" if prompt is None else str(prompt)


def printable(text: str) -> str:
    """`text` with control codes, bidi marks and lone surrogates written as hexadecimal escapes."""
    return UNSAFE.sub(lambda match: _escape_code(ord(match[0])), text.replace("\r\n", "\n"))


def _escape_code(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
