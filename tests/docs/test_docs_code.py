"""What the pages tell the reader to do works, and leaves what the page on the run folder says."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers.pages import follow, named

from keel.cli.main import main
from keel.core.events import read_events

FOLLOWED = [
    "sft.md",
    "reward-model.md",
    "ppo.md",
    "rewards.md",
    "verifiable-rewards.md",
    "rloo.md",
    "grpo.md",
    "reinforce-pp.md",
    "online-dpo.md",
    "dpo.md",
    "ipo.md",
    "simpo.md",
    "orpo.md",
    "kto.md",
    "rounds.md",
    "methods.md",
    "best-of-n.md",
    "iterative-dpo.md",
    "hybrid.md",
    "rlaif.md",
    "constitutional-ai.md",
    "recipes.md",
    "run-folder.md",
    "demo-world.md",
]
FOLDER_PAGE = named("run-folder.md")
OWN_COLUMN = re.compile(r"score_\w+|\w+_sft")
"""Figures named by the recipe's own functions."""


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_reader_who_follows_the_page_gets_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(named(page))
    for log in Path("runs").glob("*/events.jsonl"):
        check_events(log)
        check_summary(log.parent / "summary.json")
    if page == "rounds.md":
        check_labels_by_people()


def check_events(log: Path) -> None:
    """Every event stands on the page with its stage, and every field of it on the page."""
    for event in read_events(log):
        kind, stage = event["event"], event["stage"].split()[0]
        rows = [line for line in FOLDER_PAGE.splitlines() if line.startswith(f"| `{kind}` |")]
        assert any(re.search(rf"\b(any|{stage})\b", row.split("|")[2]) for row in rows), (kind, stage)
        if kind == "evaluated" and stage == "evaluate":
            continue  # the figures of summary.json
        assert_named(set(event) - {"time", "event", "stage"}, f"{log}: {kind} of {stage}")


def check_summary(path: Path) -> None:
    summary = json.loads(path.read_text())
    columns = {"right_facts", "wrong_facts", "polite", "rude", "garbled", "words"}
    assert_named(set(summary) | set(summary["agreement"]), str(path))
    for stage, figures in summary["stages"].items():
        (row,) = [line for line in FOLDER_PAGE.splitlines() if line.startswith(f"| `{stage}` | `")]
        assert row
        assert_named(set(figures) - columns, f"{path}: {stage}")


def assert_named(names: set[str], where: str) -> None:
    """Every figure is on the page; that an interval has a low and a high end is said there once."""
    figures = {re.sub(r"_(low|high)$", "", name) for name in names if not OWN_COLUMN.fullmatch(name)}
    assert sorted(name for name in figures if f"`{name}`" not in FOLDER_PAGE) == [], where


def check_labels_by_people() -> None:
    """The labeller that stops the run: the same command goes on when the votes are there."""
    command = ["reward", "small-rounds.yaml", "--out", "runs/rounds", "-s", "rounds.labeller=people.py:label"]
    assert main(command) == 2
    (asked,) = Path().glob("ask-*.jsonl")
    lines = [json.loads(line) for line in asked.read_text().splitlines()]
    votes = [{"key": line["key"], "votes": {"ann": "ab"[i % 2], "bob": "a"}} for i, line in enumerate(lines)]
    answered = asked.with_name(asked.name.replace("ask", "votes"))
    answered.write_text("".join(json.dumps(line) + "\n" for line in votes))
    assert main(command) == 0
    summary = json.loads(Path("runs/rounds/summary.json").read_text())
    assert summary["agreement"]["num_raters"] == 2
