"""An address asked over HTTP, with patience and never trusted. No torch here.

What passes by itself (no connection, too slow, too many requests, a fault of the server, an answer that is none) is
tried again, later each time; what does not (a wrong key, an unknown path) is told at once.
"""

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any, Protocol, TypeVar

from keel.core.errors import ConfigError, EndpointError

T = TypeVar("T")

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
"""An address that asks for more patience than this is given up."""
LARGEST_REPLY = 16 * 2**20
PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses that may be others the next time."""


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


class Asked(Protocol):
    """The settings of an address."""

    @property
    def url(self) -> str: ...

    @property
    def key_env(self) -> str | None: ...

    @property
    def timeout_seconds(self) -> float: ...

    @property
    def retries(self) -> int: ...


@dataclass(frozen=True)
class Address:
    """One address; may be asked from several threads."""

    config: Asked
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

    def remedy(self, code: int) -> str:
        """What to do about a refusal."""
        if code in (401, 403):
            return f"Check the API key in the environment variable that key_env names ({self.config.key_env})."
        return "Check url and the settings beside it."

    def patiently(self, once: Callable[[], T]) -> T:
        """What `once` returns. EndpointError when the address has failed `retries` times over, or refuses for good."""
        tries = self.config.retries + 1
        for number in range(1, tries + 1):
            try:
                return once()
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

    def post(self, url: str, body: dict[str, Any]) -> bytes:
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
                raise self._refused(error, key, until) from error
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

    def _refused(self, error: urllib.error.HTTPError, key: str | None, until: float) -> Exception:
        """What an answer with an error status comes to."""
        said = _said(error, key, until)
        if error.code in PASSING:
            what = "too many requests" if error.code == 429 else "the server is in trouble"
            wait = _retry_after(error.headers.get("Retry-After"))
            return PassingError(f"answers HTTP {error.code}, {what}{said}", wait)
        if 300 <= error.code < 400:
            target = error.headers.get("Location", "another address")
            return EndpointError(f"{self.config.url}: sends us on to {target:.200}. Give the final address as url.")
        kind = RefusedError if error.code in (400, 422) else EndpointError
        return kind(f"{self.config.url}: refuses with HTTP {error.code}{said}. {self.remedy(error.code)}")


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


def _said(error: urllib.error.HTTPError, key: str | None, until: float) -> str:
    """The server's own message as far as it came in time, on one line and without the key."""
    file: Any = error.fp
    body = b""
    try:
        while len(body) < 65536 and time.monotonic() < until and (part := file.read1(65536)):
            body += part
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
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def _backoff(number: int) -> float:
    """Seconds before try `number` + 1: doubling, with a random half so that several clients do not march in step."""
    return min(FIRST_WAIT_S * 2 ** (number - 1), LONGEST_WAIT_S / 2) * random.uniform(0.5, 1.0)
