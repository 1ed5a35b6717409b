"""Nothing is missing from the pages, and nothing on them is out of date."""

import argparse
import inspect
import re
from pathlib import Path

import pytest
import yaml
from helpers.pages import DOCS, ROOT, blocks, commands, named, pages, refresh

from keel.cli.main import parser
from keel.core import errors
from keel.core.config import fields_of, load_config
from keel.stages.recipe import Recipe

EVERYTHING = "\n".join(page.read_text(encoding="utf-8") for page in pages())
MINIMAL = ["model.path=x", "data.demonstrations.path=x", "data.comparisons.path=x", "reward={}"]
RECIPE_PAGES = [
    "README.md",
    "models.md",
    "sft.md",
    "reward-model.md",
    "ppo.md",
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
    "recipes.md",
    "run-folder.md",
    "guardian.md",
    "rewards.md",
    "verifiable-rewards.md",
    "collecting.md",
    "doctor.md",
    "errors-and-config.md",
    "memory.md",
    "watching.md",
    "what-the-tutorials-get-wrong.md",
]


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands_below(at: argparse.ArgumentParser, path: str = "keel") -> list[str]:
    below = [action for action in at._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        return [path]
    return [
        name for action in below for key, sub in action.choices.items() for name in commands_below(sub, f"{path} {key}")
    ]


@pytest.mark.parametrize("command", commands_below(parser()))
def test_every_command_is_on_a_page(command):
    assert re.search(rf"`{command}\b", EVERYTHING)


@pytest.mark.parametrize("name", [n for n, kind in vars(errors).items() if inspect.isclass(kind)])
def test_every_error_is_on_a_page(name):
    assert f"`{name}`" in EVERYTHING


def test_every_setting_of_a_recipe_is_in_a_table():
    sections = {name for page in pages() for names in refresh["sections_of"](page.read_text("utf-8")) for name in names}
    covered = {doc.name for doc in fields_of(Recipe) if (doc.name.rpartition(".")[0] or refresh["RECIPE"]) in sections}
    assert [doc.name for doc in fields_of(Recipe) if doc.name not in covered] == []


@pytest.mark.parametrize("path", pages(), ids=page_id)
def test_tables_and_excerpts_are_those_of_the_source(path):
    page = path.read_text(encoding="utf-8")
    assert refresh["refreshed"](page) == page, "run: python docs/refresh.py"


def test_every_rule_that_speaks_during_a_run_is_on_a_page():
    source = "".join(path.read_text() for path in (ROOT / "src" / "keel").rglob("*.py"))
    rules = set(re.findall(r"Verdict\(\s*\"(?:ok|watch|act|stop)\",\s*\"(\w+)\"", source))
    assert len(rules) >= 6
    assert [rule for rule in sorted(rules) if f"`{rule}`" not in EVERYTHING] == []


@pytest.mark.parametrize("path", pages(), ids=page_id)
def test_every_link_leads_somewhere(path):
    written = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", written):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text(encoding="utf-8")), target


def anchors(page: str) -> set[str]:
    """What GitHub and MkDocs make of headings."""
    outside = re.sub(r"^```.*?^```$", "", page, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_navigation():
    def files(entry):
        values = entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ()
        return [entry] if isinstance(entry, str) else [file for value in values for file in files(value)]

    listed = files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_page_with_code_has_a_test_that_reads_it():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    with_code = [page for page in pages() if any(b.language == "python" for b in blocks(page.read_text("utf-8")))]
    assert [page.name for page in with_code if page.name not in tests] == []


@pytest.mark.parametrize("name", RECIPE_PAGES)
def test_every_recipe_on_a_page_is_valid(name, tmp_path):
    for block in blocks(named(name)):
        if block.language == "yaml":
            path = tmp_path / "recipe.yaml"
            path.write_text(block.text)
            whole = {"model", "data"} <= set(yaml.safe_load(block.text))
            load_config(Recipe, path, [] if whole else MINIMAL)


@pytest.mark.parametrize("path", pages(), ids=page_id)
def test_every_command_line_on_a_page_can_be_given(path, tmp_path):
    shown = list(blocks(path.read_text(encoding="utf-8")))
    for block in shown:
        if block.title:
            (tmp_path / block.title).write_text(block.text)
    for block in shown:
        lines = commands(block) if block.language == "bash" else []
        for words in lines:
            if words[0] == "keel":
                check_command(words[1:], tmp_path)


def check_command(words: list[str], folder: Path) -> None:
    """The command and its options are known, and so is every setting that it changes."""
    given = parser().parse_strictly(words)
    recipe = getattr(given, "recipe", None)
    files = [file for file in (recipe, folder / recipe, ROOT / recipe) if file.is_file()] if recipe else []
    if recipe and files:
        load_config(Recipe, files[0], given.set)
    elif recipe:
        load_config(Recipe, None, [*MINIMAL, "ppo={}", *given.set])


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=page_id)
def test_every_recipe_that_comes_along_is_valid_and_on_its_page(path):
    assert load_config(Recipe, path).name
    assert f"`recipes/{path.name}`" in named("recipes.md")


def test_the_changelog_knows_this_version():
    from keel import __version__

    assert f"\n## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
