"""Which method is advised, why, and what is said beside it."""

import pytest
from helpers.advised import EIGHT_GPUS, LAPTOP, advised, agreeing, facts

from keel.advise.facts import majority_error
from keel.advise.methods import METHODS
from keel.advise.rules import RULES
from keel.stages.recipe import Recipe

VERIFIABLE, AI = frozenset({"verifiable"}), frozenset({"ai"})
PAIRS = {"comparisons": 30_000}
CASES = {
    "comparisons on one GPU": ("dpo", PAIRS),
    "clean comparisons on a laptop": (
        "dpo",
        {**PAIRS, "agreement": agreeing(0.7), "hardware": LAPTOP, "parameters": 2e7},
    ),
    "raters who always agree": ("ipo", {**PAIRS, "agreement": agreeing(0.99)}),
    "maths that a program checks": (
        "grpo",
        {"prompts": 7_000, "rewards": VERIFIABLE, "goal": "maths", "scope": "narrow"},
    ),
    "a rule that a program checks": ("grpo", {"prompts": 7_000, "rewards": VERIFIABLE}),
    "checked answers beside clean comparisons": (
        "grpo",
        {**PAIRS, "prompts": 7_000, "agreement": agreeing(0.7), "rewards": VERIFIABLE | {"people"}},
    ),
    "labels while training, on eight GPUs": ("rloo", {**PAIRS, "fresh": True, "hardware": EIGHT_GPUS}),
    "labels while training, on one": ("iterative_dpo", {**PAIRS, "fresh": True}),
    "the highest reward, on eight GPUs": (
        "ppo",
        {**PAIRS, "comparisons": 150_000, "priority": "reward", "hardware": EIGHT_GPUS, "parameters": 7e9},
    ),
    "thumbs alone": ("kto", {"ratings": 5_000, "rewards": frozenset({"thumbs"})}),
    "thumbs and a few comparisons": ("kto", {"ratings": 5_000, "comparisons": 300}),
    "a judge alone": ("rlaif", {"prompts": 2_000, "rewards": AI}),
    "a judge for safety": ("cai", {"prompts": 2_000, "rewards": AI, "goal": "safety"}),
    "a judge with principles": ("cai", {"prompts": 2_000, "rewards": AI, "constitution": "principles.yaml"}),
    "people before a judge": ("dpo", {**PAIRS, "rewards": AI | {"people"}}),
    "demonstrations alone": ("sft", {"demonstrations": 9_000, "rewards": frozenset()}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_situation_has_its_method(case):
    method, changes = CASES[case]
    advice = advised(**changes)
    assert advice.method is not None, advice.verdict
    assert (advice.method.name, advice.verdict.level) == (method, "ok"), advice.scores
    assert advice.fit is not None
    assert advice.fit.fits
    assert any(one.rule.weights.get(method, 0) > 0 for one in advice.fired)


def test_every_rule_fires_somewhere_and_is_silent_somewhere():
    found = [one for _, changes in CASES.values() for one in advised(**changes).found]
    found += advised(**PAIRS, longer_wins=0.8, agreement=agreeing(0.5, 0.75), chat=False).found
    found += advised(comparisons=900, parameters=7e10, hardware=EIGHT_GPUS).found
    for rule in RULES:
        told = {one.fired for one in found if one.rule is rule}
        assert told == {True, False}, rule.name


def test_rules_speak_of_methods_that_exist_and_name_their_source():
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert set(rule.weights) <= set(METHODS), rule.name
        assert rule.source


def test_raters_who_disagree_block_training_and_the_advice_says_what_comes_after():
    advice = advised(**PAIRS, agreement=agreeing(0.3, 0.6))
    assert advice.method is None
    assert (advice.verdict.level, advice.verdict.rule) == ("stop", "labels_first")
    assert advice.later is METHODS["dpo"]
    assert advice.caveats[0].rule == "agreement"
    assert advice.caveats[0].level == "stop"


def test_who_insists_is_advised_as_usual_and_the_verdict_on_the_labels_stays():
    advice = advised(**PAIRS, agreement=agreeing(0.3, 0.6), override="the guide has been changed since")
    assert advice.method is METHODS["dpo"]
    assert advice.caveats[0].level == "stop"


def test_what_needs_no_labels_is_advised_although_raters_disagree():
    advice = advised(**PAIRS, agreement=agreeing(0.3), rewards=VERIFIABLE | {"people"}, prompts=500)
    assert advice.method is METHODS["grpo"]
    assert "agree too little" in advice.excluded["dpo"]


def test_a_model_too_large_for_the_memory_is_refused_with_the_largest_that_fits():
    advice = advised(**PAIRS, parameters=7e10, hardware=LAPTOP)
    assert advice.verdict.rule == "too_large"
    assert 1.5e10 < advice.verdict.figures["largest_parameters"] < 2.2e10
    assert "does not fit" in advice.excluded["dpo"]


def test_nothing_to_learn_from_says_where_to_begin():
    advice = advised(rewards=frozenset())
    assert advice.verdict.rule == "nothing_to_learn_from"
    assert "keel sample" in advice.verdict.remedy


def test_memory_decides_how_a_model_is_held():
    def held(parameters, method="dpo"):
        changes = PAIRS if method == "dpo" else {**PAIRS, "fresh": True, "hardware": EIGHT_GPUS}
        fit = advised(**changes, parameters=parameters).fit
        return fit.rung.name, fit.one_trunk

    assert held(1e8) == ("all weights, float32", False)
    assert held(1e9) == ("all weights, bfloat16", False)
    assert held(7e9) == ("all weights, bfloat16, 8-bit AdamW", False)
    assert held(13e9) == ("LoRA, bfloat16", False)
    assert held(70e9) == ("LoRA on 4-bit weights", False)
    assert held(7e9, "rloo") == ("LoRA, bfloat16", True)


def test_the_arithmetic_is_that_of_the_memory_page():
    # docs/memory.md: PPO with 7 billion parameters in bfloat16 with 8-bit AdamW takes 135 GB, a critic included
    from keel.advise.memory import RUNGS, bytes_a_parameter

    assert bytes_a_parameter("critic", RUNGS[0], learned_judge=True) == 40
    assert bytes_a_parameter("critic", RUNGS[1], learned_judge=True) == 32
    assert bytes_a_parameter("critic", RUNGS[2], learned_judge=True) == 20
    assert bytes_a_parameter("pairs", RUNGS[1], learned_judge=False) == 14


def test_label_noise_follows_from_agreement():
    # Two votes that are each wrong one time in ten agree with 0.82; two of three err with 3 * 0.01 * 0.9 + 0.001.
    assert agreeing(0.64, 0.82, votes=3).label_noise == pytest.approx(0.028)
    assert agreeing(0.64, 0.82, votes=1).label_noise == pytest.approx(0.1)
    assert majority_error(0.1, 2) == pytest.approx(0.1)
    assert majority_error(0.5, 5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("agreement", {**PAIRS, "agreement": agreeing(0.5, 0.75)}),
        ("label_noise", {**PAIRS, "agreement": agreeing(0.5, 0.75)}),
        ("agreement_unknown", PAIRS),
        ("few_comparisons", {"comparisons": 900}),
        ("length_bias", {**PAIRS, "longer_wins": 0.7}),
        ("judge_unproven", {"prompts": 900, "rewards": AI}),
        ("checkable", {**PAIRS, "goal": "maths"}),
        ("reward_model_once", {**PAIRS, "priority": "reward", "hardware": EIGHT_GPUS}),
        ("grpo_optimum", {"prompts": 900, "rewards": VERIFIABLE}),
        ("no_sft", {**PAIRS, "chat": False}),
        ("one_gpu", {**PAIRS, "hardware": EIGHT_GPUS}),
        ("slow", {**PAIRS, "hardware": LAPTOP}),
    ],
)
def test_each_caveat_is_said_where_it_holds_and_only_there(rule, changes):
    assert rule in [caveat.rule for caveat in advised(**changes).caveats]
    calm = {**PAIRS, "agreement": agreeing(0.8, 0.9), "longer_wins": 0.5}
    assert rule not in [caveat.rule for caveat in advised(**calm).caveats]


def test_the_runner_up_comes_with_the_moment_to_switch():
    advice = advised(**PAIRS)
    assert advice.runner_up is METHODS["rloo"]
    assert "no comparison is" in advice.runner_up.switch


def test_blocked_and_usable_follow_the_line_of_the_thresholds():
    on_the_line = facts(**PAIRS, agreement=agreeing(0.4))
    assert not on_the_line.blocked
    assert on_the_line.usable == 30_000
    below = facts(**PAIRS, agreement=agreeing(0.39))
    assert below.blocked
    assert below.usable == 0


def test_the_sections_of_advice_exist_in_recipes():
    assert {"model", "data", "sft", "reward", "prefer", "ppo", "rounds", "evaluate"} <= set(Recipe.model_fields)
