"""The pages of the documentation, taken apart."""

import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"(<!-- run -->\n)?^```(\w+)( title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
refresh: dict[str, Any] = runpy.run_path(str(DOCS / "refresh.py"))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    """The file that it is, "" where it is none."""
    marked: bool
    """Whether `<!-- run -->` stands above it."""
    text: str
    shown: str | None
    """What the block behind it shows as its output."""


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def named(name: str) -> str:
    """A page's text."""
    return (ROOT / name if name == "README.md" else DOCS / name).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """The blocks that somebody wrote; generated ones are left out."""
    written = refresh["PART"].sub("", page)
    found = list(FENCE.finditer(written))
    for match, following in zip_longest(found, found[1:]):
        marked, language, _, title, text = match.groups()
        shown = None
        if following and following[2] == "text" and not written[match.end() : following.start()].strip():
            shown = following[5]
        yield Block(language, title or "", bool(marked), text, shown)


def commands(block: Block) -> list[list[str]]:
    """The command lines of a shell block, comments left out."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def follow(page: str) -> None:
    """Do in the working folder what a page says: write its files, run its code, compare what it shows."""
    from keel.cli.main import main

    names: dict[str, Any] = {}
    for number, block in enumerate(blocks(page)):
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block.text, f"block {number}", "exec"), names)
            assert printed.getvalue() == (block.shown or "".join(re.findall(r"^# ?> (.*\n)", block.text, re.MULTILINE)))
        elif block.language == "bash" and block.marked:
            for words in commands(block):
                assert words[0] == "keel"
                with contextlib.redirect_stdout(io.StringIO()):
                    assert main(words[1:]) == 0
