"""Readers and writers of one response: demonstrations, prompts, ratings, labelled texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keel.data import fields
from keel.data.dialect import UnwritableError, keys_beside
from keel.data.fields import written_answer, written_chat, written_prompt
from keel.data.records import Demonstration, LabelledText, Message, Prompt, Rating
from keel.data.rows import RecordError, Row, Values

SHAREGPT_ROLES = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}


def read_answered(prompt_name: str, response_name: str) -> Callable[[Row], Demonstration]:
    """Reader of a prompt and a response in two columns, each a text or a chat."""

    def read(row: Row) -> Demonstration:
        return Demonstration(fields.prompt(row, prompt_name), fields.answer(row, response_name), row.place.source)

    return read


def write_prompt_response(record: Demonstration) -> dict[str, Any]:
    return {"prompt": written_prompt(_asked(record.prompt)), "response": record.response}


def write_prompt_completion(record: Demonstration) -> dict[str, Any]:
    prompt = _asked(record.prompt)
    return {"prompt": written_prompt(prompt), "completion": written_answer(prompt, record.response)}


def read_alpaca(row: Row) -> Demonstration:
    """Instruction and optional input, joined by a blank line; a chat where there is a system text or a history."""
    return Demonstration(instructed(row), fields.text(row, "output"), row.place.source)


def instructed(row: Row) -> Prompt:
    """The prompt of the alpaca columns; `history`, a list of (asked, answered), and `system` make it a chat."""
    instruction = fields.text(row, "instruction")
    context = row.values.get("input") or ""
    if context and not isinstance(context, str):
        raise fields.wrong_type(row, "input", context, "text")
    prompt = f"{instruction}\n\n{context}" if context.strip() else instruction
    history = row.values.get("history")
    if history is None and not row.values.get("system"):
        return prompt
    turns: list[Message] = []
    for number, pair in enumerate(history or ()):
        name = f"history[{number}]"
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise fields.wrong_type(row, name, pair, "a pair of texts, what was asked and what was answered")
        turns += [
            Message(role, fields.checked_text(row, name, said))
            for role, said in zip(("user", "assistant"), pair, strict=True)
        ]
    return fields.with_system(row, [*turns, Message("user", prompt)])


def write_alpaca(record: Demonstration) -> dict[str, Any]:
    return written_instruction(record.prompt) | {"output": record.response}


def written_instruction(prompt: Prompt) -> dict[str, Any]:
    """The alpaca columns of a prompt. A chat needs `history`: user and assistant in turn behind a system message."""
    if isinstance(prompt, str):
        return {"instruction": _asked(prompt), "input": ""}
    system = prompt[0].content if prompt[0].role == "system" else ""
    turns = prompt[1:] if system else prompt
    roles = [turn.role for turn in turns]
    if roles != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise UnwritableError(f"alpaca's history holds user and assistant in turn, this chat has {', '.join(roles)}")
    said = [turn.content for turn in turns]
    history = [list(pair) for pair in zip(said[:-1:2], said[1:-1:2], strict=True)]
    return {"instruction": said[-1], "input": "", "system": system, "history": history}


def chat_of(row: Row, name: str) -> tuple[Message, ...]:
    """The turns in column `name`, behind the system message that a column of that name may hold."""
    return fields.with_system(row, fields.messages(row, name, fields.value(row, name)))


def read_messages(name: str) -> Callable[[Row], Demonstration | Prompt]:
    """Reader of a whole chat: a demonstration if the assistant has the last turn, otherwise a prompt."""

    def read(row: Row) -> Demonstration | Prompt:
        turns = chat_of(row, name)
        if not turns or turns[-1].role != "assistant":
            return fields.waiting(row, name, turns)
        prompt = fields.waiting(row, f"{name} before the last turn", turns[:-1])
        return Demonstration(prompt, turns[-1].content, row.place.source)

    return read


def whole_chat(prompt: Prompt, response: str) -> list[Message]:
    """Prompt and response as one chat; a text is one user turn."""
    turns = (Message("user", _asked(prompt)),) if isinstance(prompt, str) else prompt
    return [*turns, Message("assistant", response)]


def write_messages(record: Demonstration | Prompt) -> dict[str, Any]:
    if isinstance(record, Demonstration):
        return {"messages": written_chat(whole_chat(record.prompt, record.response))}
    return {"messages": written_chat([Message("user", record)] if isinstance(record, str) else record)}


def write_sharegpt(record: Demonstration | Prompt) -> dict[str, Any]:
    return {"conversations": sharegpt_turns(write_messages(record)["messages"])}


def sharegpt_turns(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Messages with from and value; ShareGPT calls the user human and the assistant gpt."""
    return [{"from": SHAREGPT_ROLES[turn["role"]], "value": turn["content"]} for turn in messages]


def unread_in_chat(*names: str) -> Callable[[Values], list[str]]:
    """What chats in the columns `names` hold besides roles and contents."""

    def unread(values: Values) -> list[str]:
        known = ("role", "content", "from", "value")
        return [f"{name}[].{key}" for name in names for key in keys_beside(values.get(name), known)]

    return unread


def read_text(row: Row) -> Demonstration:
    """A document: a response to no prompt."""
    return Demonstration("", fields.text(row, "text"), row.place.source)


def write_text(record: Demonstration) -> dict[str, Any]:
    if record.prompt:
        raise UnwritableError("a text has no prompt of its own")
    return {"text": record.response}


def read_prompt(row: Row) -> Prompt:
    return fields.prompt(row, "prompt")


def write_prompt(record: Prompt) -> dict[str, Any]:
    return {"prompt": written_prompt(record)}


def read_unpaired(row: Row) -> Rating:
    """A prompt, a completion and a label: true for thumbs up (TRL)."""
    label = fields.yes_or_no(row, "label")
    return Rating(fields.prompt(row, "prompt"), fields.answer(row, "completion"), label, row.place.source)


def write_unpaired(record: Rating) -> dict[str, Any]:
    prompt = _asked(record.prompt)
    answer = written_answer(prompt, record.response)
    return {"prompt": written_prompt(prompt), "completion": answer, "label": record.desirable}


def read_tagged_chat(name: str, tag: str) -> Callable[[Row], Rating]:
    """Reader of a chat whose last answer is rated in column `tag` (LLaMA-Factory)."""

    def read(row: Row) -> Rating:
        desirable = fields.yes_or_no(row, tag)
        record = read_messages(name)(row)
        if not isinstance(record, Demonstration):
            raise RecordError(row.place, f"{name} has no answer", f"{name} ends before the assistant answers.")
        return Rating(record.prompt, record.response, desirable, row.place.source)

    return read


def read_tagged_alpaca(row: Row) -> Rating:
    """The alpaca columns with thumbs up or down in `kto_tag` (LLaMA-Factory)."""
    return Rating(instructed(row), fields.text(row, "output"), fields.yes_or_no(row, "kto_tag"), row.place.source)


def write_tagged(record: Rating) -> dict[str, Any]:
    """LLaMA-Factory's KTO columns: alpaca for a text, ShareGPT for a chat."""
    if isinstance(record.prompt, str):
        columns = written_instruction(record.prompt) | {"output": record.response}
    else:
        columns = write_sharegpt(Demonstration(record.prompt, record.response))
    return columns | {"kto_tag": record.desirable}


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


def read_labelled(row: Row) -> LabelledText:
    found = fields.value(row, "label")
    key = found.strip().lower() if isinstance(found, str) else found
    if not isinstance(key, int | str | float) or key not in LABELS:
        raise fields.wrong_type(row, "label", found, "0, 1, positive or negative")
    return LabelledText(fields.text(row, "text"), LABELS[key], row.place.source)


def write_labelled(record: LabelledText) -> dict[str, Any]:
    return {"text": record.text, "label": int(record.label)}


def _asked(prompt: Any) -> Any:
    """`prompt` if there is one."""
    if not prompt:
        raise UnwritableError("a record without a prompt cannot stand beside records with one")
    return prompt
