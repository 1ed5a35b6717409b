"""Reading run folders back: whole ones, partial ones, damaged ones."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.report_runs import KINDS, write_run

from keel.core.errors import ArtifactError
from keel.core.events import EventLog
from keel.core.files import RunLock
from keel.report.curves import curves
from keel.report.read import read_run
from keel.report.stage_log import own_seconds
from keel.report.values import number, printable, prompt_as_text


def events_of(*rows):
    """(event, stage, fields) rows as events one second apart."""
    return [
        {"time": 100.0 + at, "event": kind, "stage": stage, **fields} for at, (kind, stage, fields) in enumerate(rows)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_reads_back(tmp_path, kind):
    run = read_run(write_run(tmp_path / "run", kind))
    assert run.state == ("stopped" if kind == "stopped" else "finished")
    assert run.stages["sft"].metric("perplexity") == pytest.approx(1.542, abs=0.01)
    assert ("ppo" in run.stages) == (kind != "sft_only")


def test_a_finished_run_has_its_figures(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert run.win is not None
    assert (run.win.share, run.win.low, run.win.high, run.win.n) == (0.744, 0.716, 0.770, 1024)
    assert run.reward is not None
    assert run.reward.accuracy == 0.727
    assert run.reward.best_baseline == 0.648
    assert len(run.reward.reliability) == 10
    assert run.agreement is not None
    assert run.agreement.alpha.low == 0.539
    assert len(run.samples) == 10
    assert run.samples[0].before is not None
    assert run.seconds == 372.0
    assert [entry["kind"] for entry in run.artifacts] == ["policy", "reward_model", "policy"]


def test_a_run_that_died_keeps_what_it_had(tmp_path):
    run = read_run(write_run(tmp_path / "run", "stopped"))
    assert run.current is not None
    assert run.current.name == "ppo"
    assert run.stages["ppo"].steps.at[-1] == 31
    assert run.stages["ppo"].resumed_at == (25.0, 31.0)
    assert run.stages["ppo"].metrics == {}
    assert all(pair.after is None for pair in run.samples)
    assert run.win is None


def test_a_run_that_is_locked_is_still_running(tmp_path):
    folder = write_run(tmp_path / "run", "stopped")
    with RunLock(folder):
        assert read_run(folder).state == "running"
    assert read_run(folder).state == "stopped"


def test_a_summary_older_than_the_last_event_is_not_believed(tmp_path):
    folder = write_run(tmp_path / "run")
    EventLog(folder / "events.jsonl").append("stage_started", stage="ppo", config={})
    past = 1_700_000_000
    import os

    os.utime(folder / "summary.json", (past, past))
    run = read_run(folder)
    assert run.state == "stopped"
    assert run.summary == {}
    assert run.current is not None


def test_events_written_by_the_event_log_read_back(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append("stage_started", stage="sft", config={"epochs": 1})
    log.append("step", stage="sft", step=1, of=2, loss=np.float32(1.5), grad_norm=1.0)
    log.append("step", stage="sft", step=2, of=2, loss=float("nan"), grad_norm=1.0)
    steps = read_run(tmp_path).stages["sft"].steps
    assert steps.get("loss")[0] == 1.5
    assert math.isnan(steps.get("loss")[1])
    assert list(steps.broken["loss"]) == [2.0]
    assert "grad_norm" not in steps.broken


def test_a_folder_without_a_run_is_explained(tmp_path):
    with pytest.raises(ArtifactError, match=r"neither events\.jsonl nor summary\.json"):
        read_run(tmp_path)
    with pytest.raises(ArtifactError, match="not a folder"):
        read_run(tmp_path / "absent")


def test_a_damaged_summary_names_its_line(tmp_path):
    (tmp_path / "summary.json").write_text('{"name": "x",\n "seed": }')
    with pytest.raises(ArtifactError, match=r"summary\.json, line 2: not JSON"):
        read_run(tmp_path)


def test_a_summary_alone_is_a_finished_run(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"name": "copied", "stages": {"sft": {"perplexity": 4.0}}}))
    run = read_run(tmp_path)
    assert (run.name, run.state) == ("copied", "finished")
    assert run.stages["sft"].metric("perplexity") == 4.0


def test_rounds_that_count_through_are_one_axis_with_boundaries(tmp_path):
    run = read_run(write_run(tmp_path / "run", "rounds"))
    steps = run.stages["ppo"].steps
    np.testing.assert_array_equal(steps.at, np.arange(1, 41))
    assert steps.boundaries == (10.0, 20.0, 30.0)
    assert run.rescaled
    np.testing.assert_array_equal(steps.latest_round().at, np.arange(31, 41))
    # Evaluated at 0, 10 (end of one round, start of the next), 20, 20, 30, 30 and 40: none of the pairs is lost.
    np.testing.assert_array_equal(run.stages["ppo"].evaluations.at, [0, 10, 10, 20, 20, 30, 30, 40])
    assert [entry.round for entry in run.rounds] == [1, 2, 3]


def test_rounds_that_each_count_from_one_are_laid_end_to_end():
    rows = [("step", "ppo", {"step": step, "round": number, "x": step}) for number in (1, 2) for step in (1, 2, 3)]
    steps, *_ = curves(events_of(*rows))
    np.testing.assert_array_equal(steps.at, [1, 2, 3, 4, 5, 6])
    assert steps.boundaries == (3.0,)


def test_a_step_logged_again_replaces_what_was_logged_before():
    rows = [("step", "sft", {"step": step, "x": value}) for step, value in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0))]
    steps, *_ = curves(events_of(*rows))
    np.testing.assert_array_equal(steps.at, [1, 2])
    np.testing.assert_array_equal(steps.get("x"), [1.0, 20.0])


def test_the_reward_card_shows_the_first_model_and_the_policy_figures_the_last(tmp_path):
    folder = write_run(tmp_path / "run", "rounds")
    (folder / "summary.json").unlink()
    run = read_run(folder)
    assert run.reward is not None
    assert run.reward.accuracy == 0.727  # not the 0.74 of its third refresh
    assert run.stages["ppo"].metric("distinct_2_before") == 0.46
    assert run.stages["ppo"].metric("score_after") > 1


def test_stages_inside_stages_are_not_counted_twice():
    events = [
        {"time": 0, "event": "stage_started", "stage": "rounds"},
        {"time": 10, "event": "stage_started", "stage": "ppo 1"},
        {"time": 40, "event": "stage_finished", "stage": "ppo 1", "seconds": 30.0},
        {"time": 50, "event": "stage_finished", "stage": "rounds", "seconds": 50.0},
    ]
    assert own_seconds(events) == {"rounds": 20.0, "ppo": 30.0}


def test_interrupted_attempts_count_once():
    # Killed after 7 s; the second attempt logs the seconds of both.
    events = [
        {"time": 0, "event": "stage_started", "stage": "sft"},
        {"time": 7, "event": "step", "stage": "sft", "step": 1},
        {"time": 1000, "event": "stage_started", "stage": "sft"},
        {"time": 1005, "event": "stage_finished", "stage": "sft", "seconds": 11.0},
    ]
    assert own_seconds(events) == {"sft": 11.0}
    assert own_seconds(events[:3]) == {"sft": 7.0}


def test_reused_stages_cost_nothing():
    events = events_of(
        ("stage_started", "sft", {}),
        ("stage_finished", "sft", {"seconds": 5.0, "reused": False}),
        ("stage_finished", "sft", {"seconds": 0.0, "reused": True}),
    )
    assert own_seconds(events) == {"sft": 5.0}


def test_a_rule_that_speaks_often_is_one_alarm_and_the_gravest_comes_first(tmp_path):
    alarms = read_run(write_run(tmp_path / "run", "hacked")).alarms
    assert [(alarm.level, alarm.rule, alarm.count) for alarm in alarms] == [
        ("stop", "kl_per_sequence", 21),
        ("act", "diversity", 1),
        ("watch", "length", 10),
    ]
    assert (alarms[0].first_step, alarms[0].last_step) == (40, 60)  # its events carry no step of their own


def test_without_a_true_preference_the_win_rate_is_the_reward_models(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.append(
        "evaluated", stage="evaluate", reward_win_rate=0.8, reward_win_rate_low=0.7, reward_win_rate_high=0.9, n=64
    )
    win = read_run(tmp_path).win
    assert win is not None
    assert (win.share, win.by, win.outside_opinion) == (0.8, "reward model", False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3.0), ("1e-5", 1e-5), (None, math.nan), (True, math.nan), ("x", math.nan), ("nan", math.nan)],
)
def test_loose_values_become_numbers(value, expected):
    np.testing.assert_equal(number(value), expected)


def test_text_that_could_steer_a_terminal_is_escaped():
    assert printable("a\x1b[31m\x07\u202eb\ud800\nc\td\r\ne") == "a\\x1b[31m\\x07\\u202eb\\ud800\nc\td\ne"
    assert printable("żółw 🐢 − ok") == "żółw 🐢 − ok"


def test_chat_prompts_become_text():
    assert (
        prompt_as_text([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}])
        == "user: hi\nassistant: yo"
    )


def test_unreadable_artifacts_do_not_stop_a_report(tmp_path: Path):
    folder = write_run(tmp_path / "run")
    next(folder.glob("artifacts/*/artifact.json")).write_text("{")
    assert len(read_run(folder).artifacts) == 2
