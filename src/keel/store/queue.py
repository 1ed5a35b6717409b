"""Pairs of answers that wait for judges, what the judges said, and what a run had read of it at each of its steps.

The tables are append-only. A change of mind is a new row: the newest row of a pair and judge counts. Row numbers are
given inside the transaction that writes the row, so a larger number was always written later; a reading is therefore
known by the largest number that it could see, and read again it is the same, whatever was answered since.
"""

import json
import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from keel.core.errors import ArtifactError, DataError
from keel.data.records import Message, Prompt
from keel.store.database import Database
from keel.store.schema import MIGRATIONS

FILE = "judging.sqlite"
"""Name of the queue in a run folder."""
RULE = "keel"
"""The judge that answers what needs no judging: equal answers, an empty one. Costs no label."""

Side = Literal["left", "right"]
Choice: TypeAlias = Literal["left", "right", "tie", "skip", "both_bad"]

# A pair's judgments that count: the newest of each judge, up to a given number.
NEWEST = """judgments.id = (
    SELECT max(other.id) FROM judgments AS other
    WHERE other.pair = judgments.pair AND other.judge = judgments.judge AND other.id <= :last
)"""
OPEN = f"NOT EXISTS (SELECT 1 FROM judgments WHERE judgments.pair = pairs.id AND judgments.judge = '{RULE}')"
EVERYTHING = 2**62


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedPair:
    """Two answers to a held-out prompt, one of them the policy's, as a run asks about them."""

    run: str
    """Which run of a stage asks; another setting of the same stage is another run."""
    stage: str
    step: int
    place: int
    """Number of the pair among those of its step, from 0."""
    prompt: Prompt
    left: str
    right: str
    left_finished: bool
    right_finished: bool
    policy_side: Side
    left_score: float | None = None
    """By the reward model that the policy is trained on, in its own unit."""
    right_score: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A pair as judges see it: nothing tells which side is the policy's."""

    id: int
    prompt: Prompt
    left: str
    right: str
    left_finished: bool
    right_finished: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one judge says of one pair."""

    pair: int
    judge: str
    choice: Choice
    seconds: float | None = None
    """Time that the judge spent; None where nobody measured it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredVerdict:
    """A judgment that counts, with the pair that it is about."""

    judgment: int
    pair: int
    judge: str
    choice: Choice
    step: int
    """Of the policy that was judged, which may be earlier than the step that reads it."""
    place: int
    policy_side: Side
    policy_score: float | None
    sft_score: float | None

    @property
    def value(self) -> float | None:
        """1 where the policy won, 0 where it lost, 0.5 for a tie or two bad answers, None for a skip."""
        if self.choice == "skip":
            return None
        return float(self.choice == self.policy_side) if self.choice in get_args(Side) else 0.5


class Queue:
    """The queue of one run folder (or project). Any number of processes may ask and answer at once."""

    def __init__(self, path: Path) -> None:
        """Opens or begins the file. ArtifactError for a damaged or a foreign one."""
        self.path = path
        self._database = Database(path, MIGRATIONS)

    def ask(self, pairs: Sequence[QueuedPair]) -> list[int]:
        """The numbers of the pairs, in order; those that were asked before (same run, stage, step, place) stay as
        they are and keep their number. ArtifactError when such a one has another prompt: it is another question.
        """
        with self._database.writing() as connection:
            return [_ask(connection, self.path, pair) for pair in pairs]

    def answer(self, pair: int, judge: str, choice: Choice, seconds: float | None = None) -> int:
        """Append one judgment; its number."""
        return self.answer_all([Answer(pair=pair, judge=judge, choice=choice, seconds=seconds)])[0]

    def answer_all(self, answers: Iterable[Answer]) -> list[int]:
        """Append judgments, all or none; their numbers. DataError for an unknown pair or choice."""
        with self._database.writing() as connection:
            return [_answer(connection, self.path, answer) for answer in answers]

    def pending(self, judge: str | None = None, limit: int | None = None) -> list[Question]:
        """Pairs that `judge` has said nothing about, or without a judge that nobody has.

        The least judged come first, of those the pairs of the latest step: they say most about the policy as it is.
        """
        by = "" if judge is None else " AND judgments.judge = :judge"
        rows = self._read(
            f"""SELECT * FROM pairs WHERE {OPEN}
                AND NOT EXISTS (SELECT 1 FROM judgments WHERE judgments.pair = pairs.id{by})
                ORDER BY (SELECT count(DISTINCT judge) FROM judgments WHERE judgments.pair = pairs.id),
                    step DESC, id LIMIT :limit""",
            judge=judge,
            limit=EVERYTHING if limit is None else limit,
        )
        return [_question(row) for row in rows]

    def unanswered(self, pairs: Sequence[int], judge: str) -> list[Question]:
        """Those of the pairs with these numbers that `judge` has said nothing about, by number."""
        rows = self._read(
            """SELECT * FROM pairs WHERE id BETWEEN :first AND :last AND NOT EXISTS (
                SELECT 1 FROM judgments WHERE judgments.pair = pairs.id AND judgments.judge = :judge) ORDER BY id""",
            first=min(pairs, default=0),
            last=max(pairs, default=-1),
            judge=judge,
        )
        return [_question(row) for row in rows if row["id"] in set(pairs)]

    def progress(self, judge: str) -> tuple[int, int]:
        """How many pairs `judge` has said something about, and how many there are to judge."""
        (row,) = self._read(
            f"""SELECT count(*) AS every, coalesce(sum(EXISTS (SELECT 1 FROM judgments
                WHERE judgments.pair = pairs.id AND judgments.judge = :judge)), 0) AS done FROM pairs WHERE {OPEN}""",
            judge=judge,
        )
        return row["done"], row["every"]

    def asked(self, run: str, stage: str, step: int) -> int:
        """How many pairs a run has put before judges up to and including `step`."""
        where = f"run = :run AND stage = :stage AND step <= :step AND {OPEN}"
        (row,) = self._read(f"SELECT count(*) AS n FROM pairs WHERE {where}", run=run, stage=stage, step=step)
        return row["n"]

    def verdicts(self, run: str, stage: str, step: int) -> list[StoredVerdict]:
        """What was answered so far about the run's pairs of steps up to `step`, ordered by pair and judge, skips
        included. Recorded: asking again for the same step gives the same list, whatever was answered since.
        """
        key = {"run": run, "stage": stage, "step": step}
        with self._database.writing() as connection:
            if (known := _reading(connection, key, "step = :step")) is not None:
                return known
            last = connection.execute("SELECT coalesce(max(id), 0) FROM judgments").fetchone()[0]
            connection.execute(
                "INSERT INTO seen VALUES (:run, :stage, :step, :last, :now)", {**key, "last": last, "now": _now()}
            )
            return _newest(connection, key, step, last)

    def seen(self, run: str, stage: str, step: int) -> list[StoredVerdict] | None:
        """What `verdicts` gave at `step`; None where nobody asked."""
        with self._database.reading() as connection:
            return _reading(connection, {"run": run, "stage": stage, "step": step}, "step = :step")

    def seen_before(self, run: str, stage: str, step: int) -> list[StoredVerdict]:
        """What the latest reading before `step` gave; empty where there was none."""
        with self._database.reading() as connection:
            return _reading(connection, {"run": run, "stage": stage, "step": step}, "step < :step") or []

    def _read(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        with self._database.reading() as connection:
            return connection.execute(sql, values).fetchall()


def _ask(connection: sqlite3.Connection, path: Path, pair: QueuedPair) -> int:
    """The number of the pair, new or known."""
    prompt = prompt_json(pair.prompt)
    values = {
        "run": pair.run,
        "stage": pair.stage,
        "step": pair.step,
        "place": pair.place,
        "prompt": prompt,
        "left_text": storable(pair.left),
        "right_text": storable(pair.right),
        "left_finished": int(pair.left_finished),
        "right_finished": int(pair.right_finished),
        "policy_side": pair.policy_side,
        "left_score": pair.left_score,
        "right_score": pair.right_score,
        "created": _now(),
    }
    known = connection.execute(
        "SELECT id, prompt FROM pairs WHERE run = :run AND stage = :stage AND step = :step AND place = :place", values
    ).fetchone()
    if known is None:
        number = _next_number(connection, "pairs")
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        connection.execute(f"INSERT INTO pairs (id, {names}) VALUES (:id, {places})", {**values, "id": number})
        return number
    if known["prompt"] != prompt:
        raise ArtifactError(
            f"{path}: {pair.run}, {pair.stage}, step {pair.step}, pair {pair.place} was asked before about another "
            "prompt. Give the run another name, or move the file away; answers to the one do not count for the other."
        )
    return known["id"]


def _answer(connection: sqlite3.Connection, path: Path, answer: Answer) -> int:
    if answer.choice not in get_args(Choice):
        raise DataError(f"{answer.choice!r} is not a choice. Expected one of {', '.join(get_args(Choice))}.")
    if not answer.judge.strip():
        raise DataError("a judgment without the name of its judge. Give one.")
    if connection.execute("SELECT 1 FROM pairs WHERE id = ?", (answer.pair,)).fetchone() is None:
        raise DataError(f"{path}: pair {answer.pair} is not in the queue. `pending` lists those that are.")
    number = _next_number(connection, "judgments")
    connection.execute(
        "INSERT INTO judgments VALUES (?, ?, ?, ?, ?, ?)",
        (number, answer.pair, storable(answer.judge), answer.choice, answer.seconds, _now()),
    )
    return number


def _next_number(connection: sqlite3.Connection, table: str) -> int:
    return connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0]


def _reading(connection: sqlite3.Connection, key: dict[str, Any], which: str) -> list[StoredVerdict] | None:
    """What the latest reading for which `which` holds gave, again; None where there is none."""
    row = connection.execute(
        f"SELECT step, last_judgment FROM seen WHERE run = :run AND stage = :stage AND {which} "
        "ORDER BY step DESC LIMIT 1",
        key,
    ).fetchone()
    return None if row is None else _newest(connection, key, row["step"], row["last_judgment"])


def _newest(connection: sqlite3.Connection, key: dict[str, Any], step: int, last: int) -> list[StoredVerdict]:
    rows = connection.execute(
        f"""SELECT judgments.id AS judgment, judgments.judge, judgments.choice, pairs.* FROM judgments
            JOIN pairs ON pairs.id = judgments.pair
            WHERE run = :run AND stage = :stage AND step <= :step AND {NEWEST}
            ORDER BY pairs.step, pairs.place, judgments.judge""",
        {**key, "step": step, "last": last},
    )
    return [_verdict(row) for row in rows]


def _verdict(row: sqlite3.Row) -> StoredVerdict:
    scores = row["left_score"], row["right_score"]
    policy, sft = scores if row["policy_side"] == "left" else scores[::-1]
    return StoredVerdict(
        judgment=row["judgment"],
        pair=row["id"],
        judge=row["judge"],
        choice=row["choice"],
        step=row["step"],
        place=row["place"],
        policy_side=row["policy_side"],
        policy_score=policy,
        sft_score=sft,
    )


def _question(row: sqlite3.Row) -> Question:
    return Question(
        id=row["id"],
        prompt=prompt_of(row["prompt"]),
        left=row["left_text"],
        right=row["right_text"],
        left_finished=bool(row["left_finished"]),
        right_finished=bool(row["right_finished"]),
    )


def prompt_json(prompt: Prompt) -> str:
    """A prompt as JSON: a string, or a list of turns."""
    turns = prompt if isinstance(prompt, str) else [{"role": turn.role, "content": turn.content} for turn in prompt]
    return json.dumps(turns)


def prompt_of(text: str) -> Prompt:
    """The prompt that `prompt_json` wrote."""
    found = json.loads(text)
    return found if isinstance(found, str) else tuple(Message(turn["role"], turn["content"]) for turn in found)


def storable(text: str) -> str:
    """`text` with what no database's text can hold (lone surrogates, NUL) as U+FFFD."""
    return re.sub("[\0\ud800-\udfff]", "\ufffd", text)


def _now() -> str:
    """ISO 8601, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
