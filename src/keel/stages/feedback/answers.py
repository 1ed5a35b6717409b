"""What judges and critics have said, on disk by the hash of what they were asked; and what it costs. No torch here.

An answer is on disk the moment it is known, so a killed process loses none and its successor asks for none again.
Several processes may share a file.
"""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keel.core.errors import ConfigError, EndpointError
from keel.stages.endpoint import EndpointConfig
from keel.store.database import Database

AT_ONCE = 500
"""Keys of one query; SQLite takes 999."""
MIGRATIONS = (("CREATE TABLE answers (key TEXT PRIMARY KEY, value TEXT NOT NULL)",),)


class Answers:
    """A file of answers. May be used from several threads."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """A shared file holds answers that other runs have paid for."""
        self.path, self.shared = path, shared
        self._database = Database(path, MIGRATIONS)

    def known(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The answers that are there, by key."""
        found: dict[str, dict[str, Any]] = {}
        with self._database.reading() as connection:
            for start in range(0, len(keys), AT_ONCE):
                part = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = connection.execute(f"SELECT key, value FROM answers WHERE key IN ({marks})", part)
                found |= {key: json.loads(value) for key, value in rows}
        return found

    def keep(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """More answers, all or none of them; the first one to a question stays."""
        rows = [(key, json.dumps(value)) for key, value in answers.items()]
        with self._database.writing() as connection:
            connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", rows)

    def forget(self, keys: Iterable[str]) -> None:
        """Answers that will be asked for again."""
        with self._database.writing() as connection:
            connection.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in keys])


@dataclass
class Purse:
    """What an endpoint has cost, and the most that it may."""

    endpoint: EndpointConfig
    budget_usd: float | None
    spent_usd: float = 0.0
    counted: set[str] = field(default_factory=set)
    """Keys of the answers in `spent_usd`."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reserve(self, input_tokens: int, output_tokens: int) -> None:
        """EndpointError when the requests under way could cost more than is left."""
        if self.budget_usd is None:
            return
        reserve = self.endpoint.usd(input_tokens, output_tokens) * self.endpoint.concurrency
        if self.spent_usd + reserve > self.budget_usd:
            raise EndpointError(
                f"{self.endpoint.url}: the budget is used up: ${self.spent_usd:.4f} of budget_usd="
                f"{self.budget_usd:g} are spent, and the requests under way may cost up to ${reserve:.4f}. Raise "
                "budget_usd and give the same command again; what was answered is kept."
            )

    def count(self, known: Mapping[str, Mapping[str, Any]], *, shared: bool) -> None:
        """Count what answers from before have cost, unless other runs may have paid for them."""
        for key in known.keys() - self.counted:
            self.counted.add(key)
            self.spent_usd += 0.0 if shared else known[key].get("usd", 0.0)

    def pay(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars of one answer."""
        usd = self.endpoint.usd(input_tokens, output_tokens)
        self.add(usd)
        return usd

    def add(self, usd: float) -> None:
        """Count what was paid."""
        with self.lock:
            self.spent_usd += usd


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What is still to be asked, before it is."""

    questions: int
    known: int
    """Of them answered before; they cost nothing."""
    input_tokens: int
    """Of the others. Without the model's tokenizer one for three characters, more than most texts have."""
    output_tokens: int
    """At most."""
    usd: float | None
    """At most; None where nobody gave a price."""
    served: bool = True
    """Whether an endpoint is asked; a model loaded here has no price."""

    @classmethod
    def of(cls, sizes: Sequence[tuple[int, int]], known: int, purse: Purse | None) -> "Estimate":
        """Of questions with these tokens to read and to write, and of those that were answered before."""
        read, written = sum(size[0] for size in sizes), sum(size[1] for size in sizes)
        return cls(
            questions=known + len(sizes),
            known=known,
            input_tokens=read,
            output_tokens=written,
            usd=purse.endpoint.usd(read, written) if purse is not None and purse.endpoint.priced else None,
            served=purse is not None,
        )

    def __str__(self) -> str:
        text = f"{self.questions:,} questions, {self.known:,} of them answered before"
        if self.input_tokens or self.output_tokens:
            text += f"; about {self.input_tokens:,} tokens to read and at most {self.output_tokens:,} to write"
            if self.usd is not None:
                text += f", at most ${self.usd:.2f}"
            elif self.served:
                text += ", no price given"
        return text

    def refuse_beyond(self, budget_usd: float | None, spent_usd: float, section: str) -> None:
        """ConfigError, before anything is asked, when it could cost more than the budget."""
        if budget_usd is not None and self.usd is not None and spent_usd + self.usd > budget_usd:
            spent = f", and ${spent_usd:.2f} are spent" if spent_usd else ""
            raise ConfigError(
                f"{section}.budget_usd={budget_usd:g} may not be enough: {self}{spent}. Nothing was asked. Raise the "
                "budget, or ask less: fewer pairs, shorter answers, a shorter rubric, and single words in the place of "
                "reasons where the server tells log-probabilities (feedback.verdicts: tokens)."
            )


def estimated_tokens(text: str) -> int:
    """Tokens of a text whose tokenizer is not here: one for three characters, more than most texts have."""
    return len(text) // 3 + 1
