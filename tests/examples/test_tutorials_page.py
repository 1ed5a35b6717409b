"""docs/what-the-tutorials-get-wrong.md: its code runs, its figures are today's, its tests exist."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

from keel.core.config import load_config
from keel.functional.kl import exact_kl
from keel.stages.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "what-the-tutorials-get-wrong.md").read_text(encoding="utf-8")


def test_the_code_prints_what_the_page_shows():
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == PAGE.count("```python")
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        assert printed.getvalue() == shown


def test_the_recipe_on_the_page_is_valid(tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "recipe.yaml"
    path.write_text(block, encoding="utf-8")
    recipe = load_config(Recipe, path)
    assert recipe.ppo is not None
    assert (recipe.ppo.kl.controller, recipe.ppo.kl.initial) == ("adaptive", 0.2)


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 15
    missing = [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text(encoding="utf-8")
    ]
    assert not missing
    assert all((ROOT / path).is_file() for path in re.findall(r"`(examples/[\w/]+\.py)`", PAGE))


@pytest.mark.parametrize("penalty", ["k1 in the reward", "k2 in the loss", "k3 in the loss", "k1 in the loss"])
def test_the_table_of_fixed_points_holds_what_the_bandit_gives(penalty):
    bandit = runpy.run_path(str(ROOT / "tests" / "functional" / "test_kl.py"))
    policy = bandit["train"](penalty)
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {penalty}"))
    shown = [float(cell) for cell in row.split("|")[2:5]]
    found = [
        exact_kl(policy, bandit["reverse_optimum"]()).item(),
        exact_kl(policy, bandit["forward_optimum"]()).item(),
        (policy.softmax(-1) @ bandit["REWARD"]).item(),
    ]
    assert shown == pytest.approx(found, abs=0.006)
