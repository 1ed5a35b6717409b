"""What a record loses when it is written in some format, found by reading the row back."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from keel.data.dialect import Dialect, Kind, UnwritableError
from keel.data.records import Choice, Comparison, Record, prompt_text
from keel.data.rows import RecordError, Row, Values

OTHER_SIDE: dict[Choice, Choice] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad", "skip": "skip"}
NAMES = {
    "preference": "how sure the preference is",
    "weight": "weights",
    "margin": "margins",
    "votes": "votes",
    "models": "which model wrote what",
    "scores": "scores",
    "a": "the exact text of responses",
    "b": "the exact text of responses",
    "response": "the exact text of responses",
    "responses": "the exact text of responses",
}
OF_KINDS: Mapping[tuple[Kind, Kind], str] = {
    ("comparisons", "demonstrations"): "rejected responses and what was said of them",
    ("comparisons", "ratings"): "which two responses were compared, and how sure the preference is",
    ("rankings", "comparisons"): "scores (their order is kept)",
    ("rankings", "demonstrations"): "all but the best responses, and scores",
    ("ratings", "demonstrations"): "undesirable responses",
    ("labelled texts", "comparisons"): "texts without a partner of the other label",
}
"""What goes when records of one kind are made of records of another; to prompts everything else does."""


def of_kind(made_of: Kind, kind: Kind) -> str:
    """What is lost by the kind alone; "" where nothing is."""
    if made_of == kind:
        return ""
    return "responses and what was said of them" if kind == "prompts" else OF_KINDS.get((made_of, kind), "")


def losses(record: Record, back: Record) -> list[str]:
    """What differs between a record and what was read back, in words. Which side is a does not count."""
    if record == back:
        return []
    if type(record) is not type(back) or not is_dataclass(record):
        return [_of_prompt(record, back)]
    if isinstance(record, Comparison) and isinstance(back, Comparison) and (record.a, record.b) == (back.b, back.a):
        record = mirrored(record)
    names: list[str] = []
    for field in fields(record):
        one, other = getattr(record, field.name), getattr(back, field.name)
        if field.compare and one != other:
            names.append(_of_prompt(one, other) if field.name == "prompt" else NAMES.get(field.name, field.name))
    return list(dict.fromkeys(names))


def mirrored(record: Comparison) -> Comparison:
    """The same judgment with the sides exchanged."""
    votes = tuple(replace(vote, choice=OTHER_SIDE[vote.choice]) for vote in record.votes)
    preference, models = 1.0 - record.preference, record.models[::-1]
    return replace(record, a=record.b, b=record.a, preference=preference, votes=votes, models=models)


def read_back(dialect: Dialect, row: Row, found: Values) -> Record:
    """The record that `found`, a row written in `dialect`, is read as; UnwritableError where it cannot be read."""
    try:
        return dialect.read(Row(row.place, found))
    except RecordError as bad:
        # the place is that of the source; what is wrong is said of the row that would have been written
        raise UnwritableError(str(bad).removeprefix(f"{row.place}: ")) from bad


def _of_prompt(one: Any, other: Any) -> str:
    if isinstance(one, str | tuple) and isinstance(other, str | tuple) and prompt_text(one) == prompt_text(other):
        return "that prompts are chats"
    return "where prompts end and responses begin"
