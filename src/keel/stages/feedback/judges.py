"""Who judges: a Python function, or a model behind an address. A model loaded here is in `local`. No torch here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import exp
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from keel.core.errors import EndpointError, KeelError
from keel.data.records import Prompt
from keel.stages.address import RefusedError
from keel.stages.endpoint import Endpoint, Reply, Sampling
from keel.stages.feedback.answers import Purse, estimated_tokens
from keel.stages.feedback.question import Question, Said, of_function, of_weights, read_verdict
from keel.stages.functions import function_identity, load_function

T = TypeVar("T")
Keep = Callable[[Mapping[int, Said]], None]
"""Takes what was said of some questions, by their numbers, as soon as it is known."""

QUESTIONS_AT_ONCE = 64
"""Questions of one call of a function: what a killed process may have to ask again."""
TOP_LOGPROBS = 20
"""Likeliest tokens that an endpoint is asked for; servers tell no more."""
VERDICT_TOKENS = 4
"""Longest direct verdict; the first token decides."""
OPENING = "\n\nVerdict:"
"""Ends a direct question to a model that only continues text."""


class AIJudge(Protocol):
    """Something that says which of two answers is better."""

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides what it says: a question that it answered is known by this and its own text."""
        ...

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        """Hand every verdict to `keep` as soon as it is there."""
        ...

    def size(self, question: Question) -> tuple[int, int]:
        """Tokens to read and, at most, to write; nothing where none are counted."""
        ...


def all_said(judge: AIJudge, questions: Sequence[Question]) -> list[Said]:
    """Every verdict, in the order of the questions."""
    said: dict[int, Said] = {}
    judge.ask(questions, said.update)
    return [said[number] for number in range(len(questions))]


@dataclass(frozen=True)
class PythonJudge:
    """A function of a list of Question: verdicts, or probabilities that the first is better."""

    function: Callable[..., Any]
    spec: str
    content: str | None
    """The function's name and the hash of its file."""

    @classmethod
    def named(cls, spec: str, field: str, folder: Path) -> "PythonJudge":
        return cls(load_function(spec, field, folder), spec, function_identity(spec, folder))

    @property
    def identity(self) -> dict[str, Any]:
        return {"python": self.content or self.spec}

    def size(self, question: Question) -> tuple[int, int]:
        return 0, 0

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        for start in range(0, len(questions), QUESTIONS_AT_ONCE):
            part = list(questions[start : start + QUESTIONS_AT_ONCE])
            keep(dict(enumerate(of_function(self.function(part), len(part), self.spec), start)))


@dataclass
class EndpointJudge:
    """A served model. It is asked for the probability of its next word, or reasons first and says its verdict."""

    endpoint: Endpoint
    max_new_tokens: int = 512
    """Longest reasoned answer."""
    temperature: float = 0.0
    """Of reasoned answers; probabilities are read at 1."""
    verdicts: Literal["auto", "tokens", "text"] = "text"
    """tokens reads probabilities, text reads the verdict of a reasoned answer; auto does the first where the server
    tells log-probabilities, else the second."""
    purse: Purse | None = None
    tells: bool | None = field(default=None, init=False)
    """Whether the server was found to tell log-probabilities."""

    @property
    def identity(self) -> dict[str, Any]:
        c = self.endpoint.config
        reasoned = {} if self.verdicts == "tokens" else {"most": self.max_new_tokens, "temperature": self.temperature}
        return {"url": c.url, "model": c.model, "api": c.api, "verdicts": self.verdicts, **reasoned}

    def size(self, question: Question) -> tuple[int, int]:
        if self.verdicts == "text" or (self.verdicts == "auto" and not self.tells):  # the dearer way until it is known
            return estimated_tokens(question.text), self.max_new_tokens
        return estimated_tokens(question.direct), VERDICT_TOKENS

    def recall(self, said: Iterable[Said]) -> None:
        """Learn from verdicts of before whether the server tells log-probabilities."""
        if self.tells is None and any(one.probability is not None for one in said):
            self.tells = True

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        in_parallel(self.endpoint, questions, lambda number, question: keep({number: self.one(question)}))

    def one(self, question: Question) -> Said:
        """One verdict."""
        if self.verdicts == "text" or (self.verdicts == "auto" and self.tells is False):
            return self.reasoned(question)
        try:
            reply = self.reply(
                self.direct(question),
                Sampling(max_new_tokens=VERDICT_TOKENS, temperature=1.0, seed=0, top_logprobs=TOP_LOGPROBS),
            )
        except RefusedError:
            if self.verdicts == "tokens":
                raise
            self.tells = False
            return self.reasoned(question)
        if not reply.top_logprobs:
            if self.verdicts == "tokens":
                raise EndpointError(
                    f"{self.endpoint.config.url}: tells no log-probabilities of its tokens, and feedback.verdicts is "
                    "tokens. Set it to text, which reads the verdict that the model writes, or to auto."
                )
            self.tells = False
            return self.reasoned(question)
        self.tells = True
        said = of_weights(verdict_weights(reply.top_logprobs, question.words))
        return replace(said, input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)

    def direct(self, question: Question) -> str:
        return question.direct + (OPENING if self.endpoint.config.api == "completions" else "")

    def reasoned(self, question: Question) -> Said:
        """The verdict that the model writes after its reason."""
        reply = self.reply(
            question.text, Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature, seed=0)
        )
        return replace(read_verdict(reply.text), input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)

    def reply(self, text: str, sampling: Sampling) -> Reply:
        return paid(self.endpoint, text, sampling, self.purse)


def paid(endpoint: Endpoint, prompt: Prompt, sampling: Sampling, purse: Purse | None) -> Reply:
    """One answer within the budget, with its tokens counted by us where the server does not."""
    size = estimated_tokens(str(prompt))
    if purse is not None:
        purse.reserve(size, sampling.max_new_tokens)
    reply = endpoint.ask(prompt, sampling)
    reply = replace(
        reply,
        input_tokens=reply.input_tokens or size,
        output_tokens=reply.output_tokens or estimated_tokens(reply.text),
    )
    if purse is not None:
        purse.pay(reply.input_tokens, reply.output_tokens)
    return reply


def verdict_weights(top: Sequence[tuple[str, float]], words: Sequence[str]) -> dict[str, float]:
    """Probability of each verdict word among the likeliest tokens: with and without space before it, in any case."""
    weights = dict.fromkeys(words, 0.0)
    for token, logprob in top:
        word = token.strip(" \t\n\u2581\u0120").lower()  # SentencePiece and byte-level tokenizers mark a space so
        if word in weights:
            weights[word] += exp(min(logprob, 0.0))
    return weights


def in_parallel(endpoint: Endpoint, items: Sequence[T], work: Callable[[int, T], None]) -> None:
    """`work` on every item, some at once; after the first failure on none that was not under way."""
    endpoint.key()  # a key that is missing is told before any thread starts
    failure: list[KeelError] = []

    def one(numbered: tuple[int, T]) -> None:
        if failure:
            return
        try:
            work(*numbered)
        except KeelError as error:
            failure.append(error)

    with ThreadPoolExecutor(endpoint.config.concurrency) as pool:
        try:
            for _ in pool.map(one, enumerate(items)):
                pass
        except BaseException:  # an interrupt: requests under way end and are kept, no other begins
            failure.append(EndpointError("stopped"))
            raise
    if failure:
        raise failure[0]
