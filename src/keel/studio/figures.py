"""Figures about a project, worked out when somebody looks and kept for a while.

Statistics over all votes of a large project take seconds of a core that raters share. A figure is therefore kept for
`KEEP_TIMES` as long as it took, so that people who look at figures never take more than about a twentieth of a core
for each kind, and figures that are quick to make are always fresh.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

KEEP_TIMES = 20
T = TypeVar("T")


class Kept:
    """Results by key; while one thread works a result out, others that want it wait for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._making: dict[tuple[str, int], threading.Lock] = {}
        self._results: dict[tuple[str, int], tuple[float, object]] = {}  # until when it is kept, result

    def get(self, kind: str, project_id: int, make: Callable[[], T]) -> T:
        """The result of `make`, or the one of a while ago."""
        key = (kind, project_id)
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            until, result = self._results.get(key, (0.0, None))
            begun = self._clock()
            if begun >= until:
                result = make()
                took = self._clock() - begun
                self._results[key] = (self._clock() + KEEP_TIMES * took, result)
            return result  # type: ignore[return-value]
