"""The page on judges does what it says."""

import io
import re
from contextlib import redirect_stdout

from helpers.pages import follow, named

from keel.cli.main import main


def test_the_page_can_be_followed_and_shows_what_the_command_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = named("judges.md")
    follow(page)
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["data", "judges", "verdicts.jsonl", "--gold", "gold.jsonl"]) == 0
    shown = re.search(r"--gold gold\.jsonl\n```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert shown
    assert printed.getvalue() == shown[1]
