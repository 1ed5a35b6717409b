"""Records of one kind made of records of another: preferred responses as demonstrations, texts as chats, prompts."""

from collections.abc import Iterable, Iterator

from keel.data import hh
from keel.data.dialects import Kind
from keel.data.records import Comparison, Demonstration, LabelledText, Message, Prompt, Record, prompt_key
from keel.data.rows import RecordError, Row


def converted(row: Row, record: Record, kind: Kind, as_chat: bool) -> Record:
    """`record` as what was asked for, its text prompt turned into a chat if that is wanted."""
    record = _as_kind(row, record, kind)
    return _chat_record(row, record) if as_chat else record


def _as_kind(row: Row, record: Record, kind: Kind) -> Record:
    match record, kind:
        case (Demonstration(), "demonstrations") | (Comparison(), "comparisons") | (LabelledText(), _):
            return record.text if isinstance(record, LabelledText) and kind == "prompts" else record
        case Comparison(prompt), "demonstrations":
            if record.preference == 0.5:
                raise RecordError(row.place, "tie", "a tie has no preferred response to imitate.", harmless=True)
            return Demonstration(prompt, record.a if record.preference > 0.5 else record.b, record.source)
        case Demonstration(prompt, response), "prompts":
            return prompt or response
        case Comparison(prompt), "prompts":
            return prompt
        case _, "prompts":
            return record
        case _:
            raise RecordError(
                row.place, "no answer", "the chat waits for the assistant: there is no response to imitate."
            )


def _chat_record(row: Row, record: Record) -> Record:
    match record:
        case Demonstration(str() as prompt, response) if prompt:
            turns, (answer,) = _chat(row, prompt, response)
            return Demonstration(turns, answer, record.source)
        case Comparison(str() as prompt, a, b) if prompt:
            turns, (a, b) = _chat(row, prompt, a, b)
            return Comparison(turns, a, b, record.preference, record.weight, record.margin, record.votes, record.source)
        case str():
            return _chat(row, record)[0]
        case _:
            return record


def _chat(row: Row, prompt: str, *answers: str) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    if not hh.is_dialogue(prompt):
        return (Message("user", prompt),), answers
    turns = hh.turns(prompt)
    if not turns or turns[-1].role != "user":
        raise RecordError(row.place, "empty turn", "the last Human turn before the answer is empty.")
    return turns, tuple(answer.strip() for answer in answers)


def distinct(prompts: Iterable[Prompt], tally: dict[str, int]) -> Iterator[Prompt]:
    """The first of all prompts that share a key; the others are counted."""
    seen: set[str] = set()
    for prompt in prompts:
        key = prompt_key(prompt)
        if key in seen:
            tally["repeated prompt"] = tally.get("repeated prompt", 0) + 1
        else:
            seen.add(key)
            yield prompt
