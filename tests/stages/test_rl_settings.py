"""What a recipe may say of REINFORCE++, online DPO, dynamic sampling and overlong answers."""

import pytest

from keel.core.config import load_config
from keel.core.errors import ConfigError
from keel.stages.recipe import Recipe
from keel.stages.telling import silence_verdict

RL = {
    "model": {"path": "m"},
    "data": {"prompts": {"path": "p.jsonl"}},
    "ppo": {"rewards": [{"name": "r", "python": "r.py:r"}]},
}


def rl(*overrides: str):
    return load_config(Recipe, None, list(overrides), base=RL).ppo


@pytest.mark.parametrize("algorithm", ["online_dpo", "reinforce_pp"])
def test_the_settings_in_use_are_those_of_the_algorithm(algorithm):
    config = rl(f"ppo.algorithm={algorithm}", f"ppo.{algorithm}.epochs=3")
    assert config.method is getattr(config, algorithm)
    assert config.method.epochs == 3
    assert config.kl.warning is None


def test_one_sample_a_prompt_is_enough_where_all_are_compared_with_all():
    assert not rl("ppo.algorithm=reinforce_pp", "ppo.samples=1").compares_samples
    assert rl("ppo.algorithm=reinforce_pp", "ppo.reinforce_pp.baseline=prompt").compares_samples


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ppo.algorithm=online_dpo", "ppo.samples=1"], "online_dpo compares the samples of a prompt: samples=1"),
        (["ppo.algorithm=reinforce_pp", "ppo.reinforce_pp.baseline=prompt", "ppo.samples=1"], "samples=1"),
        (["ppo.algorithm=reinforce_pp", "ppo.reinforce_pp.resample_tries=2"], "Set baseline: prompt"),
        (["ppo.algorithm=online_dpo", "ppo.kl.initial=0"], "the beta of online_dpo is kl.initial, and it is 0"),
        (["ppo.algorithm=online_dpo", "ppo.kl.placement=loss"], "there is no penalty that kl.estimator"),
        (["ppo.algorithm=online_dpo", "ppo.kl.preset=grpo"], "Leave both out"),
        (["ppo.max_new_tokens=16", "ppo.shaping.overlong_buffer=17"], "longer than a response may be"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_way_out(overrides, message):
    with pytest.raises(ConfigError) as refused:
        rl(*overrides)
    assert message in str(refused.value)


def test_dynamic_sampling_comes_with_dapo_and_a_field_beside_it_wins():
    assert rl("ppo.algorithm=grpo").resample_tries == 0
    assert rl("ppo.algorithm=grpo", "ppo.grpo.preset=dapo").resample_tries == 2
    assert rl("ppo.algorithm=grpo", "ppo.grpo={preset: dapo, resample_tries: 5}").resample_tries == 5
    assert rl().resample_tries == 0


def figures(without: int, extra: int, left: int) -> dict[str, float]:
    return {"prompts_without_signal": without, "extra_prompts": extra, "prompts_left_without_signal": left}


def test_a_large_share_of_prompts_without_signal_gets_a_word():
    assert silence_verdict(figures(5, 0, 5), prompts=10, tries=0) is None
    verdict = silence_verdict(figures(6, 0, 6), prompts=10, tries=0)
    assert verdict.rule == "no_signal"
    assert "6 of 10 prompts are all paid alike" in verdict.message
    assert "resample_tries" in verdict.remedy


def test_what_dynamic_sampling_could_not_replace_gets_a_word_and_what_it_could_does_not():
    assert silence_verdict(figures(9, 9, 0), prompts=10, tries=2) is None
    verdict = silence_verdict(figures(9, 8, 1), prompts=10, tries=2)
    assert "even after 8 more prompts, 1 of 10 places could not be filled with others" in verdict.message
