"""Judges of LLMBar, replayed from their stored verdicts, get the accuracies of their published table on this path."""

import gzip
import json

import pytest
from helpers.ai_judges import labeller, python_judge

from keel.data.records import Comparison
from keel.stages.feedback.calibrate import as_pair, measured
from keel.stats.judges import judge_report


def lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def llmbar(shared_data):
    folder = shared_data / "llmbar"
    return lines(folder / "pairs.jsonl.gz"), lines(folder / "judge_verdicts.jsonl.gz")


def replay(pairs, verdicts):
    """A function that says of each question what the judge said of that pair in that order."""
    said = {row["id"]: row for row in verdicts}
    where = {(p["prompt"], p["response_a"], p["response_b"]): p["id"] for p in pairs}

    def judge(questions):
        answers = []
        for q in questions:
            as_given = (q.prompt, q.first, q.second) in where
            row = said[where[(q.prompt, q.first, q.second) if as_given else (q.prompt, q.second, q.first)]]
            named = row["verdict"] if as_given else row["verdict_swapped"]
            shown = {"a": "first", "b": "second"} if as_given else {"a": "second", "b": "first"}
            answers.append(shown.get(named, "tie" if named == "tie" else "skip"))
        return answers

    return judge


@pytest.mark.parametrize(
    ("name", "accuracy", "same"),
    [("GPT-4/Vanilla", 0.828, 0.917), ("Falcon/CoT", 0.521, 0.131)],
)
def test_a_replayed_judge_is_as_good_as_its_table_says(llmbar, tmp_path, name, accuracy, same):
    pairs, verdicts = llmbar
    mine = [row for row in verdicts if row["judge"] == name]
    known = {row["id"] for row in mine}
    records = [
        Comparison(p["prompt"], p["response_a"], p["response_b"], {"a": 1.0, "b": 0.0}[p["preference"]])
        for p in pairs
        if p["id"] in known
    ]
    label = labeller(python_judge(replay(pairs, mine), name), tmp_path)
    figures = measured(label.judged([as_pair(record) for record in records]), records)
    assert figures["accuracy"] == pytest.approx(accuracy, abs=0.0006)
    assert figures["same_in_both_orders"] == pytest.approx(same, abs=0.0006)
    gold = {p["id"]: 0 if p["preference"] == "a" else 2 for p in pairs}
    code = {"a": 0, "tie": 1, "b": 2}
    by_table = judge_report(
        [gold[row["id"]] for row in mine],
        [code.get(row["verdict"], -1) for row in mine],
        [code.get(row["verdict_swapped"], -1) for row in mine],
    )
    assert figures["kappa"] == pytest.approx(by_table.kappa.value)
    assert figures["position_bias"] == pytest.approx(by_table.position_bias.value, abs=0.01)


def test_the_label_of_both_orders_is_no_worse_than_a_single_verdict(llmbar, tmp_path):
    pairs, verdicts = llmbar
    mine = [row for row in verdicts if row["judge"] == "GPT-4/Vanilla"]
    records = [
        Comparison(p["prompt"], p["response_a"], p["response_b"], {"a": 1.0, "b": 0.0}[p["preference"]]) for p in pairs
    ]
    label = labeller(python_judge(replay(pairs, mine), "gpt-4"), tmp_path)
    figures = measured(label.judged([as_pair(record) for record in records]), records)
    assert figures["label_accuracy"] == pytest.approx(figures["accuracy"], abs=1e-9)
    assert figures["ece"] < 0.1
    assert figures["ece"] < figures["ece_before"]
