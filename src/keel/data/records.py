"""What people and models said, as frozen records.

Two records are equal when they say the same thing: `source`, where a record was read, takes no part in comparisons.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Choice = Literal["a", "b", "tie", "both_bad", "skip"]
Method = Literal["majority", "share", "weighted", "dawid_skene"]
"""How the votes on a comparison become its preference; `annotate.consensus` says what each does."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str  # system, user, assistant or tool
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]
"""Plain text that the model continues, or the turns of a chat so far. An empty text means "no prompt"."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the response one would like to see."""

    prompt: Prompt
    response: str
    source: str = field(default="", compare=False)  # "file:line"


@dataclass(frozen=True, slots=True)
class Vote:
    """One rater's answer to one comparison."""

    rater: str
    choice: Choice
    strength: float | None = None  # how strongly, at least 0, in the rater's own scale; None when not asked


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two responses to one prompt and which is better."""

    prompt: Prompt
    a: str
    b: str
    preference: float  # probability that a is better, in [0, 1]; a tie is 0.5
    weight: float = 1.0  # how much the comparison counts, at least 0
    margin: float = 0.0  # by how much the preferred score should lead, at least 0
    votes: tuple[Vote, ...] = ()
    source: str = field(default="", compare=False)  # "file:line"
    models: tuple[str, str] = ("", "")  # what wrote a and b; "" where nobody knows


@dataclass(frozen=True, slots=True)
class Ranking:
    """Several responses to one prompt and how good each is; `pairs` makes comparisons of it."""

    prompt: Prompt
    responses: tuple[str, ...]  # at least two, all different
    scores: tuple[float, ...]  # one a response, higher is better; equal scores are ties
    models: tuple[str, ...] = ()  # what wrote each response; empty where nobody knows
    source: str = field(default="", compare=False)  # "file:line"

    def pairs(self) -> tuple[Comparison, ...]:
        """All k(k - 1)/2 comparisons, the better response as a, ties with preference 0.5.

        They share the prompt, so a split by prompt keeps them on one side.
        """
        order = sorted(range(len(self.responses)), key=lambda at: -self.scores[at])
        return tuple(
            Comparison(
                self.prompt,
                self.responses[one],
                self.responses[other],
                1.0 if self.scores[one] > self.scores[other] else 0.5,
                source=self.source,
                models=(self.models[one], self.models[other]) if self.models else ("", ""),
            )
            for place, one in enumerate(order)
            for other in order[place + 1 :]
        )


@dataclass(frozen=True, slots=True)
class Rating:
    """One response with thumbs up or down: unpaired preference, what KTO learns from."""

    prompt: Prompt
    response: str
    desirable: bool
    source: str = field(default="", compare=False)  # "file:line"


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and whether it is of the wanted kind."""

    text: str
    label: bool
    source: str = field(default="", compare=False)  # "file:line"


Record: TypeAlias = Demonstration | Comparison | Ranking | Rating | LabelledText | Prompt


def prompt_text(prompt: Prompt) -> str:
    """The prompt as one text for people, baselines and hashes; a lone user turn reads as its content."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n\n".join(f"{message.role}: {message.content}" for message in prompt)


def prompt_key(prompt: Prompt) -> str:
    """Hash of the normalised prompt text, 64 hex digits, the same on every machine and in every release.

    Case, Unicode form and the amount of white space do not count, so near-copies of a prompt share a key.
    """
    return text_key(prompt_text(prompt))


def text_key(text: str) -> str:
    """`prompt_key` of a plain text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    normalised = " ".join(unicodedata.normalize("NFKC", folded).split())
    return hashlib.sha256(normalised.encode("utf-8", "surrogatepass")).hexdigest()


def record_key(record: Record) -> str:
    """What a record is split by: its prompt; a labelled text by its text, texts compared without a prompt by the first.

    A comparison of bare texts keeps its two texts on one side of the split only if they were paired within a side, as
    `keel.data.labelled.pair_texts` does.
    """
    match record:
        case LabelledText():
            return text_key(record.text)
        case Comparison():
            return prompt_key(record.prompt or record.a)
        case Demonstration() | Rating():
            return prompt_key(record.prompt or record.response)
        case Ranking():
            return prompt_key(record.prompt or record.responses[0])
        case _:
            return prompt_key(record)


def turns(messages: Sequence[tuple[str, str]]) -> tuple[Message, ...]:
    """A chat from (role, content) pairs."""
    return tuple(Message(role, content) for role, content in messages)
