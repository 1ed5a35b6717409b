"""Candidate pairs for raters: prompts answered by one or several models, every answer with where it comes from.

FOLDER/sample.yaml       the resolved settings
FOLDER/responses.jsonl   every answer as it came in; nothing in here is ever asked for again
FOLDER/pairs.jsonl       the pairs, whole or absent

Only checkpoints need torch; it is loaded when the first one is.
"""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from keel.core.config import digest, to_yaml
from keel.core.errors import ArtifactError, DataError, EndpointError, KeelError
from keel.core.files import RunLock, atomic_write_text, explained_when_full
from keel.core.progress import Progress
from keel.core.seed import derive
from keel.data.formats import read_prompts, to_values
from keel.data.records import Prompt, prompt_key
from keel.data.split import is_held_out
from keel.stages.endpoint import Endpoint, EndpointConfig, Reply, Sampling
from keel.stages.pairing import Answer, CandidatePair, pair_up
from keel.stages.sampling import SampleConfig, SourceConfig

SYNC_EVERY_S = 1.0
RESPONSES, PAIRS, SETTINGS = "responses.jsonl", "pairs.jsonl", "sample.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """One answer that is to be drawn."""

    key: str
    """Hash of everything that decides it: model, settings, seed, prompt, index."""
    prompt: Prompt
    index: int


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What came of sampling."""

    pairs: Sequence[CandidatePair]
    responses: int
    """Answers that the pairs were made of."""
    fresh: int
    """Answers drawn this time; the others were there."""
    dropped: dict[str, int]
    usd: float
    """What all answers in the folder have cost."""


class Source(Protocol):
    """Something that answers prompts."""

    identity: str
    """What decides what is drawn: a hash of the weights and how they are read, or the address and the name there."""
    provenance: dict[str, Any]
    """The same for people, with the path or address."""

    def draw(self, wanted: Sequence[Wanted], keep: Callable[[Wanted, dict[str, Any]], None]) -> None:
        """Hand every answer to `keep` as soon as it is there: text, finished, seed, and what else is known."""


@dataclass
class Record:
    """The answers of a folder. Each is the operating system's the moment it is known, so a killed process loses none;
    it is on disk within a second, so a power cut loses that second's.
    """

    path: Path
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    usd: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    synced: float = field(default_factory=time.monotonic)

    @classmethod
    def opened(cls, path: Path) -> "Record":
        """What is there. A line that a killed process left half written is dropped."""
        record = cls(path)
        if path.is_file():
            raw = path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]
            if len(whole) < len(raw):
                os.truncate(path, len(whole))
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    row = json.loads(line)
                    record.answers[row["key"]] = row
                    record.usd += row["provenance"].get("usd", 0.0)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise ArtifactError(
                        f"{path}, line {number}: damaged, no answer of keel sample. Remove the line (its answer is "
                        "drawn again) or give another folder with --out."
                    ) from error
        return record

    def add(self, row: dict[str, Any]) -> None:
        """One more answer."""
        line = json.dumps(row, ensure_ascii=True) + "\n"
        with self.lock, explained_when_full(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            if time.monotonic() - self.synced > SYNC_EVERY_S:
                os.fsync(file.fileno())
                self.synced = time.monotonic()
            self.answers[row["key"]] = row
            self.usd += row["provenance"].get("usd", 0.0)


def sample(config: SampleConfig, folder: Path, progress: Progress) -> Drawn:
    """Answers of every model to every prompt of the wanted side, and the pairs made of them.

    Answers that `folder` holds are taken from there. An endpoint that fails does not keep the other models from
    finishing: what they say is kept, and then one EndpointError names all that failed.
    """
    prompts = wanted_prompts(config)
    with RunLock(folder):
        atomic_write_text(folder / SETTINGS, to_yaml(config))
        record = Record.opened(folder / RESPONSES)
        before = len(record.answers)
        failures: list[str] = []
        keys: dict[str, list[Wanted]] = {}
        for source in config.models:
            try:
                keys[source.name] = answered(config, source, prompts, record, progress)
            except EndpointError as error:
                failures.append(f"{source.name}: {error}")
        if failures:
            raise EndpointError(
                f"{' '.join(failures)} {len(record.answers)} answers are kept in {folder / RESPONSES}; the same "
                "command asks only for those that are missing."
            )
        dropped: Counter[str] = Counter()
        pairs = [
            pair
            for number, prompt in enumerate(prompts)
            for pair in pair_up(
                [
                    as_answer(record.answers[one.key], source.name, one)
                    for source in config.models
                    for one in keys[source.name][number * config.samples : (number + 1) * config.samples]
                    if one.key in record.answers  # a checkpoint cannot answer a prompt without a token
                ],
                side_of(prompt, config),
                config,
                dropped,
            )
        ]
        lines = [json.dumps(pair.to_values(), ensure_ascii=False) + "\n" for pair in pairs]
        atomic_write_text(folder / PAIRS, "".join(lines))
    return Drawn(
        pairs=pairs,
        responses=len(prompts) * len(config.models) * config.samples,
        fresh=len(record.answers) - before,
        dropped=dict(dropped),
        usd=record.usd,
    )


def wanted_prompts(config: SampleConfig) -> list[Prompt]:
    """The prompts of the side that the settings ask for."""
    prompts = [p for p in read_prompts(config.prompts) if config.side in ("all", side_of(p, config))]
    if not prompts:
        raise DataError(
            f"{config.prompts.path}: no prompt is on the side {config.side} with prompts.holdout="
            f"{config.prompts.holdout}. Choose another side or share, or add prompts."
        )
    return prompts


def side_of(prompt: Prompt, config: SampleConfig) -> str:
    return "held_out" if is_held_out(prompt_key(prompt), config.prompts.holdout) else "train"


def answered(
    config: SampleConfig, source: SourceConfig, prompts: Sequence[Prompt], record: Record, progress: Progress
) -> list[Wanted]:
    """Every answer of one model, drawn where it was not there; prompts in order, their answers side by side."""
    model = opened(config, source, record)
    settings = {
        "temperature": config.temperature_of(source),
        "max_new_tokens": config.max_new_tokens,
        "seed": config.seed,
    }
    wanted = [
        Wanted(
            key=digest({"model": model.identity, "settings": settings, "prompt": to_values(prompt), "index": index}),
            prompt=prompt,
            index=index,
        )
        for prompt in prompts
        for index in range(config.samples)
    ]
    missing = [one for one in wanted if one.key not in record.answers]
    progress.start(f"sample {source.name}", len(wanted), "answers")
    progress.advance(len(wanted) - len(missing))

    def keep(one: Wanted, said: dict[str, Any]) -> None:
        text, about = said["text"], {name: value for name, value in said.items() if name != "text"}
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        provenance = {
            "model": source.name,
            **model.provenance,
            "settings": settings,
            "index": one.index,
            **about,
            "at": at,
        }
        record.add({"key": one.key, **to_values(one.prompt), "response": text, "provenance": provenance})
        progress.advance(1)

    if missing:
        model.draw(missing, keep)
    progress.finish(f"{len(missing)} drawn, {len(wanted) - len(missing)} were there")
    return wanted


def opened(config: SampleConfig, source: SourceConfig, record: Record) -> Source:
    """The model, ready to answer."""
    if source.endpoint is not None:
        return Served(Endpoint(source.endpoint), config, source, record)
    if source.checkpoint is None:
        raise RuntimeError("a source without a place; the settings forbid it")
    from keel.stages.sample_local import Checkpoint  # torch comes with it

    return Checkpoint.opened(source.checkpoint, config, source)


def as_answer(row: dict[str, Any], name: str, one: Wanted) -> Answer:
    return Answer(prompt=one.prompt, text=row["response"], model=name, index=one.index, provenance=row["provenance"])


class Served:
    """A model behind an address. A server gives no hash of its weights: its name and fingerprint stand in for one."""

    def __init__(self, endpoint: Endpoint, config: SampleConfig, source: SourceConfig, record: Record) -> None:
        self.endpoint, self.config, self.record = endpoint, config, record
        self.temperature = config.temperature_of(source)
        c: EndpointConfig = endpoint.config
        self.provenance = {"endpoint": c.url, "endpoint_model": c.model, "api": c.api}
        self.identity = digest(self.provenance)

    def draw(self, wanted: Sequence[Wanted], keep: Callable[[Wanted, dict[str, Any]], None]) -> None:
        """Ask for all answers, some at once; after the first failure for none that was not under way."""
        self.endpoint.key()  # a key that is missing is told before any thread starts
        failure: list[KeelError] = []

        def one(item: Wanted) -> None:
            if failure:
                return
            try:
                keep(item, self.answer(item))
            except KeelError as error:
                failure.append(error)

        with ThreadPoolExecutor(self.endpoint.config.concurrency) as pool:
            try:
                for _ in pool.map(one, wanted):
                    pass
            except BaseException:  # an interrupt: requests under way end and are kept, no other begins
                failure.append(EndpointError("stopped"))
                raise
        if failure:
            raise failure[0]

    def answer(self, item: Wanted) -> dict[str, Any]:
        """One answer, within the budget."""
        config = self.endpoint.config
        self.check_budget(len(str(to_values(item.prompt))))
        seed = derive(self.config.seed, "sample", config.model, prompt_key(item.prompt), item.index) % 2**31
        reply: Reply = self.endpoint.ask(
            item.prompt,
            Sampling(max_new_tokens=self.config.max_new_tokens, temperature=self.temperature, seed=seed),
        )
        read = reply.input_tokens or estimated_tokens(str(to_values(item.prompt)))
        written = reply.output_tokens or estimated_tokens(reply.text)
        return {
            "text": reply.text,
            "finished": reply.finished,
            "response_seed": seed if config.send_seed else None,
            "served_model": reply.model,
            "fingerprint": reply.fingerprint,
            "tokens": written,
            "usd": config.usd(read, written),
        }

    def check_budget(self, prompt_characters: int) -> None:
        """EndpointError when the next answer could cost more than is left; a character counts as a token, at most."""
        budget = self.config.budget_usd
        if budget is None:
            return
        most = self.endpoint.config.usd(prompt_characters, self.config.max_new_tokens)
        reserve = most * self.endpoint.config.concurrency
        if self.record.usd + reserve > budget:
            raise EndpointError(
                f"{self.endpoint.config.url}: the budget is used up: ${self.record.usd:.4f} of budget_usd={budget:g} "
                f"are spent, and the requests under way may cost up to ${reserve:.4f}. Raise budget_usd to go on."
            )


def estimated_tokens(text: str) -> int:
    """Tokens of a text whose server does not count them: one for three characters, more than most texts have."""
    return len(text) // 3 + 1
