import re

import pytest
import yaml
from helpers.pages import blocks, commands, follow, named

from keel.cli.main import main
from keel.core.schema import fields_of
from keel.data.doctor.examine import RULES
from keel.data.doctor.limits import Limits
from keel.data.formats import DataConfig

PAGE = named("doctor.md")


def test_a_reader_who_follows_the_page_gets_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(PAGE)


def test_the_letter_on_the_page_is_the_one_that_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, command, *_ = blocks(PAGE)
    (tmp_path / file.title).write_text(file.text, encoding="utf-8")
    (words,) = commands(command)
    assert main(words[1:]) == 0
    assert capsys.readouterr().out == command.shown


def test_every_rule_and_every_line_is_in_a_table():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named_there = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert sorted(set(RULES) - named_there) == []
    assert [doc.name for doc in fields_of(Limits) if doc.name not in named_there] == []


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_what_a_recipe_takes_is_a_setting(block):
    assert DataConfig(**yaml.safe_load(block)["data"]["comparisons"]).path.startswith("snapshots/")
