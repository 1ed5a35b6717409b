"""`keel demo`, small: everything it uses is the public product code, so it must hold together end to end."""

import json

import pytest

from keel.core.events import EventLog, read_events
from keel.core.progress import Silent
from keel.demo import hacking
from keel.demo.hacking import course
from keel.demo.run import main_demo


class Heard(Silent):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def guards(directory, name):
    """The run folder of the demo's guards, off or on, of the only recipe that was run there."""
    (folder,) = (path for path in directory.glob(f"{name}-*") if path.is_dir())
    return folder


def truth(directory, name):
    return read_events(directory / f"{guards(directory, name).name}-truth.jsonl")


SMALL = [
    "threads=1",
    "rounds.count=2",
    "rounds.first_comparisons=300",
    "rounds.comparisons=60",
    "ppo.updates=2",
    "reward.best_of_prompts=12",
    "evaluate.prompts=96",
    "thresholds.agreement_block=0.2",
]


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    heard = Heard()
    summary = main_demo(directory, 3, SMALL, heard, quick=True)
    return directory, summary, heard.lines


def test_the_demo_goes_from_votes_to_a_verdict_by_the_true_preference(small_demo):
    directory, summary, lines = small_demo
    stages = summary["stages"]
    assert stages["sft"]["perplexity"] < stages["sft"]["perplexity_before"] / 10
    assert 0 <= stages["evaluate"]["true_win_rate_low"] <= stages["evaluate"]["true_win_rate"] <= 1
    assert summary["agreement"]["num_raters"] == 8
    assert [r["round"] for r in summary["rounds"]] == [1]
    assert any("true preference" in line for line in lines)
    assert (directory / "report.html").stat().st_size > 10_000
    assert json.loads((directory / "summary.json").read_text())["stages"].keys() == stages.keys()


def test_the_true_preference_is_in_no_settings_of_a_training_stage(small_demo):
    directory, _, _ = small_demo
    for record in directory.glob("artifacts/*/artifact.json"):
        if not record.parent.name.startswith("evaluate"):
            assert "true_preference" not in record.read_text(), record


def test_the_same_ppo_runs_with_guards_off_and_on_upon_the_same_reward_model(small_demo):
    directory, _, lines = small_demo
    off, on = (json.loads((guards(directory, name) / "summary.json").read_text()) for name in ("unguarded", "guarded"))
    assert off["stages"]["reward"]["id"] == on["stages"]["reward"]["id"]
    events = {name: read_events(guards(directory, name) / "events.jsonl") for name in ("unguarded", "guarded")}
    assert not [event for event in events["unguarded"] if event["event"] in ("action", "asked")]
    assert [event for event in events["guarded"] if event["event"] == "asked"]
    told = [line for line in lines if line.startswith(("Guards off", "Guards on"))]
    assert len(told) == 2
    assert all("true reward" in line for line in told)


def test_the_true_reward_of_both_runs_stands_outside_their_folders(small_demo):
    directory, _, _ = small_demo
    for name in ("unguarded", "guarded"):
        noted = truth(directory, name)
        assert [event["step"] for event in noted if event["kind"] == "evaluated"] == [0, 2, 4]
        for path in guards(directory, name).rglob("*"):
            if path.suffix in (".json", ".jsonl", ".html", ".yaml"):
                assert "utility" not in path.read_text(), path


def test_the_page_stands_both_runs_side_by_side(small_demo):
    directory, _, _ = small_demo
    page = (directory / "guards.html").read_text()
    assert page.count("<svg") == 4
    assert "guards off" in page
    assert (guards(directory, "guarded") / "report.html").is_file()


def test_truth_of_an_attempt_that_was_begun_anew_is_left_out(tmp_path):
    sheet, place = tmp_path / "truth.jsonl", tmp_path / "run"
    log = EventLog(sheet)
    for step, utility in ((0, 9.0), (2, 9.0), (4, 9.0), (6, 9.0), (0, 1.0), (2, 5.0), (2, 2.0), (4, 3.0)):
        log.append("truth", stage="ppo", step=step, kind="evaluated", utility=utility, answers=1)
    EventLog(place / "events.jsonl").append("stage_started", stage="ppo", config={})
    read = course(place, sheet)
    assert read.at.tolist() == [0, 2, 4]
    assert read.truth.tolist() == [1, 2, 3]


def test_another_recipe_in_the_same_folder_has_runs_of_its_own(tmp_path, monkeypatch):
    where = []

    def run(recipe, place, progress, *, recipe_folder, observe):
        where.append((place, observe.log.path))
        EventLog(place / "events.jsonl").append("stage_started", stage="ppo", config={})
        observe.log.append("truth", stage="ppo", step=0, kind="evaluated", utility=float(len(where)), answers=1)

    monkeypatch.setattr(hacking, "run", run)
    for labels in ("aaa", "bbb"):
        folder = tmp_path / f"flawed-{labels}"
        hacking.build(folder, 0, "model", [])
        told = hacking.both_ways(tmp_path, folder, 1, 0, Silent(), quick=True)
    assert (told.off.end, told.on.end) == (3.0, 4.0)
    assert len({place for place, _ in where}) == len({sheet for _, sheet in where}) == 4


def test_running_the_demo_again_reuses_every_stage(small_demo):
    directory, summary, _ = small_demo
    before = [truth(directory, name) for name in ("unguarded", "guarded")]
    again = main_demo(directory, 3, SMALL, Heard(), quick=True)
    assert again["stages"]["evaluate"]["id"] == summary["stages"]["evaluate"]["id"]
    assert again["seconds"] < summary["seconds"] / 3
    assert [truth(directory, name) for name in ("unguarded", "guarded")] == before
