import json

import pytest
import torch
from torch import nn

from keel.core.errors import ArtifactError
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import BestWeights, Checkpoints, restore_module, save_module
from keel.train.settings import OptimConfig


def network() -> tuple[nn.Module, Optimizer]:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    return module, Optimizer([ParameterGroup(parameters=trainable(module))], OptimConfig(learning_rate=0.1), 10)


def step(module: nn.Module, optimizer: Optimizer) -> None:
    module(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


@pytest.fixture
def saved(tmp_path):
    module, optimizer = network()
    step(module, optimizer)
    checkpoints = Checkpoints(tmp_path / "sft")
    checkpoints.save(1, modules={"policy": module}, optimizer=optimizer, state={"worse": 2})
    return checkpoints, module, optimizer


def test_a_checkpoint_brings_back_weights_optimiser_state_and_random_numbers(saved):
    checkpoints, module, optimizer = saved
    wanted_draw = torch.rand(3)
    step(module, optimizer)

    other, fresh = network()
    checkpoint = checkpoints.latest()
    assert (checkpoint.step, checkpoint.state) == (1, {"worse": 2})
    checkpoint.restore({"policy": other}, fresh)
    assert fresh.step_number == 1
    assert torch.equal(torch.rand(3), wanted_draw)
    step(other, fresh)
    assert all(torch.equal(a, b) for a, b in zip(weights(module), weights(other), strict=True))


def test_only_the_newest_checkpoint_is_kept_and_none_after_the_stage(saved):
    checkpoints, module, optimizer = saved
    checkpoints.save(12, modules={"policy": module}, optimizer=optimizer, state={})
    assert checkpoints.latest().step == 12
    assert len(list(checkpoints.folder.iterdir())) == 1
    checkpoints.clear()
    assert checkpoints.latest() is None
    checkpoints.clear()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("policy.safetensors", b"torn"),
        ("optimizer.safetensors", None),
        ("checkpoint.json", b"{"),
        ("checkpoint.json", b"[]"),
        ("checkpoint.json", b"{}"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_way_out(saved, file, content):
    checkpoints = saved[0]
    folder = checkpoints.latest().folder
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ArtifactError) as stop:
        checkpoints.latest()
    said = str(stop.value)
    assert str(folder) in said
    assert "Delete that folder" in said
    assert file in said


def test_a_checkpoint_of_another_model_is_refused(saved):
    checkpoint = saved[0].latest()
    other = nn.Linear(3, 3)
    optimizer = Optimizer([ParameterGroup(parameters=trainable(other))], OptimConfig(), 10)
    with pytest.raises(ArtifactError, match="another model"):
        checkpoint.restore({"policy": other}, optimizer)


def test_frozen_parameters_are_not_in_a_checkpoint(tmp_path):
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    save_module(module, tmp_path / "w.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert set(file.keys()) == {"1.weight", "1.bias"}


def test_a_shared_parameter_is_saved_once_and_restored_in_both_places(tmp_path):
    def tied() -> nn.Module:
        module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        module[1].weight = module[0].weight
        return module

    first, second = tied(), tied()
    save_module(first, tmp_path / "w.safetensors")
    from safetensors.torch import load_file

    restore_module(second, load_file(tmp_path / "w.safetensors"))
    assert second[0].weight is second[1].weight
    assert torch.equal(first[0].weight, second[1].weight)


def test_best_weights_come_back_whatever_happened_since(tmp_path):
    module, optimizer = network()
    best = BestWeights(tmp_path)
    best.keep(module)
    kept = weights(module)
    step(module, optimizer)
    assert not torch.equal(kept[0], module[0].weight)
    best.put_back(module)
    assert all(torch.equal(a, b) for a, b in zip(kept, weights(module), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_damaged_best_weights_are_named(tmp_path):
    module, _ = network()
    best = BestWeights(tmp_path)
    best.keep(module)
    best.path.write_bytes(json.dumps({}).encode())
    with pytest.raises(ArtifactError, match=r"best\.safetensors cannot be read"):
        best.put_back(module)
