import argparse
import re
from pathlib import Path

import pytest

from keel.cli.main import parser
from keel.core import errors

PAGE = (Path(__file__).parents[2] / "docs" / "errors-and-config.md").read_text(encoding="utf-8")


def test_every_code_block_prints_what_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for number, (code, shown) in enumerate(blocks):
        file = tmp_path / f"block_{number}.py"  # a real file: the help text below a field is read from its source
        file.write_text(code, encoding="utf-8")
        exec(compile(code, str(file), "exec"), {"__name__": f"block_{number}"})
        assert capsys.readouterr().out == shown


@pytest.mark.parametrize("name", [name for name, value in vars(errors).items() if isinstance(value, type)])
def test_every_error_class_is_on_the_page(name):
    assert f"| `{name}` |" in PAGE


def test_every_command_is_on_the_page():
    commands = re.findall(r"^\| `keel ([a-z -]+?)(?: [A-Z]+)?` \|", PAGE, re.MULTILINE)

    def walk(at: argparse.ArgumentParser, path: str) -> list[str]:
        below = [action for action in at._actions if isinstance(action, argparse._SubParsersAction)]
        if not below:
            return [path.strip()]
        return [name for action in below for key, sub in action.choices.items() for name in walk(sub, f"{path} {key}")]

    assert commands == walk(parser(), "")
