"""From the settings of a reward's parts to scorers."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keel.core.errors import DataError, TrainingError
from keel.data.prompt_records import PromptRecord
from keel.data.records import Prompt, prompt_key, prompt_text
from keel.models.settings import ModelConfig
from keel.monitor.thresholds import Thresholds
from keel.stages.context import available_cores
from keel.stages.coverage import read_coverage
from keel.stages.functions import function_identity
from keel.stages.remote import RemoteScorer
from keel.stages.reward import load_external, model_identity
from keel.stages.sections.rewards import RewardPart
from keel.stages.worker import Worker
from keel.stats.coverage import Coverage
from keel.train.judge import EnsembleScorer, FunctionScorer, Scorer
from keel.verify import code, maths, patterns
from keel.verify.sandbox import locks
from keel.verify.verdict import Verdict

PATIENCE: Mapping[str, Any] = {
    "timeout_seconds": True,
    "code": {"workers": True},
    "remote": {"key_env", "batch", "concurrency", "timeout_seconds", "retries"},
}
"""Settings that change no score, so that an interrupted run goes on where it was after they were changed."""

Check = Callable[[str, str, PromptRecord], Verdict]


@dataclass(frozen=True, kw_only=True)
class Around:
    """What scorers need besides their own settings."""

    folder: Path
    """Where Python files are looked for."""
    model: ModelConfig
    tokenizer: Any
    micro_batch_tokens: int
    thresholds: Thresholds


def scorer_of(part: RewardPart, field: str, around: Around) -> Scorer:
    """The scorer of a part that is not the recipe's own reward model; `field` names it in messages."""
    if part.folders:
        members = [
            load_external(path, around.model, around.tokenizer, around.micro_batch_tokens, around.thresholds)
            for path in part.folders
        ]
        return members[0] if part.model else EnsembleScorer(members, part.aggregate, part.std_weight)
    if part.remote is not None:
        remote = RemoteScorer(part.remote)
        return FunctionScorer(
            function=remote.ask, name=field, mean=part.remote.mean, std=part.remote.std, takes_records=True
        )
    if part.python is not None or part.text is not None:
        worker = worker_of(part, field, around.folder)
        return FunctionScorer(function=worker.ask, name=part.name, takes_records=True)
    check, workers = checker(part)
    return FunctionScorer(function=Verifier(check, field, workers), name=part.name, takes_records=True)


def worker_of(part: RewardPart, field: str, folder: Path) -> Worker:
    """The process in which a part's function, or its regular expressions, run."""
    text = part.text and part.text.model_dump(mode="json")
    job = {"text": text} if text else {"python": part.python, "folder": str(folder)}
    return Worker(job, field, part.timeout_seconds)


def checker(part: RewardPart) -> tuple[Check, int]:
    """What checks one response, and how many may be checked at once."""
    if part.code is not None:
        locks(part.code.require == "kernel")
        return partial(code.check, config=part.code), part.code.workers or available_cores()
    if part.maths is not None:
        return partial(maths.check, config=part.maths), 1
    if part.tags is not None:
        return partial(patterns.check_tags, config=part.tags), 1
    if part.json_object is not None:
        return partial(patterns.check_json, config=part.json_object), 1
    raise RuntimeError(f"a part of kind {part.source} is checked by nobody")


@dataclass(frozen=True)
class Verifier:
    """A check of one response as a function of many.

    Equal responses to one prompt are checked once: that saves time, and none is both in time and late.
    """

    check: Check
    field: str
    workers: int

    def __call__(
        self, prompts: Sequence[str], responses: Sequence[str], records: Sequence[PromptRecord]
    ) -> list[float]:
        def score(prompt: str, response: str, record: PromptRecord) -> float:
            try:
                return self.check(prompt, response, record).score
            except (ValueError, DataError) as error:
                raise TrainingError(f"{self.field}: the prompt {prompt[:60]!r}: {error}") from error

        rows = list(zip(prompts, responses, records or [{} for _ in responses], strict=True))
        keys = [(prompt, response, json.dumps(record, sort_keys=True)) for prompt, response, record in rows]
        distinct = dict(zip(keys, rows, strict=True))
        with ThreadPoolExecutor(self.workers) as pool:
            scores = dict(zip(distinct, pool.map(lambda row: score(*row), distinct.values()), strict=True))
        return [scores[key] for key in keys]


def coverage_of(part: RewardPart) -> list[Coverage | None]:
    """What the reward models that a part names were trained on."""
    return [read_coverage(Path(path).parent) for path in part.folders]


def known_of(parts: Sequence[RewardPart], folder: Path) -> dict[str, Any]:
    """What a stage's hash sees of parts: their settings but for those that only say how long to wait, and the content
    of the files and folders that they name.
    """
    return {
        "rewards": [part.model_dump(mode="json", exclude=PATIENCE) for part in parts],
        "functions": [function_identity(part.python, folder) for part in parts],
        "models": [[model_identity(path) for path in part.folders] for part in parts],
    }


def check_part(part: RewardPart, field: str, folder: Path) -> None:
    """Raise for a function that cannot be loaded, a sandbox that does not hold or a key that is not set, so that it
    costs no training.
    """
    if part.python is not None:
        worker_of(part, field, folder).close()
    if part.code is not None:
        locks(part.code.require == "kernel")
    if part.remote is not None:
        RemoteScorer(part.remote).key()


def check_records(
    part: RewardPart, field: str, prompts: Sequence[Prompt], records: Mapping[str, PromptRecord], path: str
) -> None:
    """Raise DataError for a prompt without the answer or the tests that a part compares with."""
    if part.maths is None and part.code is None:
        return
    for prompt in prompts:
        record = records.get(prompt_key(prompt), {})
        where = f"{path}: {field} cannot judge the prompt {prompt_text(prompt)[:60]!r}"
        if part.maths is not None and maths.gold(record) is None:
            raise DataError(
                f"{where}: it has no answer beside it. Give each prompt a column `answer`, or say which it is: "
                "columns: {answer: <its name>}."
            )
        if part.code is not None:
            try:
                code.read_tests(record)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
