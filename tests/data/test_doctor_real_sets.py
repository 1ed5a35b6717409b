"""What the doctor says of real sets; figures are also on docs/doctor.md."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keel.data.doctor.examine import RULES, Examination, examine
from keel.data.doctor.limits import Limits
from keel.data.doctor.patient import open_patient, patient_of
from keel.data.formats import DataConfig
from keel.data.records import Comparison

pytestmark = pytest.mark.shared


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def severities(examination: Examination) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in examination.findings if finding.severity != "ok"}


def test_in_alpacaeval_the_longer_answer_wins_76_percent(shared_data):
    folder = shared_data / "alpacaeval-judged"
    prompts = {row["prompt_id"]: row["prompt"] for row in lines(folder / "prompts.jsonl.gz")}
    answers = {(row["prompt_id"], row["model"]): row["response"] for row in lines(folder / "outputs.jsonl.gz")}
    records = [
        Comparison(
            prompts[row["prompt_id"]],
            answers[row["prompt_id"], row["model_a"]],
            answers[row["prompt_id"], row["model_b"]],
            {"a": 1.0, "b": 0.0, "tie": 0.5}[row["preference"]],
            models=(row["model_a"], row["model_b"]),
        )
        for row in lines(folder / "judgments.jsonl.gz")
    ]
    patient = patient_of(records)
    length = RULES["length_bias"](patient, Limits())
    assert length is not None
    assert length.severity == "warn"
    assert length.figures["longer_wins"] == pytest.approx(0.764, abs=0.002)
    sources = RULES["source_bias"](patient, Limits())
    assert sources is not None
    assert sources.figures["sources"]["gpt4"]["wins"] > 0.9


def test_in_llmbar_the_longer_answer_wins_27_percent(shared_data):
    examination = examine(open_patient(DataConfig(path=str(shared_data / "llmbar" / "pairs.jsonl.gz"))))
    assert severities(examination) == {"length_bias": "warn", "size": "warn", "identical_answers": "warn"}
    length = examination.finding("length_bias")
    assert length is not None
    assert length.figures["longer_wins"] == pytest.approx(0.27, abs=0.005)


def test_hh_harmless_has_what_its_readme_says_and_a_near_leak(shared_data):
    examination = examine(open_patient(DataConfig(path=str(shared_data / "hh-harmless-base" / "train.jsonl.gz"))))
    assert severities(examination) == dict.fromkeys(
        ("leakage", "empty_answers", "chat_structure", "encoding", "size"), "warn"
    )
    assert len(examination.patient.refused) == 6
