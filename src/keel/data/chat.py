"""Prompts and responses as token ids.

A tokenizer here is anything that answers like one of `transformers`; see `Tokenizer`. What holds of the ids:

- a text prompt begins with BOS once, if the tokenizer writes one at all; a chat prompt holds what the template writes;
- a response ends with EOS once;
- prompt and response together are the tokens of the whole text wherever the prompt's tokens are a prefix of those, and
  always decode to the whole text.
"""

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, Protocol

from keel.core.errors import DataError
from keel.data.records import Comparison, Demonstration, Message, Prompt


class Tokenizer(Protocol):
    """What keel asks of a tokenizer."""

    @property
    def bos_token_id(self) -> Any: ...
    @property
    def eos_token_id(self) -> Any: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> Any: ...


class EncodedDemonstration(NamedTuple):
    """A demonstration as token ids. In a chat with several assistant turns the response begins with the first one."""

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[bool]  # True on what the assistant says, its end-of-turn tokens included


class EncodedComparison(NamedTuple):
    """A comparison as token ids."""

    prompt_ids: list[int]
    a_ids: list[int]
    b_ids: list[int]


def encode_prompt(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """Ids of a prompt, ready for the response: BOS and text, or a chat up to where the assistant begins to speak.

    The empty prompt is BOS alone, or nothing where the tokenizer writes no BOS.
    """
    if not isinstance(prompt, str):
        return _ids(tokenizer, _render(tokenizer, prompt, open_turn=True))
    ids = _ids(tokenizer, prompt)
    bos = tokenizer.bos_token_id
    written = bos is not None and tokenizer.encode("", add_special_tokens=True)[:1] == [bos]
    return [bos, *ids] if written and ids[:1] != [bos] else ids


def encode_response(tokenizer: Tokenizer, prompt: Prompt, response: str) -> list[int]:
    """Ids of a response as the continuation of `encode_prompt(tokenizer, prompt)`, EOS at the end."""
    if isinstance(prompt, str):
        return _closed(tokenizer, _continuation(tokenizer, prompt, response), response)
    before = _render(tokenizer, prompt, open_turn=True)
    turn = _turn(before, _render(tokenizer, [*prompt, Message("assistant", response)]), response)
    return _closed(tokenizer, _continuation(tokenizer, before, turn), response)


def encode_demonstration(
    tokenizer: Tokenizer, demonstration: Demonstration, *, every_turn: bool = True
) -> EncodedDemonstration:
    """Prompt, response and mask of a demonstration.

    With `every_turn` all assistant turns of a chat are learned, so the prompt ends where the first begins and the mask
    leaves out what stands between; otherwise only the last response is.
    """
    prompt = demonstration.prompt
    try:
        if every_turn and not isinstance(prompt, str) and any(turn.role == "assistant" for turn in prompt):
            return _encode_turns(tokenizer, [*prompt, Message("assistant", demonstration.response)])
        response_ids = encode_response(tokenizer, prompt, demonstration.response)
        return EncodedDemonstration(encode_prompt(tokenizer, prompt), response_ids, [True] * len(response_ids))
    except DataError as error:
        raise _placed(error, demonstration.source) from error


def encode_comparison(tokenizer: Tokenizer, comparison: Comparison) -> EncodedComparison:
    """Prompt and both responses of a comparison."""
    prompt = comparison.prompt
    try:
        a_ids, b_ids = (encode_response(tokenizer, prompt, response) for response in (comparison.a, comparison.b))
        return EncodedComparison(encode_prompt(tokenizer, prompt), a_ids, b_ids)
    except DataError as error:
        raise _placed(error, comparison.source) from error


def decode_response(tokenizer: Tokenizer, ids: Sequence[int], *, opening: bool = False) -> str:
    """The text of a response, special tokens left out, white space at its start kept.

    Tokenizers of the SentencePiece kind drop the space before the first word of a text. A response continues one, so it
    is decoded behind an anchor; `opening` says that nothing stands before it (the empty prompt).
    """
    if opening:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))
    anchor = _ids(tokenizer, "a")
    before = str(tokenizer.decode(anchor, skip_special_tokens=True))
    whole = str(tokenizer.decode([*anchor, *ids], skip_special_tokens=True))
    return whole[len(before) :]


def _encode_turns(tokenizer: Tokenizer, messages: Sequence[Message]) -> EncodedDemonstration:
    """A chat whose last turn is the assistant's, every assistant turn marked in the mask."""
    first = next(index for index, message in enumerate(messages) if message.role == "assistant")
    written = _render(tokenizer, messages[:first], open_turn=True)
    prompt_ids = _ids(tokenizer, written)
    ids: list[int] = []
    mask: list[bool] = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = _render(tokenizer, messages[:index], open_turn=True)
        if not before.startswith(written):
            raise DataError(
                "the chat template rewrites earlier turns, so the assistant's turns cannot all be learned from one "
                "text. Learn the last turn only (every_turn: false), or set model.chat_template to one that does not."
            )
        between = _continuation(tokenizer, written, before[len(written) :])
        turn = _turn(before, _render(tokenizer, messages[: index + 1]), message.content)
        said = _continuation(tokenizer, before, turn)
        if index == len(messages) - 1:
            said = _closed(tokenizer, said, message.content)
        ids += between + said
        mask += [False] * len(between) + [True] * len(said)
        written = before + turn
    return EncodedDemonstration(prompt_ids, ids, mask)


def _render(tokenizer: Tokenizer, messages: Sequence[Message], *, open_turn: bool = False) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "these records are chats, and the tokenizer has no chat template. Set model.chat_template to a Jinja "
            "template or to the path of one, or start from a model that brings one."
        )
    render = getattr(tokenizer, "apply_chat_template")  # noqa: B009  # absent from the protocol: texts do without
    try:
        return render([asdict(message) for message in messages], tokenize=False, add_generation_prompt=open_turn)
    except importlib.import_module("jinja2").TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise DataError(
            f"the chat template refuses the roles {roles}: {error}. Change the roles (some templates want the system "
            "message inside the first user message), or set model.chat_template."
        ) from error


def _turn(before: str, after: str, content: str) -> str:
    """What the assistant's turn adds to `before`, without the white space behind its end mark."""
    if not after.startswith(before):
        raise DataError(
            "the chat template does not continue its own generation prompt: a finished chat does not begin with the "
            f"open one, which ends in {before[-30:]!r}. Set model.chat_template to one that does."
        )
    turn = after[len(before) :]
    end_mark = turn[len(content) :] if turn.startswith(content) else None
    return turn.rstrip() if end_mark is None else content + end_mark.rstrip()


def _closed(tokenizer: Tokenizer, ids: list[int], response: str) -> list[int]:
    """`ids` with EOS at the end and nowhere else."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise DataError("the tokenizer has no EOS token, so responses could not end. Set its eos_token.")
    if eos not in ids:
        return [*ids, eos]
    end = ids.index(eos) + 1
    if end < len(ids) and eos in _ids(tokenizer, response)[:-1]:
        mark = tokenizer.decode([eos], skip_special_tokens=False)
        raise DataError(
            f"the response holds {mark!r}, the tokenizer's end mark, before its end: {_around(response, str(mark))}. "
            "Remove it from the text."
        )
    return ids[:end]


def _continuation(tokenizer: Tokenizer, before: str, text: str) -> list[int]:
    """Ids of `text` behind `before`: cut from the ids of both together, or its own where a token spans the border."""
    for anchor in (before, "\n", ".", "a"):  # behind an anchor no space is put before the first word
        head, whole = _ids(tokenizer, anchor), _ids(tokenizer, anchor + text)
        if whole[: len(head)] == head:
            return whole[len(head) :]
    return _ids(tokenizer, text)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False)) if text else []


def _around(text: str, mark: str) -> str:
    at = max(text.find(mark), 0)
    return repr(text[max(at - 20, 0) : at + len(mark) + 20])


def _placed(error: DataError, source: str) -> DataError:
    return DataError(f"{source}: {error}" if source else str(error))
