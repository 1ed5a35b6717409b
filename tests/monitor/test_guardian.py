"""Evidence weighed, and what follows from it."""

import itertools
import json
from dataclasses import replace
from math import exp, log
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keel.core.config import load_config
from keel.core.errors import ConfigError
from keel.monitor.guardian import (
    ALONE,
    CREDIT,
    DOUBT,
    HACKING,
    LIKELY,
    PRIOR,
    SURE_ENOUGH,
    Decision,
    Memory,
    Steering,
    Trial,
    assess,
    because,
    corrected,
    decide,
    mode_of,
    trial,
)
from keel.monitor.rules import FAMILIES, RULES
from keel.monitor.settings import ActionsConfig, CheckConfig, GuardianConfig, RuleName
from keel.monitor.verdict import Verdict
from keel.stats.correction import Correction

ACTS = GuardianConfig()
ADVISES = GuardianConfig(mode="advise")
ASKS = GuardianConfig(checks=CheckConfig(every=5))
STRONGEST = 0.99
OF_FAMILY = {family: [rule for rule in RULES if FAMILIES[rule] == family] for family in set(FAMILIES.values())}
WEIGHED = [rule for rule in RULES if FAMILIES[rule] in HACKING and rule not in ALONE]


def sign(rule, confidence=STRONGEST, level="act", since=None):
    figures = {"figure": 1.0} if since is None else {"figure": 1.0, "since": since}
    return Verdict(level, rule, f"{rule} spoke.", figures, "Do something.", f"Cause of {rule}.", confidence)


def verdicts(*signs):
    """All rules silent but these."""
    return {name: Verdict("ok", name, f"{name} is fine.") for name in RULES} | {v.rule: v for v in signs}


def doing(*signs, config=ACTS, memory=None, step=20):
    return decide(verdicts(*signs), config, memory or Memory(), step)


# -- weighing


def test_without_signs_there_is_what_was_likely_before():
    for nothing in ({}, verdicts()):
        found = assess(nothing)
        assert found.probability == pytest.approx(1 / (1 + exp(-PRIOR)))
        assert (found.signs, found.names, found.decisive, found.since) == ((), (), False, None)
        assert found.probability < DOUBT < SURE_ENOUGH


def test_two_signs_by_hand():
    # log(.9 / .1) + log(.8 / .2) = log 36 nats
    found = assess(verdicts(sign("kl_runaway", 0.8), sign("off_distribution", 0.9)))
    assert found.probability == pytest.approx(1 / (1 + exp(-PRIOR - log(36))))
    assert found.names == ("off_distribution", "kl_runaway")


def test_a_sign_like_a_coin_weighs_nothing_but_is_named():
    found = assess(verdicts(sign("stock_phrase", 0.5, "watch")))
    assert found.probability == assess({}).probability
    assert found.names == ("stock_phrase",)


@pytest.mark.parametrize("family", sorted(HACKING))
def test_one_family_alone_never_acts(family):
    signs = [sign(rule) for rule in OF_FAMILY[family] if rule not in (*ALONE, "reward_bias")]
    assert assess(verdicts(*signs)).probability < SURE_ENOUGH
    assert doing(*signs) is None


@pytest.mark.parametrize("family", ["map", "form", "score"])
def test_two_rules_of_a_family_count_as_the_surer_one(family):
    first, second = OF_FAMILY[family][:2]
    both = assess(verdicts(sign(first, 0.9), sign(second, 0.8)))
    assert both.probability == assess(verdicts(sign(first, 0.9))).probability
    assert both.names == (first,)
    assert assess(verdicts(sign(first, 0.8), sign(second, 0.9))).names == (second,)


@pytest.mark.parametrize(
    ("first", "second"), [(a, b) for a, b in itertools.combinations(WEIGHED, 2) if FAMILIES[a] != FAMILIES[b]]
)
def test_two_sure_signs_of_different_families_act(first, second):
    decision = doing(sign(first), sign(second))
    assert decision is not None
    assert (decision.action, decision.taken) == ("roll_back", True)
    assert set(decision.rules) == {first, second}


def test_two_watches_of_different_families_do_not_act():
    assert doing(sign("kl_runaway", 0.7, "watch"), sign("off_distribution", 0.7, "watch")) is None


def test_signs_about_training_are_no_signs_of_hacking():
    signs = [sign(rule, level="watch") for rule in OF_FAMILY["training"] if rule != "stalled"]
    assert assess(verdicts(*signs)).probability == assess({}).probability
    assert doing(*signs) is None


@pytest.mark.parametrize("rule", ["kl_bands", "not_finite", "reward_saturation"])
def test_a_line_that_is_crossed_is_enough_alone_once_it_says_stop(rule):
    assert doing(sign(rule, None, "stop")).action == "roll_back"
    assert doing(sign(rule, None, "act")) is None
    assert assess(verdicts(sign(rule, None, "stop"))).decisive


@pytest.mark.parametrize("rule", ["human_gain", "reward_flattened"])
def test_people_and_silent_scores_are_enough_alone_once_they_say_act(rule):
    assert doing(sign(rule, 0.95, "act")).action == "roll_back"
    assert doing(sign(rule, 0.8, "watch")) is None


def test_the_signs_stand_in_the_same_order_in_every_process():
    signs = [sign(rule, None, "stop") for rule in ("reward_saturation", "kl_bands", "not_finite")]
    alone = [rule for rule in RULES if rule in ("reward_saturation", "kl_bands", "not_finite")]
    assert list(assess(verdicts(*signs)).names) == alone


CONFIDENCES = st.dictionaries(
    st.sampled_from(list(RULES)), st.tuples(st.sampled_from(["watch", "act", "stop"]), st.floats(0, 1)), max_size=8
)


@settings(max_examples=200, deadline=None)
@given(signs=CONFIDENCES, rule=st.sampled_from(list(RULES)), more=st.floats(0, 1))
def test_a_surer_or_a_further_sign_never_makes_trouble_less_likely(signs, rule, more):
    spoken = [sign(name, confidence, level) for name, (level, confidence) in signs.items()]
    before = assess(verdicts(*spoken)).probability
    level, old = signs.get(rule, ("watch", 0.0))
    after = assess(verdicts(*spoken, sign(rule, max(old, more), level))).probability
    assert 0 <= before <= after + 1e-12 <= 1 + 1e-12


def test_trouble_dates_from_the_earliest_of_the_grave_signs():
    signs = [sign("kl_runaway", since=14), sign("off_distribution", since=11), sign("score_spread", 0.6, "watch", 3)]
    assert assess(verdicts(*signs)).since == 11
    assert assess(verdicts(signs[2])).since == 3
    assert assess(verdicts(sign("kl_runaway"))).since is None
    assert doing(*signs).since == 11


# -- deciding


def test_nothing_is_decided_without_signs_in_silence_or_soon_after_an_action():
    grave = [sign("kl_runaway"), sign("off_distribution")]
    assert decide({}, ACTS, Memory(), 1) is None
    assert doing() is None
    assert doing(*grave, config=GuardianConfig(mode="silent")) is None
    assert doing(*grave, memory=Memory(quiet_until=20)) is None
    assert doing(*grave, memory=Memory(quiet_until=19)) is not None


@pytest.mark.parametrize("rollbacks", [0, 1, 3])
def test_after_the_last_rollback_the_next_alarm_stops(rollbacks):
    config = GuardianConfig(actions=ActionsConfig(max_rollbacks=rollbacks))
    grave = [sign("kl_runaway"), sign("off_distribution")]
    actions = [doing(*grave, config=config, memory=Memory(rollbacks=n)).action for n in range(rollbacks + 2)]
    assert actions == ["roll_back"] * rollbacks + ["stop"] * 2


def test_a_stalled_policy_gets_a_lower_penalty_unless_it_is_in_trouble():
    stalled = sign("stalled", 0.7, "watch")
    decision = doing(stalled)
    assert (decision.action, decision.rules, decision.reason) == ("lower_kl", ("stalled",), stalled.message)
    assert doing(stalled, sign("kl_runaway"), sign("off_distribution")).action == "roll_back"


def test_judges_are_asked_in_doubt_where_there_are_some():
    doubt = sign("off_distribution")
    assert DOUBT <= assess(verdicts(doubt)).probability < SURE_ENOUGH
    assert doing(doubt) is None
    decision = doing(doubt, config=ASKS)
    assert (decision.action, decision.taken, decision.rules) == ("ask_humans", True, ("off_distribution",))
    assert doing(sign("off_distribution", 0.6, "watch"), config=ASKS) is None


# -- advice


def test_a_guardian_that_advises_says_the_same_and_does_nothing():
    for signs in (
        [sign("kl_runaway"), sign("off_distribution")],
        [sign("kl_bands", None, "stop")],
        [sign("stalled", 0.7, "watch")],
    ):
        would, says = doing(*signs), doing(*signs, config=ADVISES)
        assert would.taken
        assert not says.taken
        assert (says.action, says.rules, says.confidence) == (would.action, would.rules, would.confidence)


def test_a_rule_that_advises_is_heard_but_the_others_must_be_enough_for_themselves():
    config = GuardianConfig(rules={"kl_runaway": "advise"})
    two, three = [sign("kl_runaway"), sign("off_distribution")], sign("length_hacking")
    assert not doing(*two, config=config).taken
    assert set(doing(*two, config=config).rules) == {"kl_runaway", "off_distribution"}
    assert doing(*two, three, config=config).taken


def test_a_rule_that_advises_does_not_hide_another_of_its_family():
    config = GuardianConfig(rules={"unfamiliar_text": "advise"})
    signs = [sign("unfamiliar_text", 0.99), sign("off_distribution", 0.98), sign("kl_runaway")]
    assert doing(*signs, config=config).taken


def test_a_silent_rule_is_not_heard():
    config = GuardianConfig(rules={"kl_runaway": "silent", "stalled": "silent"})
    assert doing(sign("kl_runaway"), sign("off_distribution"), config=config) is None
    assert doing(sign("stalled", 0.7, "watch"), config=config) is None


def test_stalled_can_be_advice_too_and_advice_asks_nobody():
    config = GuardianConfig(rules={"stalled": "advise", "off_distribution": "advise"}, checks=CheckConfig(every=5))
    assert not doing(sign("stalled", 0.7, "watch"), config=config).taken
    assert doing(sign("off_distribution"), config=config) is None


@pytest.mark.parametrize(
    ("whole", "own", "found"),
    [
        ("act", "advise", "advise"),
        ("act", "silent", "silent"),
        ("advise", "act", "advise"),
        ("silent", "act", "silent"),
        ("advise", "silent", "silent"),
        ("act", None, "act"),
    ],
)
def test_a_rule_may_never_do_more_than_the_guardian(whole, own, found):
    config = GuardianConfig(mode=whole, rules={} if own is None else {"stalled": own})
    assert mode_of("stalled", config) == found


def test_a_recipe_names_rules_that_exist():
    assert set(get_args(RuleName)) == set(RULES)
    with pytest.raises(ConfigError, match=r"rules.kl_band: .* Did you mean 'kl_bands'\?"):
        load_config(GuardianConfig, None, ["rules.kl_band=advise"])
    assert load_config(GuardianConfig, None, ["rules.kl_bands=advise"]).rules == {"kl_bands": "advise"}


# -- in words and in settings


def test_the_reason_holds_every_sign_and_one_cause():
    found = assess(verdicts(sign("kl_runaway", 0.98), sign("off_distribution", 0.97)))
    assert because(found) == "kl_runaway spoke. off_distribution spoke. Cause of kl_runaway."
    assert because(assess({})) == ""


def test_the_record_of_a_decision_holds_its_evidence():
    record = doing(sign("kl_runaway", since=14), sign("off_distribution", since=11)).record()
    assert record["rules"] == ["kl_runaway", "off_distribution"]
    assert [one["message"] for one in record["evidence"]] == ["kl_runaway spoke.", "off_distribution spoke."]
    assert record["evidence"][0]["figures"] == {"figure": 1.0, "since": 14}
    assert record["confidence"] >= SURE_ENOUGH


def after(action, *rules, low=0.001, high=0.5, **now):
    decision = Decision(action=action, rules=rules, evidence=(), reason="", confidence=0.9)
    return corrected(Steering(**{"kl_coef": 0.05} | now), decision, ActionsConfig(kl_factor=3.0), low, high)


def test_after_a_rollback_the_kl_coefficient_rises_within_its_clamp():
    assert after("roll_back", "kl_runaway").kl_coef == pytest.approx(0.15)
    assert after("roll_back", "kl_runaway", kl_coef=0.3).kl_coef == 0.5
    assert after("roll_back", "kl_runaway", kl_coef=0.0).kl_coef == ActionsConfig().kl_least
    assert after("roll_back", "kl_runaway", kl_coef=0.9).kl_coef == 0.9  # set above the clamp: never lowered


def test_a_lower_penalty_stays_within_the_clamp():
    assert after("lower_kl", "stalled", kl_coef=0.3).kl_coef == pytest.approx(0.1)
    assert after("lower_kl", "stalled", kl_coef=0.002).kl_coef == 0.001


def test_what_is_gamed_gets_its_price():
    assert after("roll_back", "length_hacking", "kl_runaway").length_penalty == ActionsConfig().length_penalty
    assert after("roll_back", "length_hacking", length_penalty=0.8).length_penalty == 0.8
    assert after("roll_back", "incoherence").missing_eos_ceiling == ActionsConfig().missing_eos_ceiling
    assert after("roll_back", "incoherence", missing_eos_ceiling=-4.0).missing_eos_ceiling == -4.0


def test_answers_that_grow_alike_get_an_entropy_bonus_before_a_higher_penalty():
    alone = after("roll_back", "mode_collapse")
    assert (alone.entropy_coef, alone.kl_coef) == (ActionsConfig().entropy_coef, 0.05)
    both = after("roll_back", "mode_collapse", "off_distribution")
    assert (both.entropy_coef, both.kl_coef) == (ActionsConfig().entropy_coef, pytest.approx(0.15))


@pytest.mark.parametrize("action", ["stop", "ask_humans"])
def test_stopping_and_asking_change_no_setting(action):
    assert after(action, "length_hacking", "mode_collapse") == Steering(kl_coef=0.05)


def test_after_a_rollback_one_loud_sign_is_enough_to_doubt_the_newest_policy():
    loud = verdicts(sign("off_distribution", 0.96))
    assert not assess(loud).doubtful
    assert assess(loud, 1).doubtful
    assert assess(loud, 1).probability == assess(loud).probability


def test_judges_who_like_the_policy_take_off_what_their_verdicts_weigh_up_to_a_limit():
    signs = [sign("kl_runaway", 0.9), sign("off_distribution", 0.9)]
    for nats, off in ((0.5, 0.5), (9.0, CREDIT), (-1.0, 0.0), (None, 0.0)):
        liked = Verdict("ok", "human_gain", "", {"liked_nats": nats})
        expected = 1 / (1 + exp(-PRIOR - log(81) + off))
        assert assess(verdicts(*signs, liked)).probability == pytest.approx(expected)


def test_without_any_sign_rollbacks_alone_are_no_evidence():
    assert assess({}, 2).probability < 0.5
    assert not assess({}, 2).doubtful


# -- tightening


LIKELY_SIGNS = (sign("kl_runaway", 0.9), sign("off_distribution", 0.9))  # log 81 - 3 nats: 80 %


def test_one_kind_of_evidence_tightens_at_the_second_update_in_a_row():
    loud = sign("off_distribution")
    assert doing(loud, memory=Memory(likely_updates=1)) is None
    assert doing(loud, memory=Memory(likely_updates=2)).action == "tighten"


def test_two_kinds_of_evidence_tighten_at_once_and_once():
    assert doing(*LIKELY_SIGNS, memory=Memory(likely_updates=1)).action == "tighten"
    found = doing(*LIKELY_SIGNS, memory=Memory(likely_updates=2))
    assert (found.action, found.taken, found.rules) == ("tighten", True, ("kl_runaway", "off_distribution"))
    assert LIKELY <= found.confidence < SURE_ENOUGH
    assert doing(*LIKELY_SIGNS, memory=Memory(likely_updates=2, tightened=True)) is None
    assert doing(*LIKELY_SIGNS, memory=Memory(likely_updates=2, quiet_until=20)) is None


def test_certain_trouble_goes_back_though_settings_were_tightened():
    certain = [sign("kl_runaway"), sign("off_distribution")]
    assert doing(*certain, memory=Memory(likely_updates=2, tightened=True)).action == "roll_back"


def test_tightening_is_advice_where_the_recipe_wants_no_more():
    found = doing(*LIKELY_SIGNS, config=ADVISES, memory=Memory(likely_updates=2))
    assert (found.action, found.taken) == ("tighten", False)
    assert doing(*LIKELY_SIGNS, config=ADVISES, memory=Memory(likely_updates=2, advised_until=20)) is None


def test_tightening_changes_what_a_rollback_would_and_the_two_raise_the_kl_coefficient_once():
    now, actions = Steering(kl_coef=0.05), ActionsConfig(kl_factor=3.0)
    tighten = doing(*LIKELY_SIGNS, memory=Memory(likely_updates=2))
    tightened = corrected(now, tighten, actions, 0.0, 10.0)
    assert tightened == Steering(kl_coef=pytest.approx(0.15))
    back = doing(sign("kl_runaway"), sign("off_distribution"))
    assert corrected(tightened, back, actions, 0.0, 10.0, raised_by=3.0).kl_coef == pytest.approx(0.15)
    # the next trouble is another one
    assert corrected(tightened, tighten, actions, 0.0, 10.0, raised_by=3.0).kl_coef == pytest.approx(0.45)
    assert corrected(tightened, back, actions, 0.0, 10.0).kl_coef == pytest.approx(0.45)


def test_a_run_that_was_tightened_is_not_loosened_again():
    stalled = sign("stalled", 0.7, "watch")
    assert doing(stalled).action == "lower_kl"
    assert doing(stalled, memory=Memory(raised_by=2.0)) is None


# -- correcting the reward


BIASED = sign("reward_bias", 0.95)
CORRECTION = Correction(
    slope=0.5,
    prices=(0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    score_mean=0.1,
    score_std=0.6,
    means=(20.0,) * 7,
    spreads=(5.0,) * 7,
    shift=0.0,
    scale=1.0,
    gain=6.0,
    verdicts=60,
)


def test_judges_who_contradict_the_score_correct_it():
    found = doing(BIASED)
    assert (found.action, found.taken, found.rules) == ("correct_reward", True, ("reward_bias",))
    assert found.reason == "reward_bias spoke."
    assert doing(sign("reward_bias", 0.6, "watch")) is None
    assert doing(BIASED, memory=Memory(quiet_until=20)) is None
    assert doing(BIASED, config=GuardianConfig(actions=ActionsConfig(correct_reward=False))) is None


def test_correcting_is_advice_where_the_recipe_wants_no_more():
    for config in (ADVISES, GuardianConfig(rules={"reward_bias": "advise"})):
        assert (doing(BIASED, config=config).action, doing(BIASED, config=config).taken) == ("correct_reward", False)
        assert doing(BIASED, config=config, memory=Memory(advised_until=20)) is None


def test_a_bias_with_another_sure_sign_goes_back():
    assert doing(BIASED, sign("off_distribution")).action == "roll_back"


@pytest.mark.parametrize("action", ["correct_reward", "tighten", "roll_back"])
def test_what_verdicts_make_of_the_score_comes_with_every_remedy(action):
    decided = Decision(action=action, rules=("reward_bias",), evidence=(), reason="", confidence=0.9)
    now = Steering(kl_coef=0.1)
    assert corrected(now, decided, ActionsConfig(), 0.0, 1.0, correction=CORRECTION).correction == CORRECTION
    kept = replace(now, correction=CORRECTION)
    assert corrected(kept, decided, ActionsConfig(), 0.0, 1.0).correction == CORRECTION
    asked = replace(decided, action="ask_humans")
    assert corrected(now, asked, ActionsConfig(), 0.0, 1.0, correction=CORRECTION) == now


def test_with_a_corrected_reward_the_kl_coefficient_comes_down_to_where_it_began_and_no_further():
    relaxed = Decision(action="correct_reward", rules=(), evidence=(), reason="", confidence=0.9, relax=True)

    def down(now: float) -> float:
        return corrected(Steering(kl_coef=now), relaxed, ActionsConfig(kl_factor=2.0), 0.0, 1.0, initial=0.06).kl_coef

    assert [down(0.24), down(0.1), down(0.06), down(0.03)] == [0.12, 0.06, 0.06, 0.03]


def test_a_run_whose_reward_was_corrected_is_not_loosened_for_stalling():
    assert doing(sign("stalled", 0.7, "watch"), memory=Memory(corrected=60)) is None


def test_settings_survive_json_with_their_correction():
    for now in (Steering(kl_coef=0.1), Steering(kl_coef=0.1, length_penalty=0.5, correction=CORRECTION)):
        assert Steering.of(json.loads(json.dumps(now.record()))) == now
    assert Steering(kl_coef=0.1).told()["correction"] == "score alone"
    assert Steering(kl_coef=0.1, correction=CORRECTION).told()["correction"].startswith("score +0.50, surprisal -1.00")


def test_tightening_sets_the_price_of_what_is_gamed():
    signs = [sign("length_hacking", 0.9), sign("off_distribution", 0.9)]
    found = doing(*signs, memory=Memory(likely_updates=2))
    assert corrected(Steering(kl_coef=0.1), found, ActionsConfig(), 0.0, 10.0).length_penalty == 0.5


def test_tightened_settings_are_on_trial_by_the_figure_that_gave_the_alarm():
    figures = {"win_rate": 0.4, "kl_nats_per_sequence": 6.0, "kl_nats_per_sequence_before": 2.0, "since": 9}
    first = Verdict("watch", "human_gain", "", {"win_rate": 0.4}, "", "", 0.93)
    decided = doing(first, Verdict("act", "kl_runaway", "", figures, "", "", 0.9), memory=Memory(likely_updates=2))
    assert decided.action == "tighten"
    found = trial(decided, began=20, until=23)
    assert found == Trial(
        figure="kl_nats_per_sequence",
        before=2.0,
        at=6.0,
        began=20,
        until=23,
        since=9,
        rules=["human_gain", "kl_runaway"],
    )
    assert found.helped(4.0)
    assert not found.helped(4.1)
    fallen = replace(found, before=1.0, at=0.2)
    assert fallen.helped(0.7)
    assert not fallen.helped(0.5)


def test_without_a_figure_of_before_and_now_nothing_is_tried():
    told = Verdict("act", "human_gain", "", {"win_rate": 0.4, "since": 3}, "", "", 0.9)
    assert trial(doing(told, sign("kl_runaway", 0.8), memory=Memory(likely_updates=2)), 6, 9) is None
