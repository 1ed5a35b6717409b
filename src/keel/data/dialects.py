"""The ways in which published sets write records, one row each in `DIALECTS`.

A dialect has columns that must be there, the shape of what stands in them where columns alone do not tell it apart,
and a reader. `keel.data.formats.detect` picks the dialect; nothing here guesses.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from keel.data import fields, hh, votes
from keel.data.records import Comparison, Demonstration, LabelledText, Message, Prompt, Record
from keel.data.rows import RecordError, Row, Values

Kind = Literal["demonstrations", "comparisons", "prompts", "labelled texts"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One way to write records."""

    name: str  # what `format:` says
    columns: tuple[str, ...]  # must be there
    read: Callable[[Row], Record]
    gives: tuple[Kind, ...]
    shape: Callable[[Values], bool] = lambda values: True  # must hold besides
    shape_text: str = ""  # the shape in words


def read_answered(prompt_name: str, response_name: str) -> Callable[[Row], Demonstration]:
    """Reader of a prompt and a response in two columns, each a text or a chat."""

    def read(row: Row) -> Demonstration:
        return Demonstration(fields.prompt(row, prompt_name), fields.answer(row, response_name), row.place.source)

    return read


def read_alpaca(row: Row) -> Demonstration:
    """Instruction and optional input, joined by a blank line."""
    instruction = fields.text(row, "instruction")
    context = row.values.get("input") or ""
    if context and not isinstance(context, str):
        raise fields.wrong_type(row, "input", context, "text")
    prompt = f"{instruction}\n\n{context}" if context.strip() else instruction
    return Demonstration(prompt, fields.text(row, "output"), row.place.source)


def read_messages(name: str) -> Callable[[Row], Demonstration | Prompt]:
    """Reader of a whole chat: a demonstration if the assistant has the last turn, otherwise a prompt."""

    def read(row: Row) -> Demonstration | Prompt:
        turns = fields.messages(row, name, fields.value(row, name))
        if not turns or turns[-1].role != "assistant":
            return fields.waiting(row, name, turns)
        prompt = fields.waiting(row, f"{name} before the last turn", turns[:-1])
        return Demonstration(prompt, turns[-1].content, row.place.source)

    return read


def read_unpaired(row: Row) -> Prompt:
    """The prompt of an answer with thumbs up or down."""
    if "prompt" in row.values:
        return fields.prompt(row, "prompt")
    record = read_messages("messages")(row)
    return record.prompt if isinstance(record, Demonstration) else record


def read_text(row: Row) -> Demonstration:
    """A document: a response to no prompt."""
    return Demonstration("", fields.text(row, "text"), row.place.source)


def read_prompt(row: Row) -> Prompt:
    return fields.prompt(row, "prompt")


def read_preference(row: Row) -> Comparison:
    """Chosen and rejected answers to a prompt, or (UltraFeedback) whole chats that repeat it."""
    if _opens_a_chat(row.values.get("chosen")):
        return read_implicit(row)
    prompt = fields.prompt(row, "prompt" if "prompt" in row.values else "messages")
    chosen, rejected = fields.answer(row, "chosen"), fields.answer(row, "rejected")
    if isinstance(prompt, str) and chosen.startswith(prompt) and rejected.startswith(prompt):
        raise RecordError(
            row.place,
            "answers repeat the prompt",
            "chosen and rejected both begin with the prompt. If they are whole texts, say format: preference_implicit "
            "(or hh); otherwise cut the prompt off.",
        )
    return _preferred(row, prompt, chosen, rejected)


def read_implicit(row: Row) -> Comparison:
    """Two whole texts or chats; what they share at the start is the prompt.

    Texts part behind the last word that both share whole, and the white space before the next word stays with the
    responses.
    """
    chosen, rejected = fields.value(row, "chosen"), fields.value(row, "rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        fields.checked_text(row, "chosen", chosen)
        fields.checked_text(row, "rejected", rejected)
        if chosen == rejected:
            raise _identical(row, "chosen and rejected")
        prompt = _shared_words(chosen, rejected)
        return _preferred(row, fields.checked_text(row, "the shared start", prompt), *_behind(row, prompt))
    first = fields.messages(row, "chosen", chosen)
    second = fields.messages(row, "rejected", rejected)
    if first == second:
        raise _identical(row, "chosen and rejected")
    if first[:-1] != second[:-1]:
        raise _different_prompts(row)
    turns = fields.waiting(row, "the shared start", first[:-1])
    return _preferred(row, turns, _last(row, "chosen", first), _last(row, "rejected", second))


def read_hh(row: Row) -> Comparison:
    """Two dialogues that part at the last assistant turn."""
    dialogues = [fields.text(row, name) for name in ("chosen", "rejected")]
    for name, dialogue in zip(("chosen", "rejected"), dialogues, strict=True):
        if not hh.is_dialogue(dialogue):
            raise RecordError(
                row.place,
                "no dialogue",
                f"{name} does not open with {hh.HUMAN!r} or has no {hh.ASSISTANT!r}. "
                "Plain texts are read with format: preference_implicit.",
            )
    (prompt, chosen), (other_prompt, rejected) = map(hh.divide, dialogues)
    if prompt != other_prompt:
        raise _different_prompts(row)
    return _preferred(
        row, prompt, fields.checked_text(row, "chosen", chosen), fields.checked_text(row, "rejected", rejected)
    )


def read_comparison(row: Row) -> Comparison:
    """Two responses with a preference, or with votes that decide it."""
    return _compared(row, fields.prompt(row, "prompt"), "response_a", "response_b")


def read_text_comparison(row: Row) -> Comparison:
    """Two texts that answer no prompt."""
    return _compared(row, "", "text_a", "text_b")


def read_labelled(row: Row) -> LabelledText:
    return LabelledText(fields.text(row, "text"), _label(row), row.place.source)


LABELS: dict[Any, bool] = {
    1: True,  # and the booleans, which equal 1 and 0
    0: False,
    "1": True,
    "0": False,
    "positive": True,
    "negative": False,
    "pos": True,
    "neg": False,
}


def _label(row: Row) -> bool:
    found = fields.value(row, "label")
    key = found.strip().lower() if isinstance(found, str) else found
    if not isinstance(key, int | str | float) or key not in LABELS:
        raise fields.wrong_type(row, "label", found, "0, 1, positive or negative")
    return LABELS[key]


def _compared(row: Row, prompt: Prompt, name_a: str, name_b: str) -> Comparison:
    a, b = fields.answer(row, name_a), fields.answer(row, name_b)
    cast = votes.votes(row, row.values["votes"]) if row.values.get("votes") is not None else ()
    if row.values.get("preference") is not None:
        preference = votes.preference(row, row.values["preference"])
    elif "votes" in row.values:
        shared = votes.share(cast)
        if shared is None:
            raise RecordError(row.place, "no votes", "no rater voted on this pair, or all skipped.", harmless=True)
        preference = shared
    else:
        preference = votes.preference(row, fields.value(row, "preference"))
    if a == b and preference != 0.5:
        raise _identical(row, f"{name_a} and {name_b}")
    weight, margin = fields.number(row, "weight", 1.0), fields.number(row, "margin", 0.0)
    return Comparison(prompt, a, b, preference, weight, margin, cast, row.place.source)


def _preferred(row: Row, prompt: Prompt, chosen: str, rejected: str) -> Comparison:
    if chosen == rejected:
        raise _identical(row, "chosen and rejected")
    return Comparison(prompt, chosen, rejected, 1.0, source=row.place.source)


def _identical(row: Row, names: str) -> RecordError:
    return RecordError(
        row.place, "identical answers", f"{names} are the same text. Record a tie or drop the {row.place.unit}."
    )


def _different_prompts(row: Row) -> RecordError:
    return RecordError(
        row.place,
        "prompts differ before the last turn",
        "chosen and rejected part before the last assistant turn, so they answer different prompts.",
        harmless=True,
    )


def _shared_words(first: str, second: str) -> str:
    shorter = min(len(first), len(second))
    parting = next((at for at in range(shorter) if first[at] != second[at]), shorter)
    start = first[:parting]
    at_a_boundary = all(text[len(start) : len(start) + 1] in ("", " ", "\n", "\t") for text in (first, second))
    if at_a_boundary:
        return start.rstrip()
    whole = re.match(r"(.*?)\s+\S*\Z", start, re.DOTALL)
    return whole[1] if whole else ""


def _behind(row: Row, prompt: str) -> tuple[str, str]:
    rest = [row.values[name][len(prompt) :] for name in ("chosen", "rejected")]
    return fields.checked_text(row, "chosen behind the shared start", rest[0]), fields.checked_text(
        row, "rejected behind the shared start", rest[1]
    )


def _last(row: Row, name: str, turns: tuple[Message, ...]) -> str:
    if turns[-1].role != "assistant":
        raise RecordError(
            row.place, f"{name} has no answer", f"{name} ends with a {turns[-1].role} turn, not an answer."
        )
    return turns[-1].content


def _opens_a_chat(found: Any) -> bool:
    """Whether a chosen chat is a whole one: it begins with someone else than the assistant."""
    return fields.is_chat(found) and bool(found) and fields.ROLES.get(_role(found[0])) in ("system", "user")


def _role(turn: Any) -> str:
    return str(turn.get("role", turn.get("from", ""))).lower()


def _both_dialogues(values: Values) -> bool:
    return hh.is_dialogue(values.get("chosen")) and hh.is_dialogue(values.get("rejected"))


def _both_alike(values: Values) -> bool:
    pair = values.get("chosen"), values.get("rejected")
    return (all(isinstance(v, str) for v in pair) and not _both_dialogues(values)) or all(map(fields.is_chat, pair))


def _chat_in(name: str) -> Callable[[Values], bool]:
    return lambda values: fields.is_chat(values.get(name))


_DEMONSTRATIONS: tuple[Kind, ...] = ("demonstrations", "prompts")
_COMPARISONS: tuple[Kind, ...] = ("comparisons", "demonstrations", "prompts")
_DIALOGUES = f"both texts open with {hh.HUMAN!r}"

DIALECTS: tuple[Dialect, ...] = (
    Dialect("prompt_response", ("prompt", "response"), read_answered("prompt", "response"), _DEMONSTRATIONS),
    Dialect("prompt_completion", ("prompt", "completion"), read_answered("prompt", "completion"), _DEMONSTRATIONS),
    Dialect("messages", ("messages",), read_messages("messages"), _DEMONSTRATIONS, _chat_in("messages"), "a chat"),
    Dialect("sharegpt", ("conversations",), read_messages("conversations"), _DEMONSTRATIONS),
    Dialect("alpaca", ("instruction", "output"), read_alpaca, _DEMONSTRATIONS),
    Dialect("alpaca", ("instruction", "output", "text"), read_alpaca, _DEMONSTRATIONS),
    Dialect("text", ("text",), read_text, _DEMONSTRATIONS),
    Dialect("prompt_only", ("prompt",), read_prompt, ("prompts",)),
    Dialect("unpaired", ("prompt", "completion", "label"), read_unpaired, ("prompts",)),
    Dialect("unpaired", ("messages", "desirable"), read_unpaired, ("prompts",)),
    Dialect("preference", ("prompt", "chosen", "rejected"), read_preference, _COMPARISONS),
    Dialect("preference", ("messages", "chosen", "rejected"), read_preference, _COMPARISONS),
    Dialect(
        "preference_implicit",
        ("chosen", "rejected"),
        read_implicit,
        _COMPARISONS,
        _both_alike,
        "two texts or two chats",
    ),
    Dialect("hh", ("chosen", "rejected"), read_hh, _COMPARISONS, _both_dialogues, _DIALOGUES),
    Dialect("comparison", ("prompt", "response_a", "response_b", "preference"), read_comparison, _COMPARISONS),
    Dialect("comparison", ("prompt", "response_a", "response_b", "votes"), read_comparison, _COMPARISONS),
    Dialect("text_comparison", ("text_a", "text_b", "preference"), read_text_comparison, ("comparisons",)),
    Dialect("labelled_text", ("text", "label"), read_labelled, ("labelled texts", "comparisons", "prompts")),
)

COLUMNS = tuple(dict.fromkeys([*(c for d in DIALECTS for c in d.columns), "input", "weight", "margin"]))
"""Every column name that some dialect reads."""
