"""Records in and out: JSONL, JSON, CSV, TSV, Parquet, text files and hub sets, in the dialects of `keel.data.dialects`.

    config = DataConfig(path="pairs.jsonl")
    comparisons = read_comparisons(config)          # or read_demonstrations, read_prompts, read_labelled
    reading = read(config, "comparisons")           # the same with the format found and what was dropped

The format is detected from the columns or said with `format:`; where two formats fit, that is an error.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from keel.core.config import Config
from keel.core.errors import DataError
from keel.core.files import atomic_write_text
from keel.data import hub, rows
from keel.data.answers import write_labelled, write_prompt, write_prompt_response, write_text, write_unpaired
from keel.data.convert import converted, distinct
from keel.data.detect import Detected, detect, fitting
from keel.data.dialect import Dialect, Kind
from keel.data.dialects import COLUMNS, DIALECTS, FORMATS
from keel.data.labelled import pair_texts
from keel.data.pairs import write_comparison, write_text_comparison
from keel.data.rankings import write_scored
from keel.data.records import Comparison, Demonstration, LabelledText, Prompt, Ranking, Rating, Record
from keel.data.rows import RecordError, Row, Rows
from keel.data.snapshot import read_snapshot, snapshot_at

R = TypeVar("R", bound=Record)
Format = Literal[
    "auto",
    "prompt_response",
    "prompt_completion",
    "messages",
    "sharegpt",
    "alpaca",
    "text",
    "prompt_only",
    "unpaired",
    "llamafactory_kto",
    "labelled_text",
    "preference",
    "preference_implicit",
    "hh",
    "llamafactory_ranking",
    "openai_preference",
    "rewardbench",
    "comparison",
    "text_comparison",
    "ranking",
    "ultrafeedback",
    "scale",
    "surge",
    "helpsteer",
]

log = logging.getLogger(__name__)

SAMPLE = 20
"""Rows that decide the format."""


class DataConfig(Config):
    """Where records come from and how they are read."""

    path: str
    """A file (.jsonl, .json, .csv, .tsv, .parquet or .txt, also with .gz), a folder of such files, a snapshot (its
    folder, or FOLDER@HASH), or the id of a set on the Hugging Face hub. What exists locally wins."""
    format: Format = "auto"
    """How the records are written; "auto" detects it from the columns and stops where two formats fit."""
    columns: dict[str, str] = Field(default_factory=dict)
    """keel's name for a column and the file's own: {prompt: question, response: answer}. A dot looks inside an object:
    {prompt: fields.question}."""
    subset: str | None = None
    """Configuration of a hub set, for sets that have several."""
    data_dir: str | None = None
    """Folder inside a hub set, for sets that keep parts in folders (Anthropic/hh-rlhf: harmless-base)."""
    split: str = "train"
    """Split of a hub set; in a folder with several files, how the names of the wanted ones start."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most this many usable records, from the start."""
    holdout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the distinct prompts kept back for measuring, chosen by hash so that it is stable as data grows."""
    on_error: Literal["stop", "drop"] = "stop"
    """A record that cannot be used stops the run, or is dropped and counted."""
    as_chat: bool = False
    """Turn text prompts into chats: HH dialogues turn by turn, other texts into one user message."""

    @model_validator(mode="after")
    def _known_columns(self) -> Self:
        for name, own in self.columns.items():
            if name not in COLUMNS:
                if own in COLUMNS:
                    raise ValueError(f"columns is written keel's name first: {{{own}: {name}}}, not {{{name}: {own}}}")
                near = get_close_matches(name, COLUMNS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(COLUMNS)}"
                raise ValueError(f"columns names {name!r}, which no format has; {hint}")
        return self


@dataclass(frozen=True, kw_only=True)
class Reading(Generic[R]):
    """Records, and how they were come by."""

    path: str
    format: str
    why: str  # why this format
    records: list[R]
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> records
    examples: dict[str, str] = field(default_factory=dict)  # reason -> the first such record's message

    def __str__(self) -> str:
        many = "1 record" if len(self.records) == 1 else f"{len(self.records)} records"
        text = f"{self.path}: {many}, format {self.format} ({self.why})"
        reasons = ", ".join(f"{count} ({reason})" for reason, count in self.dropped.items())
        return f"{text}; dropped {reasons}" if reasons else text


def read_demonstrations(config: DataConfig) -> list[Demonstration]:
    """Prompts with a response to imitate. Of comparisons the preferred responses, ties left out."""
    return read(config, "demonstrations").records


def read_comparisons(config: DataConfig) -> list[Comparison]:
    """Pairs of responses with a preference. Labelled texts are paired within the sides of `holdout`."""
    return read(config, "comparisons").records


def read_prompts(config: DataConfig) -> list[Prompt]:
    """Distinct prompts, of whatever has some; bare texts are prompts themselves."""
    return read(config, "prompts").records


def read_ratings(config: DataConfig) -> list[Rating]:
    """Responses with thumbs up or down. A comparison gives two, ties left out."""
    return read(config, "ratings").records


def read_rankings(config: DataConfig) -> list[Ranking]:
    """Prompts with several scored responses."""
    return read(config, "rankings").records


def read_labelled(config: DataConfig) -> list[LabelledText]:
    """Texts with a yes or no label."""
    return read(config, "labelled texts").records


def read(config: DataConfig, kind: Kind) -> Reading[Any]:
    """Records of one kind with the format found, and what was dropped and why; it is logged as well."""
    dialect, why, found = open_rows(config)
    if kind not in dialect.gives:
        others = ", ".join(dict.fromkeys(d.name for d in DIALECTS if kind in d.gives))
        raise DataError(
            f"{config.path} is in the format {dialect.name} ({why}), which has no {kind}; it has "
            f"{', '.join(dialect.gives)}. Formats with {kind}: {others}."
        )
    tally: dict[str, int] = {}
    examples: dict[str, str] = {}
    records: Iterator[Any] = _usable(found, dialect, kind, config, tally, examples)
    if kind == "prompts":
        records = distinct(records, tally)
    if kind == "comparisons" and dialect.name == "labelled_text":
        texts = [record for record in records if isinstance(record, LabelledText)]
        pairs = pair_texts(texts, config.holdout)
        if len(texts) > 2 * len(pairs):
            tally["text without a partner"] = len(texts) - 2 * len(pairs)
        records = iter(pairs)
    kept = list(islice(records, config.limit))
    if not kept:
        raise DataError(_nothing_left(config.path, kind, examples))
    reading = Reading(path=config.path, format=dialect.name, why=why, records=kept, dropped=tally, examples=examples)
    log.log(logging.WARNING if tally else logging.INFO, "%s", reading)
    return reading


def dialect_of(config: DataConfig) -> Dialect:
    """The dialect that the records are written in, detected or configured; only the first records are read."""
    return open_rows(config)[0]


def write_jsonl(path: Path, records: Sequence[Record]) -> None:
    """Write records so that the `read_` functions give equal ones back; the file is whole or absent.

    Formats: prompt_response, comparison, unpaired, ranking, prompt_only, labelled_text; without a prompt text and
    text_comparison.
    """
    lines = [to_values(record) for record in records]
    shapes = {tuple(sorted(fitting(values))) for values in lines}
    if len(shapes) > 1:
        kinds = " and ".join(sorted({name for shape in shapes for name in shape}))
        raise DataError(f"{path}: records of the formats {kinds} cannot stand in one file. Write one file for each.")
    atomic_write_text(path, "".join(json.dumps(values, ensure_ascii=False) + "\n" for values in lines))


def to_values(record: Record) -> dict[str, Any]:
    """A record as the JSON object that `write_jsonl` writes."""
    match record:
        case Demonstration():
            return (write_prompt_response if record.prompt else write_text)(record)
        case Comparison():
            return (write_comparison if record.prompt else write_text_comparison)(record)
        case Rating():
            return write_unpaired(record)
        case Ranking():
            return write_scored(record)
        case LabelledText():
            return write_labelled(record)
        case _:
            return write_prompt(record)


def open_rows(config: DataConfig) -> tuple[Dialect, str, Rows]:
    """The dialect, why it is that one, and all rows."""
    found = _renamed(_rows(config), config.columns)
    if config.format != "auto":
        dialect = FORMATS[config.format]
        return dialect, "as configured", _unfolded(found, dialect)
    head = list(islice(found, SAMPLE))
    sample = [row for row in (*head, *_starts_of_others(config)) if isinstance(row, Row)]
    if not sample:
        first = next((bad for bad in head if isinstance(bad, RecordError)), None)
        raise first or DataError(f"{config.path} holds no records.")
    detected = detect([row.values for row in sample], [str(row.place) for row in sample])
    dialect = FORMATS[detected.format]
    return dialect, detected.why, _unfolded(chain(head, found), dialect)


def _unfolded(found: Rows, dialect: Dialect) -> Rows:
    if dialect.unfold is None:
        yield from found
        return
    for row in found:
        try:
            yield from [row] if isinstance(row, RecordError) else dialect.unfold(row)
        except RecordError as bad:
            yield bad


def _rows(config: DataConfig) -> Rows:
    path = Path(config.path).expanduser()
    if snapshot_at(config.path):
        return rows.read_file(read_snapshot(config.path).records)
    if path.exists() or not hub.looks_like_hub_id(config.path):
        return chain.from_iterable(rows.read_file(file) for file in rows.find_files(path, config.split))
    return hub.read_hub(config.path, config.subset, config.data_dir, config.split)


def _starts_of_others(config: DataConfig) -> Rows:
    """The first row of each file of a folder but the first, so that a folder of mixed formats is noticed at once."""
    path = Path(config.path).expanduser()
    if path.is_dir() and not snapshot_at(config.path):
        for file in rows.find_files(path, config.split)[1:]:
            yield from islice(_renamed(rows.read_file(file), config.columns), 1)


def _renamed(found: Rows, columns: dict[str, str]) -> Rows:
    for row in found:
        if isinstance(row, RecordError) or not columns:
            yield row
            continue
        taken = {name: _at(row.values, own) for name, own in columns.items()}
        lacking = [columns[name] for name, value in taken.items() if value is _ABSENT]
        if lacking:
            has = ", ".join(row.values)
            yield RecordError(
                row.place,
                f"no column {lacking[0]}",
                f"there is no column {lacking[0]!r}, which columns names; the record has {has}.",
            )
            continue
        rest = {name: value for name, value in row.values.items() if name not in columns.values()}
        yield Row(row.place, rest | taken)


_ABSENT = object()


def _at(values: Mapping[str, Any], own: str) -> Any:
    """The value of a column, or of a name inside one: "fields.prompt"."""
    if own in values:
        return values[own]
    found: Any = values
    for name in own.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return _ABSENT
        found = found[name]
    return found


def _usable(
    found: Rows, dialect: Dialect, kind: Kind, config: DataConfig, tally: dict[str, int], examples: dict[str, str]
) -> Iterator[Any]:
    for row in found:
        try:
            if isinstance(row, RecordError):
                raise row
            yield from converted(row, dialect.read(row), kind, config.as_chat)
        except RecordError as error:
            bad = explained(error, row, dialect)
            if not bad.harmless and config.on_error == "stop":
                raise DataError(f"{bad} With on_error: drop such records are left out and counted.") from error
            tally[bad.reason] = tally.get(bad.reason, 0) + 1
            examples.setdefault(bad.reason, str(bad))


def explained(bad: RecordError, row: Row | RecordError, dialect: Dialect) -> RecordError:
    """`bad`, or where the record lacks columns because it is written in another format than the others, that."""
    if isinstance(row, RecordError) or not bad.reason.startswith("no column"):
        return bad
    own = {name for variant in dialect.variants or (dialect,) for name in variant.columns}
    others = [name for name in fitting(row.values) if set(FORMATS[name].variant(row.values).columns) - own]
    if not others:
        return bad
    return RecordError(
        row.place,
        "another format",
        f"this record is written as {others[0]}, the others as {dialect.name}: formats are mixed. Write them to files "
        f"of their own; read with format: {others[0]} to have the one kind, with format: {dialect.name} the other.",
    )


def _nothing_left(path: str, kind: Kind, examples: dict[str, str]) -> str:
    if not examples:
        return f"{path} holds no {kind}."
    return f"{path}: every record was dropped, none of the {kind} is left. The first: {next(iter(examples.values()))}"


__all__ = [
    "DataConfig",
    "Detected",
    "Format",
    "Reading",
    "detect",
    "dialect_of",
    "read",
    "read_comparisons",
    "read_demonstrations",
    "read_labelled",
    "read_prompts",
    "read_rankings",
    "read_ratings",
    "to_values",
    "write_jsonl",
]
