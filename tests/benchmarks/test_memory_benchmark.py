"""The memory benchmark: every combination is a name, a run is a record, and refusals say what was expected."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def memory():
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("memory", BENCHMARKS / "memory.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["memory"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before
    del sys.modules["memory"]


def test_every_combination_has_a_name_of_its_own(memory):
    names = [way.name for way in memory.WAYS]
    assert len(set(names)) == len(names) == 16
    assert "lora, adamw, 4bit, bfloat16, checkpointing" in names
    assert not [way for way in memory.WAYS if way.quantise and way.trained == "full"]


@pytest.mark.parametrize("arguments", [["--batch", "0"], ["--only", "no such thing"]])
def test_arguments_that_make_no_sense_are_refused(memory, arguments, capsys):
    with pytest.raises(SystemExit):
        memory.parse(arguments)
    assert arguments[1] in capsys.readouterr().err


def test_a_run_counts_bytes_and_its_table_shows_them(memory, capsys):
    assert memory.main(["--model", "tiny", "--batch", "1", "--only", "full, adamw, bfloat16, c", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (way,) = report["ways"]
    assert way["weight_bytes"] == pytest.approx(2 * report["parameters"], rel=0.01)
    assert way["state_bytes"] == pytest.approx(10 * report["parameters"], rel=0.01)
    assert way["memory_added_bytes"] > way["state_bytes"]
    assert way["losses"][-1] < way["losses"][0]
    assert "full, adamw, bfloat16, checkpointing" in memory.table(report)
