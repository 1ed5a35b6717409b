"""`keel watch`: what a frame holds, at any size, for any state of the run."""

import io
import json
import math

import pytest
from helpers.guarded_runs import HOSTILE, events, write_guarded
from helpers.report_runs import KINDS, Writer, write_run
from rich.console import Console

from keel.core.files import RunLock
from keel.report.cards import action_text
from keel.report.frame import frame
from keel.report.gauges import Pens, answer_bands, band_of, ladder, share_gauge, token_bands
from keel.report.records import KLBands
from keel.report.watch import Watched, event_text

PENS = Pens.of("utf-8")


def drawn(folder, width=100, height=None, encoding="utf-8"):
    watched = Watched(folder)
    watched.look()
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding), width=width)
    return frame(watched.view("q quits"), console, width, height)


def text(folder, **size):
    return "\n".join(line.plain for line in drawn(folder, **size))


@pytest.mark.parametrize("size", [(80, 24), (140, 45), (60, 15), (40, 8), (200, 60)])
@pytest.mark.parametrize("kind", [*KINDS, "guarded"])
def test_a_frame_fits_any_terminal(tmp_path, kind, size):
    folder = write_guarded(tmp_path / "run") if kind == "guarded" else write_run(tmp_path / "run", kind)
    lines = drawn(folder, width=size[0], height=size[1])
    assert len(lines) == size[1]
    assert max(line.cell_len for line in lines) <= size[0]
    assert lines[-1].plain.endswith("q quits")


def test_what_matters_most_is_on_the_smallest_common_terminal(tmp_path):
    shown = text(write_guarded(tmp_path / "run", 44), width=80, height=24)
    for words in (
        "help desk",
        "update 44 of 60",
        "KL per token",
        "KL per answer",
        "held-out, +1.15 since the start",
        "45 %",
        "32 to 58 % of 10, reward 79 %",
        "UNDONE BY ROLLBACK  reward hacking  since update 36, 2 times, last at 40",
        "update 40: went back to the weights of update 20 (kl_coef 0.05 to 0.1)",
        "explains",
        "clipped tokens",
        "labels spent",
    ):
        assert words in shown


def test_an_alarm_card_says_what_since_when_why_what_was_done_and_what_to_do(tmp_path):
    shown = " ".join(text(write_guarded(tmp_path / "run", 39), width=140).split())
    assert "The reward rose by 1.9 while judges prefer the policy only 47 % of the time" in shown
    assert "why The policy found what the reward model overpays: length. (93 % sure)" in shown
    assert "done update 36: advised only: lower the KL weight (kl_coef 0.1 to 0.05)" in shown
    assert "you can Add pairs that show long empty answers as rejected" in shown
    assert "OVER value function since update 5" in shown


def test_figures_of_a_course_that_was_rolled_back_are_forgotten(tmp_path):
    watched = Watched(write_guarded(tmp_path / "run", 40))  # at 40 it went back to 20
    watched.look()
    live = watched.live
    assert list(live.steps["ppo"].at) == list(range(1, 21))
    assert len(live.steps["ppo"].get("score_mean")) == 20
    assert list(live.evaluations["ppo"].at) == [0, 10, 20]
    assert list(live.checks.at) == [14]
    shown = text(tmp_path / "run", width=140)
    assert "of 10 verdicts at update 14" in shown
    assert "judges asked" not in shown  # the policy they were asked about is no more
    assert "update 40 of 60" in shown


def test_a_rollback_leaves_earlier_rounds_and_advice_leaves_everything(tmp_path):
    out = Writer(tmp_path)
    for step in (1, 2, 3):
        out.add("step", "ppo 1", step=step, score_mean=1.0)
    for step in (1, 2):
        out.add("step", "ppo 2", step=step, score_mean=2.0)
    out.add("action", "ppo 2", step=2, action="roll_back", taken=False, to_step=0)
    folder = out.close()
    watched = Watched(folder)
    watched.look()
    assert list(watched.live.steps["ppo"].at) == [1, 2, 3, 1, 2]
    with (folder / "events.jsonl").open("a") as log:
        log.write('{"event": "action", "stage": "ppo 2", "step": 2, "action": "roll_back", "to_step": 0}\n')
    watched.look()
    assert list(watched.live.steps["ppo"].at) == [1, 2, 3]


def test_what_a_rollback_undid_stands_last_says_so_and_troubles_nobody(tmp_path):
    watched = Watched(write_guarded(tmp_path / "run", 44))
    watched.look()
    assert not watched.troubled
    assert watched.live.cards.gravest is None
    shown = text(tmp_path / "run", width=140)
    assert "ACT" not in shown
    assert "UNDONE BY ROLLBACK  reward hacking  since update 36" in shown
    watched = Watched(write_guarded(tmp_path / "goes on", 45))  # one rule speaks up again
    watched.look()
    again = watched.live.cards.sorted()[0]
    assert (again.rule, again.since_step, again.count, again.past) == ("length", 45, 1, False)
    shown = text(tmp_path / "goes on", width=140)
    assert shown.index("WATCH  length  since update 45") < shown.index("UNDONE BY ROLLBACK  reward hacking")


def test_the_bands_in_force_are_those_of_the_recipe(tmp_path):
    shown = text(write_guarded(tmp_path / "run", 20, recipe="thresholds: {kl_watch_per_token: 0.7}\n"))
    assert "─0.7─" in shown
    assert "─0.5─" not in shown


def test_text_of_models_cannot_steer_the_terminal(tmp_path):
    out = Writer(tmp_path)
    for event, wait_s, fields in events(10):
        if event == "verdict":
            fields |= {"message": HOSTILE, "remedy": HOSTILE, "rule": HOSTILE, "cause": HOSTILE, "level": "act"}
        out.add(event, "ppo", wait_s, **fields)
    out.add("action", "ppo", step=10, action=HOSTILE, rules=[HOSTILE], after={HOSTILE: HOSTILE}, taken=True)
    out.close()
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": HOSTILE.replace("\ud800", "")}))
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="utf-8"), width=120)
    watched = Watched(tmp_path)
    said = [watched.summary(event)["text"] for event in watched.look()]
    for line in (*frame(watched.view(), console, 120, None), *said):
        console.print(line, markup=False)
    console.file.flush()
    shown = raw.getvalue().decode("utf-8")
    assert not {"\x1b", "\x07", "\x00", "\u202e"} & set(shown)
    assert "[bold]markup[/bold]" in shown


def test_an_ascii_terminal_gets_ascii(tmp_path):
    shown = text(
        write_guarded(tmp_path / "a folder whose name is longer than a line of the terminal is wide at most"),
        encoding="ascii",
    )
    assert shown.isascii()
    assert "-stalled-" in shown


def test_a_run_is_waiting_running_stopped_or_finished(tmp_path):
    folder = tmp_path / "run"
    watched = Watched(folder)
    assert watched.look() == []
    assert watched.state == "waiting"
    write_guarded(folder, 12)
    with RunLock(folder):
        assert len(watched.look()) > 12
        assert watched.state == "running"
        assert math.isfinite(watched.view().now)
        assert watched.look() == []
    with (folder / "events.jsonl").open("a") as log:
        log.write('{"event": "verdict"}\n')
    watched.look()
    assert (watched.state, watched.ended) == ("stopped", True)
    with RunLock(folder):
        watched.look()
        assert watched.state == "stopped"  # nothing has been written since
        with (folder / "events.jsonl").open("a") as log:
            log.write('{"event": "resumed", "stage": "ppo", "step": 12}\n')
        watched.look()
        assert watched.state == "running"
    finished = Watched(write_run(tmp_path / "healthy"))
    finished.look()
    assert (finished.state, finished.troubled) == ("finished", False)


def test_the_label_budget_is_shown_where_judges_are_asked(tmp_path):
    checks = "guardian: {checks: {every: %d, label_budget: 200}}\n"
    assert "44 of 200 labels spent" in text(write_guarded(tmp_path / "asked", 44, recipe=checks % 10))
    assert "44 labels spent" in text(write_guarded(tmp_path / "nobody", 44, recipe=checks % 0))


def test_time_left_comes_from_the_pace_of_this_attempt(tmp_path):
    out = Writer(tmp_path)
    out.add("stage_started", "ppo", config={})
    for step in range(1, 5):
        out.add("step", "ppo", 2.0, step=step, of=10)
    out.add("stage_started", "ppo", 5000.0, config={})  # the next day
    out.add("resumed", "ppo", step=4)
    out.add("step", "ppo", 1.0, step=5, of=10)
    out.close()
    watched = Watched(tmp_path)
    watched.look()
    assert watched.live.current.seconds_left == pytest.approx(5.0)
    assert watched.live.worked == pytest.approx(9.0)


def test_the_ladder_names_every_band_but_the_one_with_the_mark():
    bands = token_bands(KLBands())
    assert [band_of(value, bands).name for value in (0.0, 0.1, 0.3, 1.9, 50.0, math.inf)] == [
        "stalled", "stalled", "healthy", "watch", "act", "act",
    ]  # fmt: skip
    assert band_of(math.nan, bands) is None
    for width in (20, 41, 90):
        for value in (math.nan, -0.1, 0.0, 0.05, 0.1, 0.49, 2.0, 2.1, 1e9, math.inf):
            line = ladder(value, bands, width, PENS)
            assert line.cell_len == width
            assert line.plain.count("◆") == (0 if math.isnan(value) else 1)
    assert ladder(0.3, bands, 41, PENS).plain == "stalled─0.1────◆─────0.5─watch──2──act───"
    assert "20" in ladder(3.0, answer_bands(KLBands()), 41, PENS).plain


def test_the_share_gauge_shows_interval_and_middle():
    assert share_gauge(0.45, 0.3, 0.6, 20, PENS).plain == "──────├━━◆━━┤───────"
    assert share_gauge(0.9, math.nan, math.nan, 10, PENS).plain == "─────╎───◆"
    assert share_gauge(math.nan, math.nan, math.nan, 10, PENS).plain == "─────╎────"


def test_every_event_has_a_line_of_text(tmp_path):
    for event, _, fields in events(44):
        line = event_text({"event": event, "stage": "ppo", **fields})
        assert line.startswith("ppo")
        assert "\n" not in line
    assert event_text({}) == ": event"


def test_an_action_is_told_in_words():
    settings = {"before": {"kl_coef": 0.05, "same": 1}, "after": {"kl_coef": 0.15, "same": 1}}
    told = [
        ({"action": "lower_kl", "taken": True, **settings}, "update 9: lowered the KL weight (kl_coef 0.05 to 0.15)"),
        ({"action": "roll_back", "taken": True, "to_step": 4}, "update 9: went back to the weights of update 4"),
        ({"action": "stop", "taken": True, "to_step": 4}, "update 9: stopped, keeping the weights of update 4"),
        ({"action": "stop", "taken": False}, "update 9: advised only: stop the stage"),
        ({"action": "something_new"}, "update 9: something_new"),
    ]
    assert [action_text(event, 9.0) for event, _ in told] == [text for _, text in told]
