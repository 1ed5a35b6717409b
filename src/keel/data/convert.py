"""Records of one kind made of records of another: preferred responses as demonstrations, texts as chats, prompts."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from keel.data import hh
from keel.data.dialect import Kind
from keel.data.records import (
    Comparison,
    Demonstration,
    LabelledText,
    Message,
    Prompt,
    Ranking,
    Rating,
    Record,
    prompt_key,
)
from keel.data.rows import RecordError, Row


def converted(row: Row, record: Record, kind: Kind, as_chat: bool) -> Iterator[Record]:
    """`record` as records of the kind asked for, text prompts turned into chats if that is wanted."""
    for made in _as_kind(row, record, kind):
        yield as_chat_record(row, made) if as_chat else made


def _as_kind(row: Row, record: Record, kind: Kind) -> Iterable[Record]:
    match record, kind:
        case (
            (Demonstration(), "demonstrations")
            | (Comparison(), "comparisons")
            | (Rating(), "ratings")
            | (Ranking(), "rankings")
        ):
            return (record,)
        case LabelledText(), _:  # comparisons are made of all labelled texts together
            return (record.text if kind == "prompts" else record,)
        case Comparison(prompt), "demonstrations":
            if record.preference == 0.5:
                raise RecordError(row.place, "tie", "a tie has no preferred response to imitate.", harmless=True)
            return (Demonstration(prompt, record.a if record.preference > 0.5 else record.b, record.source),)
        case Comparison(prompt), "ratings":
            if record.preference == 0.5:
                raise RecordError(row.place, "tie", "a tie has no desirable response.", harmless=True)
            a_first = record.preference > 0.5
            return (
                Rating(prompt, record.a, a_first, record.source),
                Rating(prompt, record.b, not a_first, record.source),
            )
        case Ranking(), "comparisons":
            return record.pairs()
        case Ranking(prompt), "demonstrations":
            best = max(range(len(record.scores)), key=lambda at: record.scores[at])
            return (Demonstration(prompt, record.responses[best], record.source),)
        case Rating(prompt, response, desirable), "demonstrations":
            if not desirable:
                raise RecordError(row.place, "undesirable", "thumbs down: no response to imitate.", harmless=True)
            return (Demonstration(prompt, response, record.source),)
        case Demonstration(prompt, response), "prompts":
            return (prompt or response,)
        case ((Comparison(prompt) | Ranking(prompt) | Rating(prompt)), "prompts"):
            return (prompt,)
        case _, "prompts":
            return (record,)
        case _:
            raise RecordError(
                row.place, "no answer", "the chat waits for the assistant: there is no response to imitate."
            )


def as_chat_record(row: Row, record: Record) -> Record:
    """`record` with its text prompt as a chat: HH dialogues turn by turn, other texts as one user message."""
    match record:
        case Demonstration(str() as prompt, response) if prompt:
            turns, (answer,) = _chat(row, prompt, response)
            return Demonstration(turns, answer, record.source)
        case Comparison(str() as prompt, a, b) if prompt:
            turns, (a, b) = _chat(row, prompt, a, b)
            return replace(record, prompt=turns, a=a, b=b)
        case Rating(str() as prompt, response) if prompt:
            turns, (answer,) = _chat(row, prompt, response)
            return replace(record, prompt=turns, response=answer)
        case Ranking(str() as prompt, responses):
            turns, said = _chat(row, prompt, *responses)
            return replace(record, prompt=turns, responses=said)
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
