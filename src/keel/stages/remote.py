"""A scorer behind an address: prompts and responses out, one number each back.

    scores = RemoteScorer(RemoteConfig(url="http://localhost:5000/get_reward")).ask(prompts, responses, records)

Four dialects (`ppo.rewards[].remote.protocol`); what each sends and expects stands in `DIALECTS`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite
from typing import Any

from keel.data.prompt_records import PromptRecord
from keel.stages.address import Address, PassingError
from keel.stages.sections.rewards import RemoteConfig


@dataclass(frozen=True, slots=True)
class Asked:
    """Responses of one request."""

    prompts: Sequence[str]
    responses: Sequence[str]
    records: Sequence[PromptRecord]

    @property
    def texts(self) -> list[str]:
        """Prompt and response as one text, as the policy saw them but for its template."""
        return [prompt + response for prompt, response in zip(self.prompts, self.responses, strict=True)]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a protocol sends, and where the scores stand in its answer."""

    body: Callable[[Asked, RemoteConfig], dict[str, Any]]
    scores: Callable[[Any], list[Any]]


def _in_order(found: Mapping[str, Any]) -> list[Any]:
    entries = sorted(found["data"], key=lambda entry: entry["index"])
    if [entry["index"] for entry in entries] != list(range(len(entries))):
        raise TypeError("an index is there twice or missing")
    return entries


def _pooled(value: Any) -> Any:
    """The number that a pooling model says: alone, or the last of a list (of lists) of one."""
    while isinstance(value, list):
        value = value[-1]
    return value


DIALECTS: Mapping[str, Dialect] = {
    "keel": Dialect(
        lambda asked, _: {
            "prompts": list(asked.prompts),
            "responses": list(asked.responses),
            "records": [dict(record) for record in asked.records],
        },
        lambda found: found["scores"],
    ),
    "openrlhf": Dialect(
        lambda asked, _: {
            "query": asked.texts,
            "prompts": list(asked.prompts),
            "labels": [record.get("answer") for record in asked.records],
        },
        lambda found: found["rewards"],
    ),
    "vllm_score": Dialect(
        lambda asked, config: {"model": config.model, "text_1": list(asked.prompts), "text_2": list(asked.responses)},
        lambda found: [entry["score"] for entry in _in_order(found)],
    ),
    "vllm_pooling": Dialect(
        lambda asked, config: {"model": config.model, "input": asked.texts},
        lambda found: [_pooled(entry["data"]) for entry in _in_order(found)],
    ),
}


@dataclass(frozen=True)
class RemoteScorer(Address):
    """Scores from an address, a few responses a request."""

    config: RemoteConfig

    def ask(self, prompts: Sequence[str], responses: Sequence[str], records: Sequence[PromptRecord]) -> list[float]:
        """One finite number a response, in order. EndpointError when the address has failed too often, or refuses."""
        size = self.config.batch
        pieces = [
            Asked(prompts[at : at + size], responses[at : at + size], records[at : at + size])
            for at in range(0, len(responses), size)
        ]
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            answers = list(pool.map(lambda piece: self.patiently(lambda: self._once(piece)), pieces))
        return [score for answer in answers for score in answer]

    def _once(self, asked: Asked) -> list[float]:
        dialect = DIALECTS[self.config.protocol]
        body = self.post(self.config.url, dialect.body(asked, self.config))
        count = len(asked.responses)
        try:
            scores = dialect.scores(json.loads(body))
            if not isinstance(scores, list) or len(scores) != count:
                raise TypeError("no list of as many scores")
            if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scores):
                raise TypeError("a score is no number")
            if not all(isfinite(score) for score in scores):
                raise TypeError("a score is not finite")
            return [float(score) for score in scores]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            start = body[:80].decode("utf-8", "replace")
            raise PassingError(
                f"answers with something other than {count} finite scores in the form of protocol "
                f"{self.config.protocol}: {start!r}"
            ) from error
