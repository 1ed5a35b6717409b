"""A model loaded here: as a judge by the probabilities of its verdict words, and as a writer of critiques."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from keel.batch.collate import EncodedResponse, token_batch
from keel.core.errors import ConfigError
from keel.core.seed import derive
from keel.data.chat import decode_response, encode_prompt
from keel.data.records import Message, Prompt
from keel.models.generate import InProcessSampler
from keel.models.load import context_length_of, eos_ids
from keel.models.packed import token_logprobs
from keel.stages.endpoint import Sampling
from keel.stages.feedback.judges import OPENING, Keep
from keel.stages.feedback.question import Question, of_weights
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.train.rollout import EncodedPrompt, as_responses, over_micro_batches, sample_batch

QUESTIONS_AT_ONCE = 16
"""Questions of one batch: what a killed process may have to ask again."""
TEXTS_AT_ONCE = 8


@dataclass
class LocalModel:
    """A model and its tokenizer, loaded when first needed."""

    files: PolicyFiles
    content: str
    """What decides what it says: the hash of its files, or its name on the hub."""
    micro_batch_tokens: int = 4096

    @cached_property
    def model(self) -> nn.Module:
        return frozen(load_policy(self.files))

    @cached_property
    def tokenizer(self) -> Any:
        return read_tokenizer(self.files)

    @cached_property
    def longest(self) -> int | None:
        """Tokens that the model reads at most."""
        return context_length_of(self.files.weights, self.files.config.trust_remote_code)

    def encoded(self, text: str, opening: str = "", room: int = 0) -> list[int]:
        """Ids of a request: a user's turn where the tokenizer has a chat template, else the text and `opening`.

        ConfigError when it and `room` more tokens are longer than the model reads; nothing is cut, for a judge that
        sees half an answer judges something else.
        """
        chat = bool(getattr(self.tokenizer, "chat_template", None))
        prompt: Prompt = (Message("user", text),) if chat else text + opening
        ids = encode_prompt(self.tokenizer, prompt)
        if self.longest is not None and len(ids) + room > self.longest:
            raise ConfigError(
                f"{self.files.path} reads {self.longest} tokens; a request with its answer takes {len(ids) + room}. "
                f"Take a model that reads more, or shorten the rubric or the answers. It begins: {text[:80]!r}."
            )
        return ids


@dataclass
class LocalJudge:
    """Softmax over the log-probabilities of the verdict words, each with and without a space before it."""

    local: LocalModel

    @property
    def identity(self) -> dict[str, Any]:
        return {"model": self.local.content, "dtype": self.local.files.config.dtype}

    def size(self, question: Question) -> tuple[int, int]:
        return len(self.local.encoded(question.direct, OPENING, room=2)), 1

    def ask(self, questions: Sequence[Question], keep: Keep) -> None:
        for start in range(0, len(questions), QUESTIONS_AT_ONCE):
            part = questions[start : start + QUESTIONS_AT_ONCE]
            keep({number: of_weights(weights) for number, weights in enumerate(self.weights(part), start)})

    @torch.no_grad()
    def weights(self, questions: Sequence[Question]) -> list[dict[str, float]]:
        """Probability of each verdict word as the model's next word, for each question."""
        prompts = [self.local.encoded(question.direct, OPENING, room=2) for question in questions]
        forms = [verdict_forms(self.local.tokenizer, question.words) for question in questions]
        batch = token_batch(prompts, [[EncodedResponse(tokens=ids) for _, ids in form] for form in forms])
        model = self.local.model
        logprobs: Tensor = over_micro_batches(
            batch, self.local.micro_batch_tokens, model, lambda packed: token_logprobs(model, packed)[0]
        )
        shares = iter(batch.sum_per_response(logprobs.double()).exp().tolist())
        found = []
        for question, form in zip(questions, forms, strict=True):
            weights = dict.fromkeys(question.words, 0.0)
            for word, _ in form:
                weights[word] += next(shares)
            found.append(weights)
        return found


def verdict_forms(tokenizer: Any, words: Sequence[str]) -> list[tuple[str, tuple[int, ...]]]:
    """The ids that each word may have as the next one: with and without a space, alone and behind text; each once.

    Some tokenizers write "1" and " 1" as two tokens, some as one, some put the space into a token of its own, and some
    add a space to whatever stands alone. ConfigError where two words are the same ids, as when both are unknown.
    """
    before = tuple(tokenizer.encode(OPENING, add_special_tokens=False))
    forms: dict[tuple[int, ...], str] = {}
    for word in words:
        for text in (word, f" {word}"):
            alone = tuple(tokenizer.encode(text, add_special_tokens=False))
            behind = tuple(tokenizer.encode(OPENING + text, add_special_tokens=False))
            for ids in (alone, behind[len(before) :] if behind[: len(before)] == before else ()):
                if ids and forms.setdefault(ids, word) != word:
                    raise ConfigError(
                        f"the judge's tokenizer writes {word!r} and {forms[ids]!r} as the same tokens, so its verdicts "
                        "cannot be told apart. Take a judge whose vocabulary has digits."
                    )
    return [(word, ids) for ids, word in forms.items()]


@dataclass
class LocalWriter:
    """Answers of a model loaded here."""

    local: LocalModel
    seed: int
    sampling: Sampling
    identity: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.identity = {
            "model": self.local.content,
            "dtype": self.local.files.config.dtype,
            "most": self.sampling.max_new_tokens,
            "temperature": self.sampling.temperature,
            "seed": self.seed,
        }

    def size(self, text: str) -> tuple[int, int]:
        return len(self.local.encoded(text, room=self.sampling.max_new_tokens)), self.sampling.max_new_tokens

    def write(self, requests: Sequence[str], keep: Callable[[int, str], None]) -> None:
        """What the model says to each request; the same whatever else is asked."""
        sampler = InProcessSampler(self.local.model, eos_ids(self.local.model, self.local.tokenizer))
        decode = partial(decode_response, self.local.tokenizer)
        for start in range(0, len(requests), TEXTS_AT_ONCE):
            prompts = [
                EncodedPrompt(
                    prompt=text,
                    tokens=tuple(self.local.encoded(text, room=self.sampling.max_new_tokens)),
                    key=derive(0, "request", text),
                )
                for text in requests[start : start + TEXTS_AT_ONCE]
            ]
            batch, drawn = sample_batch(
                sampler,
                prompts,
                samples=1,
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                seed=self.seed,
            )
            texts = as_responses(batch, drawn.finished, [p.text for p in prompts], decode).response_texts
            for number, text in enumerate(texts, start):
                keep(number, text)
