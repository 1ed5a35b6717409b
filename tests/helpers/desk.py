"""A user at a command line, with a tiny recipe and data, who is refused or served."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.recipes import Workplace, values

from keel.cli.main import main

PYTHON_ONLY = {
    "data": {"comparisons": None},
    "reward": None,
    "ppo": {"rewards": [{"name": "mine", "python": "mine.py:f"}]},
}


class Desk:
    """A workplace at a command line: recipe.yaml in the working directory, what is said caught."""

    def __init__(self, place: Workplace, capsys) -> None:
        self.place, self.capsys = place, capsys

    def recipe(self, **changes) -> None:
        content = values(self.place.folder, **{"model": {"path": "model"}, **changes})
        self.place.write("recipe.yaml", yaml.safe_dump(content))

    def keel(self, *arguments: str) -> tuple[int, str]:
        """Exit status and what stands on standard error."""
        self.capsys.readouterr()
        status = main(list(arguments))
        return status, self.capsys.readouterr().err

    def refused(self, *arguments: str, **changes) -> str:
        """The one message of a command that must fail."""
        if changes or not (self.place.folder / "recipe.yaml").exists():
            self.recipe(**changes)
        status, said = self.keel(*(arguments or ("run", "recipe.yaml")))
        messages = [line for line in said.splitlines() if line.startswith("keel: ")]
        assert status == 2, said
        assert len(messages) == 1, said
        assert said.rstrip().endswith(messages[0]), "the message comes last"
        assert "Traceback" not in said
        return messages[0].removeprefix("keel: ")

    def runs(self, *arguments: str) -> str:
        status, said = self.keel(*(arguments or ("run", "recipe.yaml")))
        assert status == 0, said
        return said

    def artifacts(self, run: str = "runs/recipe") -> set[str]:
        return {path.name for path in (self.place.folder / run / "artifacts").iterdir() if path.name[0] != "."}


def seated(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Desk:
    """A desk in `folder`, which becomes the working directory; no page is drawn and no hub asked."""
    (folder / "model").symlink_to(model)
    place = Workplace(folder, None, count=24)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("keel.stages.pipeline.write_report", lambda directory: None)
    return Desk(place, capsys)
