from helpers.pages import follow, named


def test_who_follows_the_page_on_judging_gets_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(named("judging.md"))
    assert (tmp_path / "judging.sqlite").is_file()
