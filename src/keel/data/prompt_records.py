"""What stands beside a prompt in its file: a reference answer, tests, whatever a reward function wants to know.

records = read_prompt_records(DataConfig(path="problems.jsonl"))
records[prompt_key("What is 6 x 7?")]["answer"]     # "42"
"""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from keel.core.errors import DataError
from keel.data.convert import converted
from keel.data.formats import DataConfig, open_rows
from keel.data.records import record_key
from keel.data.rows import RecordError

PromptRecord: TypeAlias = Mapping[str, Any]
"""The columns of a prompt's record that its format does not read, as JSON values."""

TOLD = ("answer", "tests")
"""Two records of one prompt may not differ in these: nobody could say which is right."""


def read_prompt_records(config: DataConfig) -> dict[str, PromptRecord]:
    """By `prompt_key`, what stands beside each prompt that has something beside it; of repeated prompts the first.

    Records that cannot be used are passed over here: reading the prompts themselves stops at them or counts them.
    """
    dialect, _, rows = open_rows(config)
    found: dict[str, tuple[PromptRecord, str]] = {}
    for row in rows:
        if isinstance(row, RecordError):
            continue
        try:
            prompts = list(converted(row, dialect.read(row), "prompts", config.as_chat))
        except RecordError:
            continue
        beside = as_json({name: value for name, value in dialect.beside(row.values).items() if value is not None})
        for prompt in prompts:
            first, place = found.setdefault(record_key(prompt), (beside, str(row.place)))
            differing = [name for name in TOLD if first.get(name) != beside.get(name)]
            if differing:
                raise DataError(
                    f"{row.place}: the same prompt stands at {place} with another {' and '.join(differing)}. Drop one "
                    "of the two, or tell the prompts apart."
                )
    return {key: beside for key, (beside, _) in found.items() if beside}


def as_json(values: Mapping[str, Any]) -> PromptRecord:
    """The values as JSON has them: dates and the like as text, broken characters as question marks."""
    text = json.dumps(values, default=str, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "replace"))
