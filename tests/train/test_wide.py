"""bfloat16 parameters moved in float32: exact halves, gradients added in float32, and small updates that count."""

import pytest
import torch
from helpers.tiny import VOCAB_SIZE, tiny_model
from torch import nn

from keel.train import wide as module
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig
from keel.train.wide import halves, joined

IDS = torch.randint(4, VOCAB_SIZE, (8, 24), generator=torch.Generator().manual_seed(0))


def optimizer_of(model: nn.Module, **settings) -> Optimizer:
    config = OptimConfig(**{"schedule": "constant", "warmup_share": 0.0, "eps": 1e-8, **settings})
    return Optimizer([ParameterGroup(parameters=trainable(model))], config, 100)


def loss_of(model: nn.Module) -> torch.Tensor:
    logits = model(input_ids=IDS).logits[:, :-1].float()
    return nn.functional.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten())


def trained(dtype: torch.dtype, steps: int = 60, **settings) -> nn.Module:
    model = tiny_model().to(dtype).train()
    optimizer = optimizer_of(model, **settings)
    for _ in range(steps):
        loss_of(model).backward()
        optimizer.divide_and_clip(1.0)
        optimizer.step()
    return model


def test_the_halves_of_a_float32_make_it_again():
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (200_000,), dtype=torch.int64, generator=generator).int()
    edges = torch.tensor([0.0, -0.0, 1.0, -1.0, 1.00390625, 1e-38, -1e-45, 3.0e38])
    numbers = torch.cat([bits.view(torch.float32), edges])
    numbers = numbers[numbers.abs() < 3.3e38]  # above, rounding up to bfloat16 gives infinity; nan is left out too
    upper, lower = halves(numbers)
    assert torch.equal(joined(upper, lower).view(torch.int32), numbers.view(torch.int32))
    nearest = numbers.bfloat16()
    ties = (numbers.view(torch.int32) & 0xFFFF) == 0x8000
    assert torch.equal(upper[~ties], nearest[~ties])


def test_one_step_is_adamws_step_on_the_float32_weight():
    # from 1.0 by 1e-3: half the distance to the next bfloat16 below is 2^-9 = 0.00195, so the model's weight stays
    model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.ones_(model.weight)
    optimizer = optimizer_of(model, learning_rate=1e-3)
    for step in range(1, 4):
        model.weight.grad = torch.ones(1, 1, dtype=torch.bfloat16)
        optimizer.step()
        held = joined(model.weight.data, optimizer.wide[0].lower).item()
        assert held == pytest.approx(1.0 - step * 1e-3, abs=1e-6)
        assert model.weight.item() == torch.tensor(held).bfloat16().item()
    assert model.weight.item() < 1.0  # three of them together are seen


@pytest.mark.parametrize("rate", [1e-4, 3e-4])
def test_bfloat16_learns_as_float32_does_where_plain_bfloat16_stalls(rate):
    begun = loss_of(tiny_model()).item()
    exact = loss_of(trained(torch.float32, learning_rate=rate)).item()
    assert begun - exact > 1.0
    assert loss_of(trained(torch.bfloat16, learning_rate=rate)).item() == pytest.approx(exact, abs=0.03)

    model = tiny_model().to(torch.bfloat16).train()  # planted: the optimiser moves the 16 bits themselves
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert begun - loss_of(model).item() < (0.2 if rate == 1e-4 else 0.7) * (begun - exact)


def test_gradients_of_several_passes_are_added_in_float32():
    # 256 + 1 + 1 is 256 in bfloat16, whose steps are 2 there; the mean must be 258 / 3
    model = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    optimizer = optimizer_of(model)
    for gradient in (256.0, 1.0, 1.0):
        (model.weight * gradient).sum().backward()
        assert model.weight.grad is None
    assert optimizer.divide_and_clip(3.0) == pytest.approx(86.0)
    seen = []
    optimizer.parts[0].register_step_pre_hook(lambda *_: seen.append(optimizer.wide[0].weight.grad.item()))
    optimizer.step()
    assert seen == [pytest.approx(1.0, abs=1e-6)]  # clipped to max_grad_norm


def test_the_norm_and_the_clip_are_over_parameters_of_both_precisions():
    half, full = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16), nn.Linear(1, 1, bias=False)
    config = OptimConfig(max_grad_norm=1.0)
    optimizer = Optimizer(
        [ParameterGroup(parameters=trainable(half)), ParameterGroup(parameters=trainable(full))], config, 1
    )
    (half.weight * 6).sum().backward()
    (full.weight * 8).sum().backward()
    assert optimizer.divide_and_clip(2.0) == pytest.approx(5.0)  # 3 and 4
    assert full.weight.grad.item() == pytest.approx(0.8)
    assert (optimizer.wide[0].grad.float() * optimizer.wide_scale).item() == pytest.approx(0.6)


def test_a_large_model_is_moved_piece_by_piece_to_the_same_bits(monkeypatch):
    whole = trained(torch.bfloat16, steps=3, learning_rate=1e-3)
    monkeypatch.setattr(module, "CHUNK", 1000)
    pieces = trained(torch.bfloat16, steps=3, learning_rate=1e-3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), pieces.parameters(), strict=True))


def test_between_steps_a_parameter_costs_two_bytes_more_than_adamws_eight():
    model = trained(torch.bfloat16, steps=0)
    optimizer = optimizer_of(model)
    loss_of(model).backward()
    optimizer.step()
    held = {name: tensor for name, tensor in optimizer.tensors().items() if not name.endswith("step")}
    held.pop("step_number")
    size = sum(p.numel() for p in model.parameters())
    assert sum(t.numel() * t.element_size() for t in held.values()) == 10 * size
    assert all(wide.weight.numel() == 0 and wide.grad is None for wide in optimizer.wide)


def test_a_dropped_optimizer_no_longer_takes_gradients():
    model = nn.Linear(2, 2, dtype=torch.bfloat16)
    optimizer_of(model)
    model(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
    assert model.weight.grad is not None


def test_after_a_refused_step_no_gradient_is_left():
    model = nn.Linear(2, 2, dtype=torch.bfloat16)
    optimizer = optimizer_of(model)
    model(torch.full((1, 2), float("inf"), dtype=torch.bfloat16)).sum().backward()
    assert not torch.isfinite(torch.tensor(optimizer.divide_and_clip(1.0)))
    optimizer.drop_gradients()
    before = model.weight.detach().clone()
    optimizer.step()
    assert torch.equal(model.weight, before)
