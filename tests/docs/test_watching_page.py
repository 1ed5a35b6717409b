"""The page on watching: what it tells the reader to do works."""

import pytest
import torch
from helpers.pages import follow, named


def test_a_reader_who_follows_watching_md_gets_what_it_shows(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="the optional library tensorboard is not installed")
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    try:
        follow(named("watching.md"))
    finally:
        torch.set_num_threads(threads)
