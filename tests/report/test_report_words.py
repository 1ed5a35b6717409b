"""The verdict in plain words: honest about what was measured, by whom, and how surely."""

import json

import pytest
from helpers.report_runs import write_run

from keel.core.events import EventLog
from keel.report.measures import distance, score_change
from keel.report.read import read_run
from keel.report.terminal import summary_text
from keel.report.units import duration, gibibytes, percent, plain, signed
from keel.report.words import accuracy_band, headline, key_figures


def verdict(tmp_path, kind="healthy", change=None):
    folder = write_run(tmp_path / "run", kind)
    if change is not None:
        path = folder / "summary.json"
        summary = json.loads(path.read_text())
        change(summary["stages"])
        path.write_text(json.dumps(summary))
    return headline(read_run(folder))


def test_a_win_clear_of_one_half_is_better(tmp_path):
    told = verdict(tmp_path)
    assert told.tone == "good"
    assert told.title == "Better: wins 74 of 100 comparisons with the model it started from"
    text = " ".join(told.paragraphs)
    assert "74.4 % of 1024 comparisons" in text
    assert "(95 % interval 71.6 to 77.0)" in text
    assert "nats per answer (0.22 nats per token) away from where it started, inside the healthy band" in text


def test_a_hacked_run_is_called_worse_though_its_score_rose(tmp_path):
    told = verdict(tmp_path, "hacked")
    assert told.tone == "bad"
    assert told.title.startswith("Worse, though its score rose")
    text = " ".join(told.paragraphs)
    assert "Score up and preference down" in text
    assert "beyond the 20-nat line" in text
    assert "The answers have begun to resemble each other" in text
    assert "The gravest: KL is 21.3 nats per answer" in text


def test_an_interval_around_one_half_is_no_clear_difference(tmp_path):
    assert verdict(tmp_path, "with_nan").title == "No clear difference: wins 51 of 100 comparisons"


def test_without_an_outside_judge_nothing_is_called_better(tmp_path):
    told = verdict(tmp_path, change=lambda stages: stages.pop("evaluate"))
    folder = tmp_path / "run"
    lines = [line for line in (folder / "events.jsonl").read_text().splitlines() if '"evaluate"' not in line]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    told = headline(read_run(folder))
    assert told.tone == "open"
    assert told.title == "The score rose; no outside judge has confirmed it yet"
    assert "Only the reward model says so" in " ".join(told.paragraphs)


def test_a_reward_model_beaten_by_counting_words_is_told_so(tmp_path):
    told = verdict(tmp_path, change=lambda stages: stages["reward"].update(baseline_bag_of_words=0.74))
    assert "A simple rival does as well or better" in " ".join(told.paragraphs)


def test_a_lead_within_the_interval_is_not_certain(tmp_path):
    told = verdict(tmp_path, change=lambda stages: stages["reward"].update(baseline_bag_of_words=0.71))
    assert "The interval includes the better rival" in " ".join(told.paragraphs)


def test_a_stopped_run_says_where_and_how_to_go_on(tmp_path):
    told = verdict(tmp_path, "stopped")
    assert told.title == "Stopped during reinforcement learning, at step 31 of 60"
    assert "The same command, given again" in told.paragraphs[0]


def test_kept_weights_that_are_not_the_last_are_named(tmp_path):
    told = verdict(tmp_path, change=lambda stages: stages["ppo"].update(kept_update=40))
    assert "The weights kept are those of update 40 of 60" in " ".join(told.paragraphs)


def test_scores_of_different_rounds_are_never_subtracted(tmp_path):
    run = read_run(write_run(tmp_path / "run", "rounds"))
    change = score_change(run)
    assert change is not None
    assert change.where == "held-out prompts of the last round"
    assert change.before == pytest.approx(0.3)
    assert "prompts answered before and after" not in " ".join(headline(run).paragraphs)


def test_the_evaluation_judges_the_score_when_it_measured_both_models(tmp_path):
    def both(stages):
        stages["evaluate"].update(score=1.5, score_sft=0.5)

    text = " ".join(verdict(tmp_path, "rounds", both).paragraphs)
    assert "The mean score on the evaluation's prompts rose from 0.50 to 1.50" in text


@pytest.mark.parametrize(
    ("per_token", "per_sequence", "score_after", "level", "words"),
    [
        (0.2, 5.0, 1.0, "ok", "inside the healthy band"),
        (0.05, 1.0, 1.0, "ok", "the score rose all the same"),
        (0.05, 1.0, 0.0, "watch", "stalled"),
        (0.7, 15.0, 1.0, "watch", "above the healthy 0.1 to 0.5"),
        (2.5, 15.0, 1.0, "act", "raise the KL coefficient"),
        (0.3, 21.0, 1.0, "act", "beyond the 20-nat line"),
        (None, 8.0, 1.0, "ok", "short of the 20-nat line"),
    ],
)
def test_the_ladder_reads_as_the_requirements_say(tmp_path, per_token, per_sequence, score_after, level, words):
    log = EventLog(tmp_path / "events.jsonl")
    metrics = {"kl_nats_per_token": per_token, "kl_nats_per_sequence": per_sequence, "score_before": 0.0}
    log.append("stage_started", stage="ppo", config={})
    log.append("stage_finished", stage="ppo", seconds=1.0, metrics={**metrics, "score_after": score_after})
    far = distance(read_run(tmp_path))
    assert far is not None
    assert far.level == level
    assert words in far.phrase


@pytest.mark.parametrize(
    ("accuracy", "words"), [(0.59, "too low"), (0.62, "weak"), (0.7, "good"), (0.85, "leakage"), (0.95, "suspiciously")]
)
def test_accuracy_bands_are_those_of_the_requirements(accuracy, words):
    assert words in accuracy_band(accuracy)


def test_key_figures_leave_out_what_was_not_measured(tmp_path):
    run = read_run(write_run(tmp_path / "run", "sft_only"))
    assert [figure.label for figure in key_figures(run)] == ["SFT perplexity", "time"]


def test_summary_text_is_the_headline_as_plain_text(tmp_path):
    text = summary_text(write_run(tmp_path / "run"))
    assert text.splitlines()[0].startswith("Better: wins 74 of 100")
    assert "\x1b" not in text


def test_units_read_as_people_write_them():
    assert [duration(s) for s in (8.44, 59, 372, 7500, 273_600)] == [
        "8.4 s",
        "59 s",
        "6 min 12 s",
        "2 h 05 min",
        "3 d 4 h",
    ]
    assert gibibytes(1_534_000_000) == "1.43 GiB"
    assert gibibytes(None) == ""
    assert percent(0.7444) == "74.4 %"
    assert signed(-0.5) == "−0.50"
    assert [plain(value) for value in (-0.001, -1.5, 2)] == ["0.00", "−1.50", "2.00"]
