"""Readers and writers of several responses to one prompt with scores or ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

from keel.data import fields
from keel.data.dialect import UnwritableError, keys_beside
from keel.data.fields import written_prompt
from keel.data.records import Prompt, Ranking
from keel.data.rows import RecordError, Row, Values

SCORES = ("fine-grained_score", "overall_score")
"""Where UltraFeedback keeps a completion's score: the mean of the four aspect ratings, else the critique's grade."""


def read_ultrafeedback(row: Row) -> Ranking:
    """An instruction with completions, each a response, its scores and its model."""
    prompt = fields.prompt(row, "instruction")
    completions = _objects(row, "completions")
    responses, scores, models = [], [], []
    for number, completion in enumerate(completions):
        name = f"completions[{number}]"
        responses.append(fields.checked_text(row, f"{name}.response", completion.get("response")))
        score = next((key for key in SCORES if completion.get(key) is not None), SCORES[0])
        scores.append(fields.checked_number(row, f"{name}.{score}", completion.get(score)))
        models.append(str(completion.get("model") or ""))
    return _ranking(row, prompt, responses, scores, models)


def read_distilabel(row: Row) -> Ranking:
    """An instruction with generations and their ratings, as distilabel writes UltraFeedback."""
    prompt = fields.prompt(row, "instruction")
    responses = [
        fields.checked_text(row, f"generations[{number}]", text)
        for number, text in enumerate(_list(row, "generations"))
    ]
    scores = _numbers(row, "ratings")
    named = row.values.get("generation_models")
    models = [str(name) for name in named] if isinstance(named, Sequence) and not isinstance(named, str) else []
    return _ranking(row, prompt, responses, scores, models)


def unread_in_completions(values: Values) -> list[str]:
    """What completions hold besides response, score and model."""
    completions = values.get("completions")
    known = ["response", "model"]
    first = completions[0] if isinstance(completions, Sequence) and completions else None
    if isinstance(first, Mapping):
        known.append(next((key for key in SCORES if first.get(key) is not None), SCORES[0]))
    return [f"completions[].{key}" for key in keys_beside(completions, known)]


def write_ultrafeedback(record: Ranking) -> dict[str, Any]:
    if not isinstance(record.prompt, str):
        raise UnwritableError("UltraFeedback's instruction is a text, not a chat")
    models = record.models or ("",) * len(record.responses)
    completions = [
        {"model": model, "response": response, SCORES[0]: score}
        for model, response, score in zip(models, record.responses, record.scores, strict=True)
    ]
    return {"instruction": record.prompt, "models": list(record.models), "completions": completions}


def read_scored(row: Row) -> Ranking:
    """A prompt with responses and their scores, higher is better (keel)."""
    return _read_listed(row, _numbers(row, "scores"))


def read_ranked(row: Row) -> Ranking:
    """A prompt with responses and their ranks, 1 is best, equal ranks are ties (keel)."""
    return _read_listed(row, [-rank for rank in _numbers(row, "ranks")])


def write_scored(record: Ranking) -> dict[str, Any]:
    values = {
        "prompt": written_prompt(record.prompt),
        "responses": list(record.responses),
        "scores": list(record.scores),
    }
    return values | ({"models": list(record.models)} if record.models else {})


def _read_listed(row: Row, scores: list[float]) -> Ranking:
    prompt = fields.prompt(row, "prompt")
    responses = [
        fields.checked_text(row, f"responses[{number}]", text) for number, text in enumerate(_list(row, "responses"))
    ]
    models = [fields.checked_text(row, f"models[{n}]", m) if m else "" for n, m in enumerate(_list(row, "models", ()))]
    return _ranking(row, prompt, responses, scores, models)


def _ranking(row: Row, prompt: Prompt, responses: list[str], scores: list[float], models: list[str]) -> Ranking:
    if len(responses) != len(scores) or len(models) not in (0, len(responses)):
        raise RecordError(
            row.place,
            "lists of different lengths",
            f"there are {len(responses)} responses, {len(scores)} scores and {len(models)} models; as many of each "
            "were expected.",
        )
    if len(responses) < 2:
        raise RecordError(
            row.place, "nothing to rank", f"there are {len(responses)} responses; at least two can be ranked."
        )
    first: dict[str, int] = {}
    for number, response in enumerate(responses):
        earlier = first.setdefault(response, number)
        if earlier != number:
            raise RecordError(
                row.place,
                "identical answers",
                f"responses {earlier + 1} and {number + 1} are the same text. Drop one of them, or the "
                f"{row.place.unit}.",
            )
    known = tuple(models) if any(models) else ()
    return Ranking(prompt, tuple(responses), tuple(scores), known, row.place.source)


def _list(row: Row, name: str, default: Sequence[Any] | None = None) -> Sequence[Any]:
    if default is not None and row.values.get(name) in (None, ""):
        return default
    found = fields.value(row, name)
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise fields.wrong_type(row, name, found, "a list")
    return found


def _numbers(row: Row, name: str) -> list[float]:
    return [fields.checked_number(row, f"{name}[{n}]", found) for n, found in enumerate(_list(row, name))]


def _objects(row: Row, name: str) -> list[Mapping[str, Any]]:
    found = _list(row, name)
    for number, item in enumerate(found):
        if not isinstance(item, Mapping):
            raise fields.wrong_type(row, f"{name}[{number}]", item, "an object")
    return list(found)
