"""Readers and writers of two responses to one prompt, and which is better."""

import re
from collections.abc import Mapping
from typing import Any

from keel.data import fields, hh, votes
from keel.data.answers import chat_of, instructed, sharegpt_turns, whole_chat, written_instruction
from keel.data.dialect import UnwritableError
from keel.data.fields import written_answer, written_chat, written_prompt
from keel.data.records import Comparison, Message, Prompt
from keel.data.rows import RecordError, Row, Values


def read_preference(row: Row) -> Comparison:
    """Chosen and rejected answers to a prompt, or (UltraFeedback, binarised) whole chats that repeat it."""
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


def write_preference(record: Comparison) -> dict[str, Any]:
    prompt, chosen, rejected, models = resolved(record)
    answers = {"chosen": written_answer(prompt, chosen), "rejected": written_answer(prompt, rejected)}
    return {"prompt": written_prompt(prompt)} | answers | models


def write_rewardbench(record: Comparison) -> dict[str, Any]:
    """RewardBench's columns. Its id is the record's line, its subset "keel", where the record came without them."""
    line = record.source.rpartition(":")[2]
    models = {"chosen_model": "unknown", "rejected_model": "unknown"}
    written = write_preference(record)
    return models | written | {"subset": "keel", "id": int(line) if line.isdigit() else 0}


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
            raise identical(row, "chosen and rejected")
        prompt = _shared_words(chosen, rejected)
        return _preferred(row, fields.checked_text(row, "the shared start", prompt), *_behind(row, prompt))
    first = fields.messages(row, "chosen", chosen)
    second = fields.messages(row, "rejected", rejected)
    if first == second:
        raise identical(row, "chosen and rejected")
    if first[:-1] != second[:-1]:
        raise _different_prompts(row)
    turns = fields.waiting(row, "the shared start", first[:-1])
    return _preferred(row, turns, _last(row, "chosen", first), _last(row, "rejected", second))


def write_implicit(record: Comparison) -> dict[str, Any]:
    prompt, chosen, rejected, models = resolved(record)
    if isinstance(prompt, str):
        return {"chosen": prompt + chosen, "rejected": prompt + rejected} | models
    return {
        name: written_chat(whole_chat(prompt, answer)) for name, answer in (("chosen", chosen), ("rejected", rejected))
    } | models


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


def write_hh(record: Comparison) -> dict[str, Any]:
    """Dialogues; a chat turn by turn, a text that is none as one Human turn."""
    prompt, chosen, rejected, models = resolved(record)
    if isinstance(prompt, str) and hh.is_open_dialogue(prompt):
        return {"chosen": prompt + chosen, "rejected": prompt + rejected} | models
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    strange = sorted({turn.role for turn in turns} - {"user", "assistant"})
    if strange:
        raise UnwritableError(f"HH dialogues have no {strange[0]} turns")
    opened = hh.dialogue(turns)
    return {"chosen": f"{opened} {chosen}", "rejected": f"{opened} {rejected}"} | models


def read_sharegpt_ranking(row: Row) -> Comparison:
    """A ShareGPT conversation up to the user's turn, with one message or text chosen, one rejected (LLaMA-Factory)."""
    prompt = fields.waiting(row, "conversations", chat_of(row, "conversations"))
    return _preferred(row, prompt, fields.answer(row, "chosen"), fields.answer(row, "rejected"))


def read_alpaca_ranking(row: Row) -> Comparison:
    """The alpaca columns with `chosen` and `rejected` for `output` (LLaMA-Factory)."""
    return _preferred(row, instructed(row), fields.answer(row, "chosen"), fields.answer(row, "rejected"))


def write_llamafactory_ranking(record: Comparison) -> dict[str, Any]:
    """LLaMA-Factory's ranking columns: alpaca for a text, ShareGPT for a chat."""
    prompt, chosen, rejected, models = resolved(record)
    if isinstance(prompt, str):
        return written_instruction(prompt) | {"chosen": chosen, "rejected": rejected} | models
    said = {name: {"from": "gpt", "value": text} for name, text in (("chosen", chosen), ("rejected", rejected))}
    return {"conversations": sharegpt_turns(written_chat(prompt))} | said | models


def read_openai(row: Row) -> Comparison:
    """OpenAI's preference tuning: `input.messages`, and one message each in the two outputs."""
    found = fields.value(row, "input")
    if not isinstance(found, Mapping) or "messages" not in found:
        raise fields.wrong_type(row, "input", found, "an object with messages")
    if found.get("tools"):
        raise RecordError(
            row.place, "tools", "input.tools names tools, which keel does not read. Drop them or drop the record."
        )
    prompt = fields.waiting(row, "input.messages", fields.messages(row, "input.messages", found["messages"]))
    chosen, rejected = fields.answer(row, "preferred_output"), fields.answer(row, "non_preferred_output")
    return _preferred(row, prompt, chosen, rejected, "preferred_output and non_preferred_output")


def write_openai(record: Comparison) -> dict[str, Any]:
    prompt, chosen, rejected, _ = resolved(record)
    turns = whole_chat(prompt, chosen)
    return {
        "input": {"messages": written_chat(turns[:-1]), "tools": [], "parallel_tool_calls": True},
        "preferred_output": written_chat(turns[-1:]),
        "non_preferred_output": written_chat([Message("assistant", rejected)]),
    }


def read_comparison(row: Row) -> Comparison:
    """Two responses with a preference, or with votes that decide it."""
    return _compared(row, fields.prompt(row, "prompt"), "response_a", "response_b")


def read_text_comparison(row: Row) -> Comparison:
    """Two texts that answer no prompt."""
    return _compared(row, "", "text_a", "text_b")


def write_comparison(record: Comparison) -> dict[str, Any]:
    if not record.prompt:
        raise UnwritableError("a comparison of bare texts has no prompt; its format is text_comparison")
    return {
        "prompt": written_prompt(record.prompt),
        "response_a": record.a,
        "response_b": record.b,
    } | _verdict(record)


def write_text_comparison(record: Comparison) -> dict[str, Any]:
    if record.prompt:
        raise UnwritableError("a comparison with a prompt; its format is comparison")
    return {"text_a": record.a, "text_b": record.b} | _verdict(record)


def resolved(record: Comparison) -> tuple[Prompt, str, str, dict[str, str]]:
    """(prompt, chosen, rejected, columns that name the models); UnwritableError where no side is preferred."""
    if not record.prompt:
        raise UnwritableError("the texts answer no prompt")
    if record.preference == 0.5:
        raise UnwritableError("a tie has no chosen answer")
    a_first = record.preference > 0.5
    chosen, rejected = (record.a, record.b) if a_first else (record.b, record.a)
    models = record.models if a_first else record.models[::-1]
    named = {"chosen_model": models[0], "rejected_model": models[1]} if any(models) else {}
    return record.prompt, chosen, rejected, named


def identical(row: Row, names: str) -> RecordError:
    return RecordError(
        row.place, "identical answers", f"{names} are the same text. Record a tie or drop the {row.place.unit}."
    )


def both_dialogues(values: Values) -> bool:
    return hh.is_dialogue(values.get("chosen")) and hh.is_dialogue(values.get("rejected"))


def both_alike(values: Values) -> bool:
    pair = values.get("chosen"), values.get("rejected")
    return (all(isinstance(v, str) for v in pair) and not both_dialogues(values)) or all(map(fields.is_chat, pair))


def _verdict(record: Comparison) -> dict[str, Any]:
    values: dict[str, Any] = {
        "preference": float(record.preference),
        "weight": record.weight,
        "margin": record.margin,
    }
    if record.votes:
        values["votes"] = [
            {"rater": vote.rater, "choice": vote.choice, "strength": vote.strength} for vote in record.votes
        ]
    if any(record.models):
        values |= {"model_a": record.models[0], "model_b": record.models[1]}
    return values


def _compared(row: Row, prompt: Prompt, name_a: str, name_b: str) -> Comparison:
    a, b = fields.answer(row, name_a), fields.answer(row, name_b)
    cast = votes.votes(row, row.values["votes"]) if row.values.get("votes") not in (None, "") else ()
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
        raise identical(row, f"{name_a} and {name_b}")
    weight, margin = fields.number(row, "weight", 1.0), fields.number(row, "margin", 0.0)
    models = (fields.name_of(row, "model_a"), fields.name_of(row, "model_b"))
    return Comparison(prompt, a, b, preference, weight, margin, cast, row.place.source, models)


def _preferred(row: Row, prompt: Prompt, chosen: str, rejected: str, names: str = "chosen and rejected") -> Comparison:
    if chosen == rejected:
        raise identical(row, names)
    models = (fields.name_of(row, "chosen_model"), fields.name_of(row, "rejected_model"))
    return Comparison(prompt, chosen, rejected, 1.0, source=row.place.source, models=models)


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
