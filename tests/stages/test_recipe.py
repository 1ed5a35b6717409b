"""What a recipe may say, and what it may not."""

import pytest

from keel.core.config import load_config
from keel.core.errors import ConfigError
from keel.stages.align import clipping_verdict
from keel.stages.recipe import Recipe

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


def test_a_clip_that_cuts_most_scores_off_says_what_to_set():
    verdict = clipping_verdict(0.9)
    assert verdict.level == "watch"
    assert "90%" in verdict.message
    assert "running" in verdict.remedy
