"""The pages sampling.md and collecting.md: what they tell the reader to do works."""

from pathlib import Path

import yaml
from helpers.pages import blocks, follow, named

from keel.core.config import load_config
from keel.data.snapshot import read_snapshot
from keel.stages.place import Place
from keel.stages.sampling import SampleConfig
from keel.stages.sections.data import DataSection
from keel.stages.studio_snapshots import looked_up, opened


def test_a_reader_who_follows_collecting_md_gets_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    follow(named("collecting.md"))
    place = Place.of("studio.sqlite::help@week-1")
    with opened(place) as store:
        snapshot = looked_up(store, place)
    assert snapshot.records == 60
    assert read_snapshot(Path("snapshots/week-1")).content_hash == snapshot.content_hash


def test_the_data_sections_on_collecting_md_are_valid():
    for block in blocks(named("collecting.md")):
        if block.language == "yaml":
            load_config(DataSection, None, base=yaml.safe_load(block.text)["data"])


def test_the_settings_on_sampling_md_are_valid(tmp_path):
    (block,) = [block for block in blocks(named("sampling.md")) if block.title]
    (tmp_path / "sample.yaml").write_text(block.text)
    assert load_config(SampleConfig, tmp_path / "sample.yaml").budget_usd == 5


def test_every_setting_of_sampling_is_on_its_page():
    page = named("sampling.md")
    for name in set(SampleConfig.model_fields) - {"prompts", "models"}:
        assert f"`{name}`" in page, name
