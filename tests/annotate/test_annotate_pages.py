"""The pages on raters and calibration: what they tell the reader to do works."""

import pytest
from helpers.pages import follow, named


@pytest.mark.parametrize("page", ["raters.md", "calibration.md"])
def test_a_reader_who_follows_the_page_gets_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(named(page))
