"""A model behind an OpenAI-compatible address, asked with patience and never trusted. No torch here.

    endpoint = Endpoint(EndpointConfig(url="http://localhost:8000/v1", model="qwen"))
    reply = endpoint.ask("What is a parcel?", Sampling(max_new_tokens=64, temperature=1.0, seed=7))

How it is asked, and what is tried again, is `keel.stages.address`.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from keel.core.config import Config
from keel.data.records import Prompt, prompt_text
from keel.stages.address import Address, PassingError


class EndpointConfig(Config):
    """A model served at an OpenAI-compatible address."""

    url: str
    """Base address, up to and with /v1: https://api.openai.com/v1, http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    key_env: str | None = None
    """Environment variable that holds the API key. The key itself is never written anywhere; null sends none."""
    api: Literal["chat", "completions"] = "chat"
    """chat sends turns to /chat/completions, completions sends bare text to /completions (base models)."""
    timeout_seconds: float = Field(60.0, gt=0)
    """Longest wait for one whole answer."""
    retries: int = Field(5, ge=0)
    """Further tries after one that failed by accident; the wait doubles from half a second, or is what the server
    asks for."""
    concurrency: int = Field(4, ge=1)
    """Requests under way at once."""
    send_seed: bool = True
    """Whether requests carry a seed; some servers refuse one."""
    usd_per_million_input_tokens: float | None = Field(None, ge=0)
    """Price of prompts, for the budget."""
    usd_per_million_output_tokens: float | None = Field(None, ge=0)
    """Price of answers, for the budget."""

    @model_validator(mode="after")
    def _web_address(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url={self.url!r} is no web address. Write it like http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError("url holds a user name or password. Put the key into an environment variable: key_env")
        return self

    @property
    def priced(self) -> bool:
        return self.usd_per_million_input_tokens is not None and self.usd_per_million_output_tokens is not None

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """What so many tokens cost; 0 without prices."""
        prices = self.usd_per_million_input_tokens or 0.0, self.usd_per_million_output_tokens or 0.0
        return (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How an answer is drawn."""

    max_new_tokens: int
    temperature: float
    seed: int | None = None
    top_logprobs: int | None = None
    """How many of the likeliest first tokens are told with their log-probabilities; None asks for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """One answer and what the server said about it."""

    text: str
    finished: bool
    """False when it was cut at the length limit."""
    model: str
    """The name that the server gives; with `fingerprint` the nearest thing to a hash of its weights."""
    fingerprint: str | None
    input_tokens: int
    output_tokens: int
    top_logprobs: tuple[tuple[str, float], ...] = ()
    """The likeliest first tokens with their log-probabilities; empty where the server tells none."""


@dataclass(frozen=True)
class Endpoint(Address):
    """Answers of one served model; may be asked from several threads."""

    config: EndpointConfig

    def remedy(self, code: int) -> str:
        """What to do about a refusal."""
        if code == 404:
            return f"Check url (up to and with /v1) and model ({self.config.model})."
        return super().remedy(code) if code in (401, 403) else f"Check the settings of {self.config.model}."

    def ask(self, prompt: Prompt, sampling: Sampling) -> Reply:
        """One answer. EndpointError when the address has failed `retries` times over, or refuses for good."""
        return self.patiently(lambda: self._once(prompt, sampling))

    def _once(self, prompt: Prompt, sampling: Sampling) -> Reply:
        c = self.config
        body: dict[str, Any] = {
            "model": c.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
        }
        if c.send_seed and sampling.seed is not None:
            body["seed"] = sampling.seed % 2**31
        if c.api == "chat":
            path, body["messages"] = "/chat/completions", as_messages(prompt)
            if sampling.top_logprobs is not None:
                body |= {"logprobs": True, "top_logprobs": sampling.top_logprobs}
        else:
            path, body["prompt"] = "/completions", prompt_text(prompt)
            if sampling.top_logprobs is not None:
                body["logprobs"] = sampling.top_logprobs
        return self._understood(self.post(c.url.rstrip("/") + path, body))

    def _understood(self, body: bytes) -> Reply:
        """The answer in a reply. PassingError for whatever is none: a server in trouble often says 200."""
        try:
            found = json.loads(body)
            choice = found["choices"][0]
            text = choice["message"]["content"] if self.config.api == "chat" else choice["text"]
            reason = choice.get("finish_reason")
            usage = found.get("usage") or {}
            if not isinstance(text, str):
                raise TypeError("content is no text")
            counts = [usage.get(name, 0) for name in ("prompt_tokens", "completion_tokens")]
            if not all(isinstance(count, int) and count >= 0 for count in counts):
                raise TypeError("usage holds no counts")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            start = body[:80].decode("utf-8", "replace")
            raise PassingError(f"answers with something that is no answer of a model: {start!r}") from error
        return Reply(
            text=re.sub("[\0\ud800-\udfff]", "\ufffd", text),  # which no database takes and no file in UTF-8
            finished=reason != "length",
            model=_plain(found.get("model"), self.config.model),
            fingerprint=_plain(found.get("system_fingerprint"), None),
            input_tokens=counts[0],
            output_tokens=counts[1],
            top_logprobs=_top_logprobs(choice),
        )


def as_messages(prompt: Prompt) -> list[dict[str, str]]:
    """A prompt as the turns of a chat; a text is one user turn."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": message.role, "content": message.content} for message in prompt]


def _top_logprobs(choice: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """The first token's alternatives, in the shape of /chat/completions or of /completions; nothing in any other."""
    told: Any = choice.get("logprobs")
    try:
        if "content" in told:
            pairs = [(entry["token"], entry["logprob"]) for entry in told["content"][0]["top_logprobs"]]
        else:
            pairs = list(told["top_logprobs"][0].items())
        return tuple((str(token), float(logprob)) for token, logprob in pairs)
    except (TypeError, KeyError, IndexError, AttributeError, ValueError):
        return ()


def _plain(found: object, otherwise: Any) -> Any:
    return found[:200] if isinstance(found, str) else otherwise
