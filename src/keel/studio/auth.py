"""Passwords, secrets and limits: everything about who may come in that needs no database.

A secret (session, API token, invitation) is 256 random bits, shown once; the store holds its SHA-256 only, which is
enough for a secret that cannot be guessed. Passwords can be guessed, so they are hashed by argon2id.
"""

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

SESSION_COOKIE = "keel_session"
CSRF_HEADER = "x-keel-csrf"
TOKEN_PREFIX = "keel_"
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 200

# OWASP's second recommendation (19 MiB, 2 passes, 1 lane): about 20 ms, and fifty raters who log in at nine o'clock
# need no more memory than `AT_ONCE` of them.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
AT_ONCE = 4
_hashing = threading.BoundedSemaphore(AT_ONCE)
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$EKoeAj1wYdfekIVFbrOL/w$LvQ4XWrnp2/skYDbG4qCtkc9ZxnfGDes4Bwy8cyouBc"
"""What is checked where a name is unknown, so that the time taken tells nothing."""


def hash_password(password: str) -> str:
    """argon2id, with its salt and parameters in the text."""
    with _hashing:
        return _hasher.hash(password)


def password_matches(password: str, stored: str | None) -> bool:
    """Whether this is the password; as slow for somebody who is unknown or has none."""
    with _hashing:
        try:
            return _hasher.verify(stored or _NOBODY, password) and stored is not None
        except (Argon2Error, InvalidHashError):
            return False


def new_secret() -> str:
    """A session or an invitation."""
    return secrets.token_urlsafe(32)


def new_token() -> str:
    """An API token, known by its prefix to people and to scanners for leaked secrets."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """64 hex digits, what the store holds of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def csrf_token(session_secret: str) -> str:
    """What a page of this session sends as `x-keel-csrf`. Other sites can neither read it nor set the header."""
    return hmac.new(session_secret.encode(), b"csrf", hashlib.sha256).hexdigest()[:32]


def csrf_matches(session_secret: str, given: str) -> bool:
    return hmac.compare_digest(csrf_token(session_secret).encode(), given.encode("utf-8", "replace"))


class RateLimiter:
    """Token buckets: each key may spend `burst` at once and `per_s` on average. In memory, safe for threads.

    The least recently used keys are forgotten beyond `keys`, so strangers cannot fill the memory.
    """

    def __init__(
        self, per_s: float, burst: float, *, keys: int = 20_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_s, self.burst, self.keys = per_s, burst, keys
        self._clock, self._lock = clock, threading.Lock()
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (level at that time, time)

    def wait_s(self, key: str, cost: float = 1.0) -> float:
        """0.0 and the cost is taken; or the seconds until it could be, and nothing is."""
        with self._lock:
            level = self._level(key)
            if level < cost:
                return (cost - level) / self.per_s
            self._spent[key] = (level - cost, self._clock())
            self._spent.move_to_end(key)
            while len(self._spent) > self.keys:
                self._spent.popitem(last=False)
            return 0.0

    def give_back(self, key: str, cost: float = 1.0) -> None:
        """Undo a `wait_s` that took its cost."""
        with self._lock:
            if key in self._spent:
                self._spent[key] = (min(self.burst, self._level(key) + cost), self._clock())

    def _level(self, key: str) -> float:
        level, at = self._spent.get(key, (self.burst, 0.0))
        return min(self.burst, level + (self._clock() - at) * self.per_s)
