"""docs/formats.md: every example row is what the page says."""

import json
import re
from pathlib import Path

import pytest

from keel.cli.main import main
from keel.data.detect import detect
from keel.data.dialects import DIALECTS, FORMATS
from keel.data.formats import DataConfig, read
from keel.data.transcribe import transcribe

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
EXAMPLES = [
    (name, f"{name} ({where})", text)
    for name, where, text in re.findall(r"`(\w+)` \((.+)\)\n\n```json\n(.+)\n```", PAGE)
]


@pytest.mark.parametrize(("name", "title", "text"), EXAMPLES, ids=[title for _, title, _ in EXAMPLES])
def test_an_example_row_is_read_as_the_page_says_and_can_be_written_again(tmp_path, name, title, text):
    (tmp_path / "a.jsonl").write_text(f"{text}\n")
    assert detect([json.loads(text)]).format == name
    config = DataConfig(path=str(tmp_path / "a.jsonl"))
    before = read(config, FORMATS[name].gives[0])
    assert (len(before.records), before.format) == (1, name)
    done = transcribe(config, tmp_path / "b.jsonl", lossy=name == "ultrafeedback")
    after = read(DataConfig(path=str(tmp_path / "b.jsonl")), FORMATS[name].gives[0])
    assert after.records == before.records
    assert after.format == done.to == (name if FORMATS[name].write else "comparison")


def test_every_format_has_an_example():
    assert {name for name, _, _ in EXAMPLES} == set(FORMATS) == {dialect.name for dialect in DIALECTS}


def test_the_commands_on_the_page_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (row,) = (text for _, title, text in EXAMPLES if title == "comparison (keel, resolved)")
    Path("ratings.jsonl").write_text(row.replace("0.75", "1.0") + "\n")
    left = {"fields": {"question": "Name a prime.", "left": "Seven.", "right": "Nine."}, "verdict": "a"}
    Path("export.jsonl").write_text(json.dumps(left) + "\n")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 3
    for command in commands:
        assert main(command.removeprefix("keel ").split()) == 0, capsys.readouterr().err
