"""Typed values out of raw rows; whatever does not fit is a `RecordError` that names place and field."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from keel.data.records import Message, Prompt
from keel.data.rows import RecordError, Row

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
}
A_CHAT = "a chat (a list of messages with role and content)"


def text(row: Row, name: str) -> str:
    """The text in column `name`, with something other than white space in it."""
    return checked_text(row, name, value(row, name))


def value(row: Row, name: str) -> Any:
    """Whatever stands in column `name`, not null."""
    if name not in row.values:
        columns = ", ".join(row.values) or "none"
        raise RecordError(
            row.place,
            f"no column {name}",
            f"there is no column {name!r}; the record has {columns}. Map it with columns: {{{name}: <its name here>}}.",
        )
    found = row.values[name]
    if found is None:
        raise RecordError(row.place, f"{name} is null", f"{name} is null. Fill it in or drop the {row.place.unit}.")
    return found


def checked_text(row: Row, name: str, found: Any) -> str:
    """`found` if it is a usable text; `name` says in the error what it was."""
    if not isinstance(found, str):
        raise wrong_type(row, name, found, "text")
    if not found.strip():
        raise RecordError(row.place, f"{name} is empty", f"{name} is empty. Fill it in or drop the {row.place.unit}.")
    if not found.isascii() and any("\ud800" <= character <= "\udfff" for character in found):
        raise RecordError(
            row.place,
            f"{name} is broken Unicode",
            f"{name} holds half of a surrogate pair, which is no character. Correct it or drop the {row.place.unit}.",
        )
    return found


def wrong_type(row: Row, name: str, found: Any, expected: str) -> RecordError:
    shown = json.dumps(found, default=str, ensure_ascii=True)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return RecordError(
        row.place, f"{name} has the wrong type", f"{name} is {type(found).__name__} {shown}, {expected} was expected."
    )


def number(row: Row, name: str, default: float) -> float:
    """The number in column `name`, at least 0; `default` where the column is absent or null."""
    found = row.values.get(name)
    if found is None or found == "":
        return default
    result = _float(found)
    if not (math.isfinite(result) and result >= 0):
        raise wrong_type(row, name, found, "a number of at least 0")
    return result


def checked_number(row: Row, name: str, found: Any) -> float:
    """`found` if it is a finite number or the text of one; `name` says in the error what it was."""
    result = _float(found)
    if not math.isfinite(result):
        raise wrong_type(row, name, found, "a number")
    return result


def _float(found: Any) -> float:
    try:
        return float(found) if isinstance(found, str | int | float) and not isinstance(found, bool) else math.nan
    except ValueError:
        return math.nan


YES_OR_NO: dict[Any, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
"""True and 1 are one key, False and 0 another."""


def yes_or_no(row: Row, name: str) -> bool:
    """The answer in column `name`: true or false, 1 or 0, or one of these as text."""
    found = value(row, name)
    key = found.strip().lower() if isinstance(found, str) else found
    if not isinstance(key, str | int | float) or key not in YES_OR_NO:
        raise wrong_type(row, name, found, "true or false")
    return YES_OR_NO[key]


def name_of(row: Row, name: str) -> str:
    """The name in column `name`, "" where there is none or it is "unknown"."""
    found = row.values.get(name)
    return found if isinstance(found, str) and found != "unknown" else ""


def prompt(row: Row, name: str) -> Prompt:
    """The prompt in column `name`: a text, or the turns of a chat that wait for the assistant."""
    found = value(row, name)
    if isinstance(found, str):
        return checked_text(row, name, found)
    return waiting(row, name, messages(row, name, found, f"text or {A_CHAT}"))


def waiting(row: Row, name: str, turns: Sequence[Message]) -> tuple[Message, ...]:
    """`turns` if it is the assistant's turn after them."""
    if not turns or turns[-1].role == "assistant":
        found = "is empty" if not turns else "ends with an assistant turn"
        raise RecordError(
            row.place, f"{name} {found}", f"{name} {found}; a chat that waits for the assistant was expected."
        )
    if all(turn.role == "system" for turn in turns):
        raise RecordError(row.place, f"{name} asks nothing", f"{name} holds a system message and no user turn.")
    return tuple(turns)


def messages(row: Row, name: str, found: Any, expected: str = A_CHAT) -> tuple[Message, ...]:
    """The turns of a chat: objects with role and content, or with from and value as ShareGPT writes them."""
    if not is_chat(found):
        raise wrong_type(row, name, found, expected)
    return tuple(_message(row, f"{name}[{index}]", turn) for index, turn in enumerate(found))


def with_system(row: Row, turns: Sequence[Message]) -> tuple[Message, ...]:
    """`turns` behind the system message of column `system`, where there is one."""
    system = row.values.get("system")
    return (Message("system", checked_text(row, "system", system)), *turns) if system else tuple(turns)


def is_chat(found: Any) -> bool:
    return isinstance(found, Sequence) and not isinstance(found, str) and all(isinstance(t, Mapping) for t in found)


def _message(row: Row, name: str, turn: Mapping[str, Any]) -> Message:
    role_name, content_name = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
    for key in (role_name, content_name):
        if key not in turn:
            raise RecordError(row.place, f"message without {key}", f"{name} has no {key}; it has {', '.join(turn)}.")
    role = ROLES.get(str(turn[role_name]).lower())
    if role is None:
        known = ", ".join(ROLES)
        raise RecordError(
            row.place, "unknown role", f"{name} has the role {turn[role_name]!r}; keel knows {known}. Rename it."
        )
    if turn.get("tool_calls"):
        raise RecordError(
            row.place,
            "tool calls",
            f"{name} calls tools, which keel does not read. Write the call into the content or drop the record.",
        )
    return Message(role, checked_text(row, f"{name}.{content_name}", turn[content_name]))


def answer(row: Row, name: str) -> str:
    """A response: a text, a message of the assistant, or a chat of one such message."""
    found = value(row, name)
    if isinstance(found, str):
        return checked_text(row, name, found)
    if isinstance(found, Mapping):
        found = [found]
    turns = messages(row, name, found, f"text or {A_CHAT}")
    if len(turns) != 1 or turns[0].role != "assistant":
        roles = ", ".join(turn.role for turn in turns) or "none"
        raise RecordError(
            row.place, f"{name} is not one turn", f"{name} has the turns {roles}; one assistant turn was expected."
        )
    return turns[0].content


def written_prompt(prompt: Prompt) -> str | list[dict[str, str]]:
    """The value of a prompt column: a text, or messages with role and content."""
    return prompt if isinstance(prompt, str) else written_chat(prompt)


def written_chat(turns: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def written_answer(prompt: Prompt, response: str) -> str | list[dict[str, str]]:
    """The value of a response column beside `written_prompt`: a text beside a text, a chat beside a chat (TRL)."""
    return response if isinstance(prompt, str) else written_chat([Message("assistant", response)])
