"""A model behind an OpenAI-compatible address, asked with patience and never trusted. No torch here.

    endpoint = Endpoint(EndpointConfig(url="http://localhost:8000/v1", model="qwen"))
    reply = endpoint.ask("What is a parcel?", Sampling(max_new_tokens=64, temperature=1.0, seed=7))

What passes by itself (no connection, too slow, too many requests, a fault of the server, an answer that is no answer)
is tried again, later each time; what does not (a wrong key, an unknown model) is told at once.
"""

import http.client
import json
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from keel.core.config import Config
from keel.core.errors import ConfigError, EndpointError
from keel.data.records import Prompt, prompt_text

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
"""An address that asks for more patience than this is given up."""
LARGEST_REPLY = 16 * 2**20
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses that may be others the next time."""


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


class RefusedError(EndpointError):
    """A request that the server does not take as it is, such as one for log-probabilities."""


class PassingError(Exception):
    """A failure that may be gone the next time. Stays in this module."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry the key to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """Answers of one served model; may be asked from several threads."""

    config: EndpointConfig
    sleep: Callable[[float], None] = time.sleep

    def key(self) -> str | None:
        """The API key. ConfigError where its variable is not set."""
        name = self.config.key_env
        if name is None:
            return None
        value = os.environ.get(name, "").strip()
        if not value:
            raise ConfigError(
                f"{self.config.url}: the environment variable {name} is not set, and key_env says that the API key is "
                f"there. Give it: export {name}=…"
            )
        return value

    def ask(self, prompt: Prompt, sampling: Sampling) -> Reply:
        """One answer. EndpointError when the address has failed `retries` times over, or refuses for good."""
        tries = self.config.retries + 1
        for number in range(1, tries + 1):
            try:
                return self._once(prompt, sampling)
            except PassingError as error:
                wait = error.wait_s if error.wait_s is not None else _backoff(number)
                if wait > LONGEST_WAIT_S:
                    raise EndpointError(
                        f"{self.config.url}: {error} and asks for a wait of {wait:.0f} s. Give the same command again "
                        "then; what was answered is kept."
                    ) from error
                if number == tries:
                    raise EndpointError(
                        f"{self.config.url}: {error} ({tries} tries). Check that the server runs and that the address "
                        "is right, or raise timeout_seconds, retries; then give the same command again, what was "
                        "answered is kept."
                    ) from error
                self.sleep(wait)
        raise RuntimeError("unreachable")

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
        return self._understood(self._post(c.url.rstrip("/") + path, body))

    def _post(self, url: str, body: dict[str, Any]) -> bytes:
        """The body of a 200 answer."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "keel"}
        key = self.key()
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        data = json.dumps(body).encode("utf-8", "replace")
        request = urllib.request.Request(url, data, headers, method="POST")
        until = time.monotonic() + self.config.timeout_seconds
        opener = urllib.request.build_opener(NoRedirect)
        try:
            with opener.open(request, timeout=self.config.timeout_seconds) as response:
                return _read(response, until)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error, key) from error
        except TimeoutError as error:
            raise PassingError(f"no whole answer within {self.config.timeout_seconds:g} s") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise PassingError(f"no whole answer within {self.config.timeout_seconds:g} s") from error
            raise PassingError(f"cannot be reached ({error.reason})") from error
        except (http.client.HTTPException, ConnectionError) as error:
            raise PassingError(f"the connection broke ({type(error).__name__})") from error
        except OSError as error:
            raise PassingError(f"cannot be reached ({error})") from error

    def _refused(self, error: urllib.error.HTTPError, key: str | None) -> Exception:
        """What an answer with an error status comes to."""
        said = _said(error, key)
        if error.code in PASSING:
            what = "too many requests" if error.code == 429 else "the server is in trouble"
            wait = _retry_after(error.headers.get("Retry-After"))
            return PassingError(f"answers HTTP {error.code}, {what}{said}", wait)
        if 300 <= error.code < 400:
            target = error.headers.get("Location", "another address")
            return EndpointError(f"{self.config.url}: sends us on to {target:.200}. Give the final address as url.")
        remedy = {
            401: f"Check the API key in the environment variable that key_env names ({self.config.key_env}).",
            403: f"Check the API key in the environment variable that key_env names ({self.config.key_env}).",
            404: f"Check url (up to and with /v1) and model ({self.config.model}).",
        }.get(error.code, f"Check the settings of {self.config.model}.")
        kind = RefusedError if error.code in (400, 422) else EndpointError
        return kind(f"{self.config.url}: refuses with HTTP {error.code}{said}. {remedy}")

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


def _read(response: Any, until: float) -> bytes:
    """The whole body before the time is up: a server that drips a byte a second is slow too."""
    parts, size = [], 0
    while part := response.read1(65536):
        parts.append(part)
        size += len(part)
        if size > LARGEST_REPLY:
            raise PassingError(f"an answer of more than {LARGEST_REPLY // 2**20} MiB")
        if time.monotonic() > until:
            raise TimeoutError
    return b"".join(parts)


def _said(error: urllib.error.HTTPError, key: str | None) -> str:
    """The server's own message, on one line and without the key."""
    try:
        body = error.read(65536)
    except (OSError, http.client.HTTPException):
        return ""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        inner = found.get("error", found) if isinstance(found, dict) else found
        text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
    except ValueError:
        pass
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    if key:
        line = line.replace(key, "***")
    return f": {line[:200]}" if line else ""


def _retry_after(value: str | None) -> float | None:
    """Seconds that the header asks for; None where it says nothing we understand."""
    if value is None:
        return None
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None


def _backoff(number: int) -> float:
    """Seconds before try `number` + 1: doubling, with a random half so that several clients do not march in step."""
    return min(FIRST_WAIT_S * 2 ** (number - 1), LONGEST_WAIT_S / 2) * random.uniform(0.5, 1.0)
