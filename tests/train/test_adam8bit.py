"""AdamW with 8-bit states: as good on a toy task, a quarter of the state, and the same bits after a pause."""

import pytest
import torch
from helpers.tiny import tiny_model
from torch import nn

from keel.core.errors import ConfigError
from keel.models import extras
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig

pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")


def optimizer_of(model: nn.Module, name: str = "adamw8bit", **settings) -> Optimizer:
    config = OptimConfig(name=name, schedule="constant", warmup_share=0.0, **settings)
    return Optimizer([ParameterGroup(parameters=trainable(model))], config, 100)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.Tanh(), nn.Linear(256, 64))


def losses(model: nn.Module, optimizer: Optimizer, steps: int, first: int = 0) -> list[float]:
    teacher = torch.randn(64, 64, generator=torch.Generator().manual_seed(9)) / 8
    out = []
    for number in range(first, first + steps):
        x = torch.randn(128, 64, generator=torch.Generator().manual_seed(number))
        loss = (model(x) - torch.tanh(x @ teacher)).square().mean()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
    return out


def test_it_learns_as_32_bits_do():
    model = network()
    found = losses(model, optimizer_of(model, learning_rate=3e-3), 100)
    model = network()
    wanted = losses(model, optimizer_of(model, "adamw", learning_rate=3e-3), 100)
    assert wanted[-1] < 0.2 * wanted[0]
    assert sum(found[-10:]) == pytest.approx(sum(wanted[-10:]), rel=0.05)


def test_a_parameter_has_two_bytes_of_state_and_small_tensors_eight():
    model = network()
    optimizer = optimizer_of(model)
    losses(model, optimizer, 1)
    tensors = optimizer.tensors()
    sizes = [0] * 4  # the two weights and biases
    for name, tensor in tensors.items():
        if name.startswith("0.") and not name.endswith("step"):
            sizes[int(name.split(".")[1])] += tensor.numel() * tensor.element_size()
    weight, bias = 64 * 256, 256
    assert sizes[0] == sizes[2] == 2 * weight + 2 * 4 * weight // 256  # 8 bits each, and a scale for every 256
    assert sizes[1] == 8 * bias
    assert not any("qmap" in name for name in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_to_the_same_bits(dtype):
    def model() -> nn.Module:
        return tiny_model(hidden_size=64, intermediate_size=96).to(dtype)

    def steps(model: nn.Module, optimizer: Optimizer, first: int) -> None:
        for number in range(first, first + 3):
            for index, p in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(1000 * number + index)
                p.grad = torch.randn(p.shape, generator=generator).to(dtype)
            optimizer.step()

    straight, stopped = model(), model()
    whole = optimizer_of(straight, learning_rate=1e-3, weight_decay=0.1)
    steps(straight, whole, 0)
    steps(straight, whole, 3)
    first = optimizer_of(stopped, learning_rate=1e-3, weight_decay=0.1)
    steps(stopped, first, 0)
    state = {name: tensor.clone() for name, tensor in first.tensors().items()}
    assert {tensor.dtype for tensor in state.values()} >= {torch.uint8, torch.float32}
    second = optimizer_of(stopped, learning_rate=1e-3, weight_decay=0.1)
    second.load_tensors(state)
    steps(stopped, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), stopped.parameters(), strict=True))
    again, wanted = second.tensors(), whole.tensors()
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)


def test_without_the_library_one_error_names_the_setting_and_the_command(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as stop:
        optimizer_of(network())
    assert "optim.name: adamw8bit" in str(stop.value)
    assert "pip install 'keel-rlhf[quant]'" in str(stop.value)
