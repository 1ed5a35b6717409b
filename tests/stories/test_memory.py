"""Whole runs that save memory: the same bits where nothing changes but memory, and no trained step lost elsewhere."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.recipes import Ran, Workplace
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from keel.core.errors import ConfigError
from keel.core.files import file_sha256
from keel.models import extras
from keel.stages.policy import PolicyFiles, load_policy

IDS = torch.arange(4, 24)[None]
LORA = {"rank": 4}
ADAPTERS: dict[str, Any] = {stage: {"lora": LORA} for stage in ("sft", "reward", "ppo")}


def weights(ran: Ran) -> dict[str, str]:
    files = sorted((ran.directory / "artifacts").rglob("*.safetensors"))
    return {path.relative_to(ran.directory).as_posix(): file_sha256(path) for path in files}


@pytest.mark.parametrize("changes", [{}, ADAPTERS], ids=["full", "lora"])
def test_checkpointing_changes_no_bit_of_any_stage_and_no_stages_identity(changes, tmp_path):
    place = Workplace(tmp_path, num_hidden_layers=3)
    plain = place.run(to="plain", **changes)
    model = {"path": str(tmp_path / "model"), "gradient_checkpointing": True}
    again = place.run(to="again", **changes, model=model)
    assert weights(again) == weights(plain)
    assert len(weights(plain)) >= 3


@pytest.mark.parametrize("name", ["adamw", "adamw8bit"])
def test_every_weight_is_trained_in_bfloat16(name, tmp_path):
    if name == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    optim = {stage: {"optim": {"name": name, "learning_rate": 1e-3}} for stage in ("sft", "reward", "ppo")}
    place = Workplace(tmp_path, hidden_size=64, intermediate_size=96)
    ran = place.run(model={"path": str(tmp_path / "model"), "dtype": "bfloat16"}, **optim)
    figures = ran.artifact("sft").metrics
    assert figures["perplexity"] < figures["perplexity_before"]
    saved = load_file(ran.artifact("sft").path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}


def test_in_four_bits_each_stage_begins_with_what_the_last_one_trained(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    place = Workplace(tmp_path)
    model = {"path": str(tmp_path / "model"), "quantise": "4bit"}
    with pytest.raises(ConfigError, match=r"which cannot be trained, and .*sft"):
        place.recipe(model=model)
    recipe = place.recipe(model=model, **ADAPTERS)
    ran = place.run(model=model, **ADAPTERS)
    base = PolicyFiles.of_model(recipe.model)
    policies = {stage: load_policy(base.of_artifact(ran.artifact(stage))) for stage in ("sft", "ppo")}
    assert not torch.equal(logits(policies["sft"]), logits(load_policy(base)))
    for stage, policy in policies.items():
        plain = AutoModelForCausalLM.from_pretrained(ran.artifact(stage).path / "model").eval()
        torch.testing.assert_close(logits(plain), logits(policy), atol=1e-4, rtol=1e-4)
    whole = load_file(Path(ran.artifact("ppo").path) / "adapter" / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in whole.items() if "lora_A" in name} == {8}  # of SFT and of RL


def test_four_roles_share_one_trunk_in_four_bits(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    place, found = Workplace(tmp_path), []
    for layout, critic in (("separate", {"ppo": {"critic": "trunk"}}), ("one_trunk", {})):
        changes = {**ADAPTERS, "ppo": {"lora": LORA, "layout": layout, "keep": "last", **critic}}
        ran = place.run(to=layout, model={"path": str(tmp_path / "model"), "quantise": "4bit"}, **changes)
        found.append([event for event in ran.events("step") if event["stage"] == "ppo"])
    assert len(found[0]) == len(found[1]) > 1
    for apart, shared in zip(*found, strict=True):
        for name in ("score_mean", "loss", "kl_nats_per_sequence", "grad_norm", "first_log_ratio_max"):
            assert shared[name] == pytest.approx(apart[name], abs=1e-4, rel=1e-3), name


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["model.quantise=4bit", *(f"{stage}.lora={{}}" for stage in ADAPTERS)], r"model\.quantise: 4bit"),
        (["ppo.optim.name=adamw8bit"], r"ppo\.optim\.name: adamw8bit"),
    ],
)
def test_a_missing_library_is_found_before_anything_is_trained(settings, named, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=named):
        Workplace(tmp_path).run(settings)
    assert not (tmp_path / "run" / "artifacts").exists()


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


def test_a_policy_that_was_trained_in_four_bits_is_not_quantised_again(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    place, only = Workplace(tmp_path), {"sft": {"lora": LORA}, "reward": None, "ppo": None, "evaluate": None}
    model = {"path": str(tmp_path / "model"), "quantise": "4bit"}
    trained = place.run(to="first", model=model, **only).artifact("sft").path / "model"
    moved = trained.rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"round nearly all of that training away.*one recipe"):
        place.run(to="second", model={**model, "path": str(moved)}, **only)
    place.run(to="second", model={"path": str(moved)}, **only)


def test_a_policy_that_adapters_trained_in_full_precision_may_be_quantised(tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
    place, only = Workplace(tmp_path), {"sft": {"lora": LORA}, "reward": None, "ppo": None, "evaluate": None}
    trained = place.run(to="first", **only).artifact("sft").path / "model"
    ran = place.run(to="second", model={"path": str(trained), "quantise": "4bit"}, **only)
    assert math.isfinite(ran.stages["sft"]["perplexity"])
