"""Each rule on its planted failure and on the healthy twin, how often healthy runs are called ill, and the edges."""

import re
from collections import Counter
from math import nan

import numpy as np
import pytest
from helpers.planted import FROM_THE_START, ONSET, PLANTED, healthy, planted, spoken

from keel.core.config import fields_of
from keel.monitor.history import History
from keel.monitor.rules import FAMILIES, RULES, judged
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import LEVELS
from keel.stages.recipe import Recipe

CASES = [
    pytest.param(rule, level, plant, id=rule if not number else f"{rule}-{number + 1}")
    for rule, plants in PLANTED.items()
    for number, (level, plant) in enumerate(plants)
]
NOISY = {"human_gain", "reward_agreement"}
"""Rules that read a few judges' verdicts: some healthy runs get a watch by chance, see the rates below."""
GRAVE = ("act", "stop")


def test_every_rule_has_a_planted_failure_and_a_family():
    assert set(PLANTED) == set(RULES) == set(FAMILIES)


@pytest.mark.parametrize(("rule", "level", "plant"), CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_rule_fires_on_its_planted_failure_and_is_silent_on_the_healthy_twin(rule, level, plant, seed):
    found = spoken(rule, planted(plant, seed))
    assert max(found.values(), key=LEVELS.index) == level
    first = min(step for step, said in found.items() if said == level)
    assert rule in FROM_THE_START or ONSET < first <= ONSET + 25
    twin = spoken(rule, healthy(seed).history())
    assert not {said for said in twin.values() if rule not in NOISY or LEVELS.index(said) >= LEVELS.index(level)}


@pytest.mark.parametrize(("rule", "level", "plant"), CASES)
def test_a_verdict_says_what_since_when_why_and_what_to_do(rule, level, plant):
    history = planted(plant, seed=0)
    first = min(step for step, said in spoken(rule, history).items() if said == level)
    verdict = RULES[rule](history.until(first), DEFAULT)
    assert verdict.message.endswith(".")
    assert "nan" not in verdict.message
    assert verdict.figures
    assert verdict.remedy
    assert verdict.cause or rule in ("kl_bands", "reward_saturation")
    assert verdict.confidence is None or 0.5 <= verdict.confidence <= 0.99
    # Half the way from where the figure came from; a healthy rise may have gone some of it.
    assert "since" not in verdict.figures or ONSET - 6 <= verdict.figures["since"] <= first


@pytest.mark.parametrize(("rule", "level", "plant"), CASES)
def test_a_remedy_names_settings_that_exist(rule, level, plant):
    remedy = RULES[rule](planted(plant, seed=0), DEFAULT).remedy
    settings = {doc.name for doc in fields_of(Recipe)}
    assert set(re.findall(r"\b[a-z]+(?:\.[a-z_]+)+", remedy)) <= settings


@pytest.fixture(scope="module")
def alarms() -> Counter:
    """(rule, level) -> healthy runs of 60 updates, of 24, in which it was ever said; looked at after every third."""
    counts = Counter()
    for seed in range(100, 124):
        history = healthy(seed).history()
        said = {
            (name, verdict.level)
            for step in range(3, 61, 3)
            for name, verdict in judged(history.until(step), DEFAULT).items()
        }
        counts.update(said)
    return counts


@pytest.mark.parametrize("rule", RULES)
def test_false_alarms_of_a_rule_are_rare(rule, alarms):
    # Of 24 runs: one watch is 4 %. Judges' verdicts are few and read often: their rule takes 5 % for its due.
    watch, act = (10, 3) if rule == "human_gain" else (3, 0) if rule in NOISY else (1, 0)
    assert alarms[rule, "watch"] <= watch
    assert alarms[rule, "act"] + alarms[rule, "stop"] <= act


# -- what looks like a failure and is none


def at_end(rule, **figures):
    """A rule's verdict on a healthy run with some figures exchanged, given as values or functions of the old ones."""
    course = healthy(0)
    for name, new in figures.items():
        course.steps[name] = new(course.steps[name]) if callable(new) else np.broadcast_to(new, 60).astype(float)
    return RULES[rule](course.history(), DEFAULT)


def rising(low, high, updates=60, since=ONSET):
    """`low`, and from `since` on a straight line to `high`."""
    t = np.arange(updates)
    return low + (high - low) * np.clip((t - since) / (updates - 1 - since), 0, 1)


def test_longer_answers_that_do_not_pay_are_only_worth_a_look():
    longer = rising(26, 60)
    verdict = at_end("length_hacking", response_tokens_mean=longer, length_reward_correlation=0.0)
    assert verdict.level == "watch"
    assert at_end("length_hacking", response_tokens_mean=longer, length_reward_correlation=nan).level == "watch"
    assert at_end("length_hacking", response_tokens_mean=longer, length_reward_correlation=0.5).level == "act"


def test_a_share_that_begins_at_nothing_is_judged_by_its_rise_alone():
    assert at_end("unfamiliar_text", unseen_trigram_share=rising(0.0, 0.2)).level == "act"
    assert at_end("unfamiliar_text", unseen_trigram_share=rising(0.0, 0.005)).level == "ok"
    assert at_end("repetition", repeated_trigram_share=rising(0.0, 0.2)).level == "act"


def test_a_share_must_rise_by_much_and_by_a_large_factor():
    assert at_end("unfamiliar_text", unseen_trigram_share=rising(0.001, 0.006)).level == "ok"
    assert at_end("unfamiliar_text", unseen_trigram_share=rising(0.50, 0.56)).level == "ok"


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("score_spread", "score_std"),
        ("reward_disagreement", "score_disagreement"),
        ("length_hacking", "response_tokens_mean"),
        ("off_distribution", "ref_perplexity"),
    ],
)
def test_there_is_no_factor_from_nothing(rule, name):
    verdict = at_end(rule, **{name: rising(0.0, 40.0)})
    assert verdict.level == "ok"
    assert "nan" not in verdict.message
    assert "factor" not in verdict.message


def test_rewards_all_alike_are_a_fault_only_where_the_policy_got_worse_or_says_one_thing():
    t = np.arange(60)
    success = np.clip((t - 20) / 20, 0, 1)
    spread = np.sqrt(success * (1 - success))
    before_first = at_end("reward_flattened", score_std=0.0, score_mean=0.0)
    assert before_first.level == "watch"
    assert at_end("reward_flattened", score_std=spread, score_mean=success).level == "watch"  # all is solved
    assert at_end("reward_flattened", score_std=spread, score_mean=1 - success).level == "act"
    one_answer = at_end(
        "reward_flattened", score_std=spread, score_mean=success, unique_share=rising(0.9, 0.01, since=20)
    )
    assert one_answer.level == "act"


def test_a_policy_whose_rewards_are_all_alike_has_not_stalled():
    still = {"kl_nats_per_token": 0.001}
    assert at_end("stalled", **still, reward_mean=lambda old: 0 * old + np.tile([0.1, 0.2], 30)).level == "watch"
    assert at_end("stalled", **still, reward_mean=0.7).level == "ok"
    assert at_end("stalled", **still, score_std=0.0, reward_mean=np.tile([0.1, 0.2], 30)).level == "ok"


def test_a_policy_whose_reward_has_risen_has_arrived_and_not_stalled():
    assert at_end("stalled", kl_nats_per_token=0.06).level == "ok"


def test_kl_below_zero_is_no_runaway():
    assert at_end("kl_runaway", kl_nats_per_sequence=rising(-2.0, -0.1, since=54)).level == "ok"
    # From below zero to well above, any ratio is passed; the rise must still be large.
    assert at_end("kl_runaway", kl_nats_per_sequence=rising(-0.2, 0.8, since=54)).level == "ok"
    assert at_end("kl_runaway", kl_nats_per_sequence=rising(-0.2, 30.0, since=54)).level == "act"


def test_either_kl_alone_is_judged_by_its_own_line():
    def level(**row):
        return RULES["kl_bands"](History.of([row]), DEFAULT).level

    assert level(kl_nats_per_token=0.2) == level(kl_nats_per_sequence=6.0) == "ok"
    assert level(kl_nats_per_token=2.5) == "act"
    assert level(kl_nats_per_sequence=25.0) == "act"  # one reading; two in a row are a stop
    assert level(kl_nats_per_token=nan) == level(kl_nats_per_sequence=float("inf"), kl_nats_per_token=0.1) == "stop"
    assert level(kl_nats_per_token=None, kl_nats_per_sequence=None) == level() == "ok"


def test_null_is_a_broken_figure_only_where_it_was_a_number():
    assert RULES["not_finite"](History.of([{"loss": None}]), DEFAULT).level == "ok"
    assert RULES["not_finite"](History.of([{"loss": 0.1}, {"loss": None}]), DEFAULT).level == "stop"
    assert RULES["not_finite"](History.of([{"loss": nan}]), DEFAULT).level == "stop"
    assert RULES["not_finite"](History.of([{"grad_norm": np.float32("inf")}]), DEFAULT).level == "stop"
    assert RULES["not_finite"](History.of([{"loss": 0.1}, {"step": 2}]), DEFAULT).level == "ok"
    was = {"kl_nats_per_token": 0.1, "kl_nats_per_sequence": 3.0}
    verdict = RULES["kl_bands"](History.of([was, dict.fromkeys(was)]), DEFAULT)
    assert (verdict.level, verdict.rule) == ("stop", "kl_finite")
    assert "nan" not in verdict.message


def test_updates_that_go_too_far_are_told_by_the_figures_there_are():
    rows = [{"clip_fraction": 0.5}] * 3
    verdict = RULES["too_far"](History.of(rows), DEFAULT)
    assert verdict.level == "watch"
    assert verdict.figures == {"clip_fraction": 0.5}
    assert "nats" not in verdict.message
    assert RULES["too_far"](History.of([*rows[:2], {"clip_fraction": 0.1}]), DEFAULT).level == "ok"


# -- judges


def checks(*batches, agreement=None):
    return [
        {"step": 10 * (i + 1), "values": values, "verdicts": len(values), "reward_agreement": agreement}
        for i, values in enumerate(batches)
    ]


def test_judges_who_fall_silent_or_never_answer_are_no_evidence():
    for rows in ([], [{"step": 10}], checks([]), checks([None, nan, "a"]), [{"step": 10, "values": "many"}]):
        assert RULES["human_gain"](History.of([], [], rows), DEFAULT).level == "ok"
        assert RULES["reward_agreement"](History.of([], [], rows), DEFAULT).level == "ok"
    good = [1.0] * 14 + [0.0] * 6
    assert RULES["human_gain"](History.of([], [], checks(good, [], good, [None])), DEFAULT).level == "ok"


def test_judges_who_prefer_sft_for_certain_are_enough_at_the_first_check():
    verdict = RULES["human_gain"](History.of([], [], checks([0.0] * 19 + [1.0])), DEFAULT)
    assert verdict.level == "act"
    assert "below an even chance" in verdict.message


def test_a_fall_of_the_win_rate_dates_from_the_check_at_which_it_began():
    good, bad = [1.0] * 15 + [0.0] * 5, [1.0] * 7 + [0.0] * 13
    rows = checks(good, [], good, good, good, bad, bad, bad)
    verdict = RULES["human_gain"](History.of([], [], rows), DEFAULT)
    assert verdict.level == "act"
    assert verdict.figures["since"] == 60


def test_a_score_that_rises_without_a_gain_for_judges_is_worth_a_look():
    even = [1.0, 0.0] * 10
    steps = healthy(0).history().steps.rows
    assert RULES["human_gain"](History.of(steps, [], checks(even, even)), DEFAULT).level == "ok"
    verdict = RULES["human_gain"](History.of(steps, [], checks(even, even, even)), DEFAULT)
    assert verdict.level == "watch"
    assert "50% of the last 60" in verdict.message
    flat = [{"score_mean": 0.1 * (i % 2)} for i in range(60)]
    assert RULES["human_gain"](History.of(flat, [], checks(even, even, even)), DEFAULT).level == "ok"


def test_agreement_waits_for_enough_verdicts_however_the_rows_were_kept():
    batch = [1.0] * 20
    few = RULES["reward_agreement"](History.of([], [], checks(batch, batch, agreement=0.4)), DEFAULT)
    assert few.level == "ok"
    rows = [*checks(batch, batch, batch, agreement=0.4), {"step": 40}]
    assert RULES["reward_agreement"](History.of([], [], rows), DEFAULT).level == "watch"


# -- held-out prompts


@pytest.mark.parametrize("evaluations", [4, 5, 6, 12])
def test_prompts_are_not_exhausted_while_held_out_reward_rises_too(evaluations):
    steps = [{"reward_mean": 0.1 * i + 0.02 * (-1) ** i, "prompt_epochs": 0.5 * i} for i in range(60)]
    apart = 60 / (evaluations - 1)
    together = [{"step": round(i * apart), "reward_mean": 0.1 * i * apart} for i in range(evaluations)]
    assert RULES["data_exhausted"](History.of(steps, together), DEFAULT).level == "ok"
    behind = [{"step": round(i * apart), "reward_mean": min(1.0, 0.1 * i * apart)} for i in range(evaluations)]
    expected = "watch" if evaluations >= 6 else "ok"
    assert RULES["data_exhausted"](History.of(steps, behind), DEFAULT).level == expected


# -- lines are settings


def test_a_recipe_can_move_a_line_and_lay_both_on_each_other():
    together = Thresholds(length_watch=1.2, length_act=1.2, unseen_watch=0.02, unseen_act=0.02)
    history = healthy(0).history()
    assert RULES["length_hacking"](history, together).level == "ok"
    course = healthy(0)
    course.steps["response_tokens_mean"] = rising(26, 34)
    course.steps["length_reward_correlation"][:] = 0.5
    course.steps["unseen_trigram_share"] = rising(0.005, 0.03)
    verdicts = judged(course.history(), together)
    assert (verdicts["length_hacking"].level, verdicts["length_hacking"].confidence) == ("act", 0.95)
    assert verdicts["unfamiliar_text"].level == "act"
    assert RULES["length_hacking"](course.history(), DEFAULT).level == "watch"


def test_a_policy_that_judges_never_liked_is_told_by_all_their_verdicts_together():
    """No single check of 20 settles it, and nothing fell: it was never better than SFT."""
    batches = [[1.0] * 7 + [0.0] * 13, [1.0] * 6 + [0.0] * 14] * 4
    checks = [{"step": 4 * (i + 1), "values": values} for i, values in enumerate(batches)]
    verdict = RULES["human_gain"](History.of([], checks=checks), DEFAULT)
    assert verdict.level == "act"
    assert verdict.figures["since"] == 4
    assert RULES["human_gain"](History.of([], checks=checks[:2]), DEFAULT).level != "act"
