"""What the guardian did, read back and shown: cards, samples at the alarm, curves that mark what was undone."""

import math
import re

import numpy as np
import pytest
from helpers.guarded_runs import HACKING, HOSTILE, action, samples, verdict, write_guarded
from helpers.report_runs import Writer

from keel.report.alarms import in_doubt
from keel.report.html import render
from keel.report.read import read_run
from keel.report.words import headline

REFERENCE = "The canoe costs 24 euros per day."


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    return write_guarded(tmp_path_factory.mktemp("guarded") / "run")


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory):
    """Updates 1 to 6, an alarm at 6 with samples, back to 4, judges asked at 8, updates to 10."""
    out = Writer(tmp_path_factory.mktemp("rolled") / "run")
    out.add("samples", "ppo", 0.0, step=0, samples=samples("first"))
    for step in range(1, 11):
        score = float(step) if step <= 6 else float(step - 2)
        out.add(
            "step",
            "ppo",
            1.0,
            step=step,
            of=10,
            score_mean=score,
            kl_nats_per_sequence=score,
            score_a=1.0,
            score_a_std=1.0,
        )
        if step == 6:
            out.add("verdict", "ppo", 0.0, step=6, **HACKING)
            out.add("samples", "ppo", 0.0, step=6, moment="alarm", samples=samples(HOSTILE))
            changed = {"before": {"kl_coef": 0.05}, "after": {"kl_coef": 0.15}}
            out.add("action", "ppo", 0.0, **action(6, "roll_back", taken=True, to_step=4, confidence=0.995, **changed))
            out.add("evaluated", "ppo", 0.0, step=6, score=4.0)
            out.add("samples", "ppo", 0.0, step=6, samples=samples(REFERENCE))
        if step == 8:
            out.add(
                "checked",
                "ppo",
                0.0,
                step=8,
                verdicts=20,
                wins=11,
                ties=2,
                win_rate=0.6,
                win_rate_low=0.3,
                win_rate_high=0.9,
            )
            out.add("action", "ppo", 0.0, **action(8, "ask_humans", taken=True))
    out.add("samples", "ppo", 0.0, step=10, samples=samples("last"))
    return out.close()


def test_an_action_is_read_with_its_reasons_and_what_it_changed(guarded):
    advised, taken = read_run(guarded).actions
    assert (advised.taken, advised.rolled_back) == (False, False)
    assert advised.text == "advised only: lower the KL weight (kl_coef 0.1 to 0.05)"
    assert taken.rolled_back
    assert (taken.step, taken.to_step) == (40, 20)
    assert taken.text == "went back to the weights of update 20 (kl_coef 0.05 to 0.1)"
    assert taken.evidence == (HACKING["message"],)
    assert taken.causes == (HACKING["cause"],)
    assert taken.remedies == (HACKING["remedy"],)


def test_samples_at_the_alarm_stand_beside_those_of_the_policy_gone_back_to(rolled_back):
    run = read_run(rolled_back)
    went_back, asked = run.actions
    assert {(pair.before, pair.after) for pair in went_back.samples} == {(REFERENCE, samples(HOSTILE)[0]["response"])}
    assert asked.samples == ()
    assert {(pair.before, pair.after) for pair in run.samples} == {("first", "last")}


def test_a_card_says_what_judges_answered(rolled_back):
    assert read_run(rolled_back).actions[1].answer == "They preferred the policy to SFT in 11 of 20 pairs (ties: 2)."


def test_an_alarm_that_was_rolled_back_leaves_no_doubt_until_it_comes_again():
    said = {"event": "verdict", "stage": "ppo", "step": 6, **HACKING}
    undone = {"event": "action", "stage": "ppo", **action(6, "roll_back", taken=True, to_step=4)}
    over = {"event": "verdict", "stage": "ppo", "step": 7, **verdict("ok", HACKING["rule"], "Fine.")}
    assert in_doubt([said])
    assert not in_doubt([said, over])
    assert not in_doubt([said, undone])
    assert in_doubt([said, undone, {**said, "step": 9}])
    assert in_doubt([said, {**undone, "taken": False}])


def test_curves_know_which_steps_were_undone(rolled_back):
    stage = read_run(rolled_back).stages["ppo"]
    assert stage.steps.at[stage.steps.abandoned].tolist() == [5, 6]
    assert not stage.evaluations.abandoned.any()
    assert not stage.checks.abandoned.any()
    assert np.isfinite(stage.checks.get("win_rate")).all()


def test_the_page_shows_cards_judges_and_what_was_undone(rolled_back):
    page = render(read_run(rolled_back))
    alarms = re.search(r'<section id="alarms">.*?</section>', page, re.S)[0]
    assert alarms.count("<article") == 2
    for words in (
        "over 99% sure",
        "kl_coef 0.05 to 0.15",
        "update 4, gone back to",
        "update 6, at the alarm",
        "advise",
    ):
        assert words in alarms
    assert "Judges, policy against SFT" in page
    assert "A red line marks a rollback" in page
    assert "Parts of the score" not in page
    assert not re.search("[\x00-\x08\x1b\u202e\ud800]", page)
    assert page.count("<article") == page.count("</article>")


def test_the_terminal_and_the_verdict_say_what_the_guardian_did(rolled_back):
    run = read_run(rolled_back)
    said = " ".join(headline(run).paragraphs)
    assert "At update 6 the guardian went back to the weights of update 4" in said
    assert "Judges prefer the policy of update 8 to the SFT model in 60 % of 20 pairs" in said


def test_a_damaged_action_is_shown_with_what_it_has(tmp_path):
    out = Writer(tmp_path / "run")
    out.add("step", "ppo", 1.0, step=1, of=2, score_mean=0.0)
    out.add("action", "ppo", 0.0, action="<b>new</b>", evidence="none", rules=None, before=[], after=None)
    (only,) = read_run(out.close()).actions
    assert math.isnan(only.step)
    assert "&lt;b&gt;new&lt;/b&gt;" in render(read_run(tmp_path / "run"))
