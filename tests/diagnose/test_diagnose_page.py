"""The page's code works."""

from pathlib import Path

from helpers import foreign_runs as runs
from helpers.pages import blocks, named


def test_the_code_of_diagnose_md_writes_a_letter_for_each_run(tmp_path, monkeypatch, capsys):
    runs.trainer_state(runs.ppo_nan(), tmp_path / "runs" / "broken")
    runs.trainer_state(runs.dpo(), tmp_path / "runs" / "fine")
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in blocks(named("diagnose.md")) if block.language == "python"]
    exec(compile(block.text, "diagnose.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "broken unwell Unwell: figures that are no numbers since update 31.",
        "fine healthy Healthy.",
    ]
    assert Path("broken.md").read_text().startswith("# Unwell")
