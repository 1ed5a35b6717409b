"""A file of principles is strict: whatever is wrong is told with its line."""

import json

import pytest

from keel.core.errors import ConfigError
from keel.stages.sections.constitution import read_constitution

ONE = "{id: kind, version: 2, critique: say what is rude, revise: be kind, prefer: the kinder one}"


@pytest.fixture
def write(tmp_path):
    def written(text: str, name: str = "principles.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


def test_principles_are_read_from_yaml_and_from_json(write):
    text = f"name: manners\nversion: 3\nprinciples:\n  - {ONE}\n"
    read = read_constitution(write(text))
    assert [principle.name for principle in read.principles] == ["kind@2"]
    same = {"name": "manners", "version": 3, "principles": [read.principles[0].model_dump()]}
    assert read_constitution(write(json.dumps(same), "principles.json")) == read
    assert read_constitution(write(text.replace("kinder", "kindest"))).identity != read.identity


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: none\nprinciples: []\n", r"principles.yaml, line 2: a constitution without principles"),
        ("name: none\n", "principles is missing"),
        (f"principles:\n  - {ONE}\n  - {ONE}\n", "line 3: there is a principle kind already, on line 2"),
        (f"principles:\n  - {ONE.replace('critique', 'critque')}\n", "line 2.*Did you mean 'critique'"),
        ("principles:\n  - " + ONE.replace("be kind", '" "') + "\n", "line 2.*revise: expected text of at least 1"),
        (f"principles:\n  - {ONE.replace('id: kind', 'id: Be Kind')}\n", "line 2.*id"),
        (f"principles:\n  - {ONE.replace('version: 2', 'version: 0')}\n", "line 2.*version: expected at least 1"),
        (f"rules:\n  - {ONE}\n", "line 1: rules is not a setting"),
        ("principles: [\n", "not YAML"),
        ("", "holds no settings"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(write, text, message):
    with pytest.raises(ConfigError, match=message):
        read_constitution(write(text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"principles.yaml: there is no such file"):
        read_constitution(tmp_path / "principles.yaml")
