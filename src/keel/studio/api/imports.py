"""An uploaded file as items: keel's own pairs, or any format of `keel.data` that holds two answers to a prompt."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from keel.core.errors import DataError
from keel.data.formats import DataConfig, read
from keel.data.records import Choice, Comparison, Message, Prompt
from keel.data.rows import Row, read_file
from keel.store.rows import NewItem
from keel.store.texts import checked, prompt_json
from keel.studio.api.models import Model, OwnChoice, Skill

SUFFIXES = {
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
}
READ = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
PAIR_NAMES = ({"prompt", "a", "b"}, {"prompt", "response_a", "response_b"})


class Turn(Model):
    role: Annotated[str, Field(max_length=100, examples=["user"])]
    content: str


class PairIn(Model):
    """One pair to judge, in keel's own form."""

    prompt: Annotated[str | list[Turn], Field(examples=["How do I reset my password?"])]
    a: str
    b: str
    skills: tuple[Skill, ...] = ()
    """All of these a rater must have to be given the pair."""
    priority: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Where the answers come from: `{"a": "model x", "b": "model y"}`. Never shown to those who judge."""
    gold: OwnChoice | None = None
    """The known answer, which makes it a golden item."""


def suffix_of(content_type: str, name: str | None) -> str:
    """How to read an upload, from its name or else its content type."""
    suffix = Path(name).suffix.lower() if name else SUFFIXES.get(content_type.split(";")[0].strip().lower(), ".jsonl")
    if suffix not in READ:
        raise DataError(f"{suffix or 'A name without a suffix'} cannot be read here. Known: {', '.join(READ)}.")
    return suffix


def read_items(path: Path, *, gold: bool) -> list[NewItem]:
    """The pairs in a file. With `gold`, what a format says is better becomes the known answer."""
    try:
        first = next(iter(read_file(path)), None)
        if isinstance(first, Row) and any(names <= set(first.values) for names in PAIR_NAMES) and _own(first.values):
            return list(_own_pairs(path))
        reading = read(DataConfig(path=str(path), as_chat=False), "comparisons")
        return [_storable(record.source or path.name, _converted(record, gold)) for record in reading.records]
    except DataError as error:  # the temporary folder means nothing to whoever sent the file
        raise DataError(str(error).replace(f"{path.parent}/", "")) from error


def _own(values: Mapping[str, Any]) -> bool:
    return "preference" not in values and "votes" not in values


def _own_pairs(path: Path) -> Iterator[NewItem]:
    for row in read_file(path):
        if not isinstance(row, Row):
            raise row
        given = {{"response_a": "a", "response_b": "b"}.get(name, name): value for name, value in row.values.items()}
        try:
            pair = PairIn.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{row.place}: {field}: {first['msg']}. Correct the line; nothing was imported.") from error
        yield _storable(
            row.place,
            NewItem(
                prompt=_prompt(pair.prompt),
                a=pair.a,
                b=pair.b,
                skills=pair.skills,
                priority=pair.priority,
                provenance=pair.provenance,
                gold=pair.gold if pair.gold != "skip" else None,
            ),
        )


def _storable(place: object, item: NewItem) -> NewItem:
    """The item; DataError with its place in the file for a text that no database takes, such as one with NUL."""
    prompt_json(item.prompt, f"{place}: prompt")
    for name, text in (("a", item.a), ("b", item.b)):
        checked(text, f"{place}: answer {name}")
    return item


def _prompt(given: str | list[Turn]) -> Prompt:
    return given if isinstance(given, str) else tuple(Message(turn.role, turn.content) for turn in given)


def _converted(record: Comparison, gold: bool) -> NewItem:
    known: Choice | None = {1.0: "a", 0.0: "b", 0.5: "tie"}.get(record.preference) if gold else None  # type: ignore[assignment]
    provenance = {"source": Path(record.source).name} if record.source else {}
    provenance |= {side: model for side, model in zip("ab", record.models, strict=True) if model}
    return NewItem(prompt=record.prompt, a=record.a, b=record.b, provenance=provenance, gold=known)
