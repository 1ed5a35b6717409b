"""What a recipe may say, and what it may not."""

import pytest

from keel.core.config import load_config
from keel.core.errors import ConfigError
from keel.stages.recipe import Recipe
from keel.stages.telling import clipping_verdict

RL = {
    "model": {"path": "m"},
    "data": {"prompts": {"path": "p"}},
    "ppo": {"rewards": [{"name": "r", "python": "r.py:r"}]},
}
BASE = {"model": {"path": "m"}, "data": {"demonstrations": {"path": "d.jsonl"}}, "sft": {}}


def test_a_model_in_four_bits_is_trained_with_adapters_only():
    with pytest.raises(ConfigError, match=r"4 bits, which cannot be trained, and sft would .*`lora: \{\}`"):
        load_config(Recipe, None, ["model.quantise=4bit"], base=BASE)
    assert load_config(Recipe, None, ["model.quantise=4bit", "sft.lora={rank: 4}"], base=BASE).sft.lora.rank == 4


def test_all_weights_may_be_trained_in_bfloat16():
    assert load_config(Recipe, None, ["model.dtype=bfloat16"], base=BASE).sft.lora is None


def test_one_key_of_an_optimiser_leaves_the_others_as_the_stage_has_them():
    optim = load_config(Recipe, None, ["sft.optim.learning_rate=1e-4"], base=BASE).sft.optim
    assert (optim.learning_rate, optim.schedule, optim.eps) == (1e-4, "cosine", 1e-8)


def test_grpo_brings_its_own_penalty_and_a_field_beside_it_wins():
    def kl(*overrides):
        return load_config(Recipe, None, ["ppo.algorithm=grpo", *overrides], base=RL).ppo.kl

    found = kl()
    assert (found.estimator, found.placement, found.controller, found.initial) == ("k3", "loss", "fixed", 0.04)
    assert (kl("ppo.kl.initial=0.1").estimator, kl("ppo.kl.initial=0.1").initial) == ("k3", 0.1)
    assert kl("ppo.kl={preset: source_a}").estimator == "k1"
    again = load_config(Recipe, None, base=load_config(Recipe, None, ["ppo.algorithm=grpo"], base=RL).model_dump())
    assert again.ppo.kl == found
    assert load_config(Recipe, None, base=RL).ppo.kl.estimator == "k1"


def test_one_word_turns_grpo_into_its_corrections():
    def grpo(*overrides):
        return load_config(Recipe, None, ["ppo.algorithm=grpo", *overrides], base=RL).ppo.grpo

    assert (grpo().scale, grpo().average, grpo().clip_high) == ("std", "responses", 0.2)
    assert (grpo("ppo.grpo.preset=dr_grpo").scale, grpo("ppo.grpo.preset=dr_grpo").average) == ("none", "constant")
    dapo = grpo("ppo.grpo={preset: dapo, clip_low: 0.1}")
    assert (dapo.average, dapo.clip_low, dapo.clip_high) == ("tokens", 0.1, 0.28)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_methods_that_compare_samples_need_two(algorithm):
    with pytest.raises(ConfigError, match=rf"{algorithm} compares the samples of a prompt: samples=1"):
        load_config(Recipe, None, [f"ppo.algorithm={algorithm}", "ppo.samples=1"], base=RL)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["prefer={}"], "prefer needs data.comparisons"),
        (
            ["prefer={lora: {dropout: 0.1}}", "data.comparisons.path=c.jsonl"],
            "which dropout would disturb, so it is not applied there. Leave it out",
        ),
        (
            ["prefer={}", "data.comparisons.path=c.jsonl", "ppo={rewards: [{name: r, python: r.py:r}]}"],
            "ppo and prefer would each train the policy from SFT on. Say which with one word",
        ),
        (
            ["prefer.dpo={label_smoothing: 0.1, label_noise: 0.1}", "data.comparisons.path=c.jsonl"],
            "opposite directions",
        ),
    ],
)
def test_what_cannot_both_be_meant_is_refused(overrides, message):
    with pytest.raises(ConfigError) as refused:
        load_config(Recipe, None, overrides, base={"model": {"path": "m"}})
    assert message in str(refused.value)


def test_a_clip_that_cuts_most_scores_off_says_what_to_set():
    verdict = clipping_verdict(0.9)
    assert verdict.level == "watch"
    assert "90%" in verdict.message
    assert "running" in verdict.remedy
