r"""Dialogues as HH-RLHF writes them: one text of turns, "\n\nHuman: ..." and "\n\nAssistant: ..." in turn."""

import re
from collections.abc import Sequence

from keel.data.records import Message

HUMAN = "\n\nHuman:"
ASSISTANT = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")


def is_dialogue(text: object) -> bool:
    return isinstance(text, str) and text.startswith(HUMAN) and ASSISTANT in text


def is_open_dialogue(text: str) -> bool:
    """Whether a dialogue ends where the assistant begins to speak."""
    return is_dialogue(text) and text.endswith(ASSISTANT)


def dialogue(turns: Sequence[Message]) -> str:
    """A chat of user and assistant turns as a dialogue, open for the assistant."""
    marks = {"user": HUMAN, "assistant": ASSISTANT}
    return "".join(f"{marks[turn.role]} {turn.content}" for turn in turns) + ASSISTANT


def divide(dialogue: str) -> tuple[str, str]:
    """(prompt, response), parted behind the last assistant mark; together they are the dialogue, space for space."""
    end = dialogue.rindex(ASSISTANT) + len(ASSISTANT)
    return dialogue[:end], dialogue[end:]


def turns(prompt: str) -> tuple[Message, ...]:
    """The prompt as a chat. Turns of one speaker in a row are joined; the open assistant mark at the end falls away."""
    parts = _TURN.split(prompt)
    roles = {"Human": "user", "Assistant": "assistant"}
    chat: list[Message] = []
    for speaker, content in zip(parts[1::2], parts[2::2], strict=True):
        role, content = roles[speaker], content.strip()
        if not content:
            continue
        if chat and chat[-1].role == role:
            content = f"{chat.pop().content}\n\n{content}"
        chat.append(Message(role, content))
    return tuple(chat)
