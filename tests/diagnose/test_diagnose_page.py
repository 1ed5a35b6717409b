"""The page does what it shows."""

from helpers.pages import follow, named


def test_a_reader_who_follows_diagnose_md_gets_the_letter_that_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(named("diagnose.md"))
