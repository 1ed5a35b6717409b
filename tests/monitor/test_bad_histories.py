"""Histories as bad logs and odd runs leave them: clear verdicts, no crash, no action on no evidence."""

import math
from math import inf, nan

import numpy as np
import pytest
from helpers.planted import PLANTED, healthy, planted
from hypothesis import given, settings
from hypothesis import strategies as st

from keel.monitor.guardian import Memory, assess, because, decide
from keel.monitor.history import History
from keel.monitor.rules import RULES, judged
from keel.monitor.settings import CheckConfig, GuardianConfig
from keel.monitor.thresholds import DEFAULT
from keel.monitor.verdict import LEVELS

ASKS = GuardianConfig(checks=CheckConfig(every=5))
FIGURES = sorted(healthy(0).steps)
JUNK = [None, nan, "12", "n/a", True, [1.0], {}, 1e100, 1e308, -1e308, 10**400]
"""What is no measurement."""


def sound(history):
    """The verdicts on a history, each complete."""
    verdicts = judged(history, DEFAULT)
    assert list(verdicts) == list(RULES)
    for verdict in verdicts.values():
        assert verdict.level in LEVELS
        assert verdict.message
        assert not {"nan", "inf", "None"} & set(verdict.message.replace(",", " ").replace("%", " ").split())
        assert "nan" not in verdict.message.replace("finance", "")
        if verdict.level != "ok":
            assert verdict.figures
            assert verdict.remedy
        assert verdict.confidence is None or 0 <= verdict.confidence <= 1
    found = assess(verdicts)
    assert 0 <= found.probability <= 1
    assert isinstance(because(found), str)
    return verdicts


def done(history):
    """What a guardian with judges to ask would do."""
    return decide(sound(history), ASKS, Memory(), 99)


@pytest.mark.parametrize("updates", [0, 1, 2, 3, 5])
def test_a_run_of_few_updates_is_not_judged(updates):
    history = healthy(0).history().until(updates)
    history.evaluations.rows.clear()
    assert all(verdict.level == "ok" for verdict in sound(history).values())
    assert done(history) is None
    assert done(History.of([{} for _ in range(updates)])) is None


@pytest.mark.parametrize("junk", JUNK, ids=str)
def test_a_log_of_junk_is_not_judged(junk):
    rows = [dict.fromkeys(FIGURES, junk) | {"text": "hello"} for _ in range(40)]
    if isinstance(junk, float) and not math.isfinite(junk):
        # nan where a loss and a KL are always known is a fault and not missing.
        assert {v.rule for v in sound(History.of(rows)).values() if v.level != "ok"} == {"not_finite", "kl_finite"}
        return
    assert all(verdict.level == "ok" for verdict in sound(History.of(rows, rows, rows)).values())
    assert done(History.of(rows, rows, rows)) is None


@pytest.mark.parametrize("name", FIGURES)
def test_a_log_with_one_figure_only_is_never_enough_to_act(name):
    for rule, plants in PLANTED.items():
        rows = [{"step": row["step"], name: row[name]} for row in planted(plants[0][1], seed=0).steps.rows]
        decision = done(History.of(rows))
        crossed = rule in ("kl_bands", "kl_runaway", "not_finite", "reward_saturation")
        assert crossed or decision is None or decision.action == "ask_humans"


def test_a_log_without_one_figure_is_judged_by_the_others():
    for name in FIGURES:
        rows = [{key: value for key, value in row.items() if key != name} for row in healthy(0).history().steps.rows]
        assert done(History.of(rows)) is None


def test_constant_rewards_are_told_and_not_acted_upon():
    course = healthy(0)
    for name in ("score_mean", "reward_mean"):
        course.steps[name][:] = 1.0
    for name in ("score_std", "kl_nats_per_token", "kl_nats_per_sequence"):
        course.steps[name][:] = 0.0
    course.steps["length_reward_correlation"][:] = nan
    history = course.history()
    verdicts = sound(history)
    assert verdicts["reward_flattened"].level == "watch"
    assert "no signal" in verdicts["reward_flattened"].message
    assert done(History.of(history.steps.rows)) is None


def test_answers_of_one_token_have_no_trigrams_and_are_not_acted_upon():
    course = healthy(0)
    for name in ("unseen_trigram_share", "repeated_trigram_share", "self_bleu", "length_reward_correlation"):
        course.steps[name][:] = nan
    course.steps["response_tokens_mean"][:] = 1.0
    course.steps["common_phrase_share"][:] = 0.0
    course.steps["unique_share"][:] = 0.1
    assert done(History.of(course.history().steps.rows)) is None


def test_a_figure_that_is_always_nothing_says_nothing():
    rows = [dict.fromkeys(FIGURES, 0.0) for _ in range(60)]
    verdicts = sound(History.of(rows))
    assert {rule for rule, verdict in verdicts.items() if verdict.level not in ("ok", "watch")} == set()
    assert done(History.of(rows)) is None


def test_judges_that_never_answer_leave_the_other_rules_alone():
    course = healthy(0)
    rows = course.history().steps.rows
    silent = [{"step": 5 * i, "values": [], "verdicts": 0, "win_rate": nan, "reward_agreement": nan} for i in range(12)]
    assert judged(History.of(rows, [], silent), DEFAULT) == judged(History.of(rows), DEFAULT)
    assert done(History.of(rows, [], silent)) is None


def test_updates_without_figures_in_between_change_no_verdict():
    rows = healthy(3).history().steps.rows
    holes = [
        {"step": 2 * row["step"] + odd} | (row | {"step": 2 * row["step"]} if not odd else {})
        for row in rows
        for odd in (0, 1)
    ]
    levels = {rule: verdict.level for rule, verdict in sound(History.of(rows)).items()}
    assert {rule: verdict.level for rule, verdict in sound(History.of(holes)).items()} == levels


# -- any history at all

VALUES = st.one_of(
    st.none(),
    st.floats(-3, 30, width=32),
    st.floats(),
    st.sampled_from([0.0, 1.0, nan, inf, -inf, 1e-300, 1e99, 1e308, True, "3", 10**400]),
    st.sampled_from([np.float32(0.5), np.float64(nan), np.int64(7), np.float32(inf)]),
)
COLUMNS = st.lists(st.sampled_from(FIGURES), min_size=1, max_size=8, unique=True)


@st.composite
def histories(draw):
    """Some figures of some updates, each junk, a constant, a line with noise, or all of these mixed."""
    count = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    rows = [{"step": i + 1} for i in range(count)]
    for name in draw(COLUMNS):
        kind = draw(st.sampled_from(["junk", "constant", "line", "holes"]))
        level, slope = draw(st.floats(-2, 50)), draw(st.floats(-2, 5))
        line = level + (
            slope * np.arange(count) + rng.standard_normal(count) if kind != "constant" else np.zeros(count)
        )
        for row, value in zip(rows, line.tolist(), strict=True):
            if kind == "junk":
                row[name] = draw(VALUES)
            elif kind != "holes" or rng.random() < 0.6:
                row[name] = value
    batch = st.lists(st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.none(), st.just(nan)), max_size=25)
    checks = [
        {"step": 5 * (i + 1), "values": values, "verdicts": len(values), "reward_agreement": draw(VALUES)}
        for i, values in enumerate(draw(st.lists(batch, max_size=4)))
    ]
    evaluations = [{"step": 5 * i, "reward_mean": draw(VALUES)} for i in range(draw(st.integers(0, 8)))]
    return History.of(rows, evaluations, checks)


@settings(max_examples=300, deadline=None)
@given(history=histories())
def test_no_history_breaks_a_rule(history):
    verdicts = sound(history)
    for step in (1, 5):
        sound(history.until(step))
    decision = decide(verdicts, ASKS, Memory(), 99)
    if decision is not None:
        assert decision.reason
        assert decision.rules
        assert all(verdicts[name].level != "ok" for name in decision.rules)
