"""How long-running work tells whoever watches how far it is."""

from typing import Any, Protocol


class Progress(Protocol):
    """One stage at a time: start, advance, finish; `say` at any moment."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Begin `stage`, which has `total` units to do (None where nobody knows)."""

    def advance(self, n: int = 1, **figures: Any) -> None:
        """`n` more units are done; `figures` are shown beside the bar."""

    def finish(self, summary: str) -> None:
        """The stage is done; `summary` is its one line."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Silent:
    """A Progress that shows nothing."""

    def start(self, stage: str, total: int | None, unit: str) -> None: ...

    def advance(self, n: int = 1, **figures: Any) -> None: ...

    def finish(self, summary: str) -> None: ...

    def say(self, text: str) -> None: ...
