"""The page on memory: what it tells the reader to do works."""

import pytest
import torch
from helpers.pages import follow, named


def test_a_reader_who_follows_memory_md_gets_what_it_shows(tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    try:
        follow(named("memory.md"))
    finally:
        torch.set_num_threads(threads)
