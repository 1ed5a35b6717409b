import pytest
import torch
from helpers.tiny import tiny_model
from torch import nn

from keel.core.errors import ConfigError
from keel.train.optim import Optimizer, ParameterGroup, is_hidden_matrix, trainable
from keel.train.settings import OptimConfig


def optimizer_of(module: nn.Module, total: int = 10, rate: float | None = None, **settings) -> Optimizer:
    return Optimizer([ParameterGroup(parameters=trainable(module), learning_rate=rate)], OptimConfig(**settings), total)


def scales(total: int, **settings) -> list[float]:
    optimizer = optimizer_of(nn.Linear(1, 1), total, **settings)
    out = []
    for optimizer.step_number in range(total + 1):
        out.append(optimizer.scale())
    return out


def take_steps(module: nn.Module, optimizer: Optimizer, count: int, first: int = 0) -> None:
    """Steps with gradients that depend on the step's number alone."""
    for number in range(first, first + count):
        for index, p in enumerate(module.parameters()):
            generator = torch.Generator().manual_seed(1000 * number + index)
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()


def test_the_rate_climbs_evenly_then_falls_in_a_line_to_the_final_share():
    found = scales(12, warmup_share=0.167, schedule="linear", final_share=0.2)  # two steps of warm-up
    assert found[:2] == [0.5, 1.0]
    assert found[2:] == pytest.approx([0.2 + 0.8 * (1 - n / 10) for n in range(11)])
    assert found[-1] == pytest.approx(0.2)


def test_the_cosine_is_halfway_in_the_middle():
    found = scales(8, warmup_share=0.0, schedule="cosine", final_share=0.0)
    assert found[0] == 1.0
    assert found[4] == pytest.approx(0.5)
    assert found[8] == pytest.approx(0.0)
    assert found[2] > 0.75 > found[3] > 0.5


def test_a_constant_rate_still_warms_up():
    assert scales(4, warmup_share=0.5, schedule="constant", final_share=0.1) == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_steps_beyond_the_plan_keep_the_final_rate():
    optimizer = optimizer_of(nn.Linear(1, 1), 5, warmup_share=0.0, final_share=0.3)
    optimizer.step_number = 50
    assert optimizer.scale() == pytest.approx(0.3)


def test_a_step_moves_by_the_scheduled_rate_and_drops_the_gradient():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    optimizer = optimizer_of(module, 4, learning_rate=0.1, warmup_share=0.5, eps=1e-12)
    for wanted in (0.05, 0.1):  # the first Adam step is learning_rate · sign(gradient)
        assert optimizer.learning_rate == pytest.approx(wanted)
        module.weight.grad = torch.full((1, 1), 7.0)
        before = module.weight.item()
        optimizer.step()
        assert before - module.weight.item() == pytest.approx(wanted, rel=1e-5)
        assert module.weight.grad is None
    assert optimizer.step_number == 2


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest():
    model = tiny_model("llama")
    optimizer = optimizer_of(model, name="muon", learning_rate=1e-3, muon_learning_rate=0.02)
    adamw, muon = optimizer.parts
    names = {id(p): name for name, p in model.named_parameters()}
    by_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    by_adamw = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw
    assert all("self_attn" in name or "mlp" in name for name in by_muon)
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= by_adamw
    assert [optimizer.peaks[0][0], optimizer.peaks[1][0]] == [1e-3, 0.02]


@pytest.mark.parametrize(
    ("name", "shape", "hidden"),
    [
        ("layers.0.mlp.up_proj.weight", (3, 4), True),
        ("layers.0.input_layernorm.weight", (4,), False),
        ("embed_tokens.weight", (9, 4), False),
        ("lm_head.weight", (9, 4), False),
        ("score.weight", (1, 4), False),
        ("value_head.weight", (1, 4), False),
    ],
)
def test_what_counts_as_a_hidden_matrix(name, shape, hidden):
    assert is_hidden_matrix(name, torch.zeros(shape)) is hidden


def test_a_group_may_have_a_rate_of_its_own():
    policy, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    optimizer = Optimizer(
        [
            ParameterGroup(parameters=trainable(policy)),
            ParameterGroup(parameters=trainable(critic), learning_rate=0.5),
        ],
        OptimConfig(learning_rate=0.1),
        10,
    )
    assert optimizer.peaks == [[0.1, 0.5]]


def test_frozen_parameters_are_left_out_and_nothing_to_train_is_an_error():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    assert [name for name, _ in trainable(module, "head.")] == ["head.weight"]
    module.weight.requires_grad_(False)
    with pytest.raises(ConfigError, match="frozen"):
        optimizer_of(module)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adamw_is_torchs_fused_one_whatever_the_precision_of_the_model(dtype):
    module = nn.Linear(2, 2, dtype=dtype)
    optimizer = optimizer_of(module)
    take_steps(module, optimizer, 1)
    (adamw,) = optimizer.parts
    assert type(adamw) is torch.optim.AdamW
    assert all(group["fused"] for group in adamw.param_groups)
    assert {state["exp_avg"].dtype for state in adamw.state.values()} == {torch.float32}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_saved_state_goes_on_to_the_same_bits(name):
    straight, stopped = (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
    stopped.load_state_dict(straight.state_dict())
    settings = {"name": name, "learning_rate": 0.01, "weight_decay": 0.1}
    whole = optimizer_of(straight, 6, **settings)
    take_steps(straight, whole, 6)

    first = optimizer_of(stopped, 6, **settings)
    take_steps(stopped, first, 3)
    state = {key: value.clone() for key, value in first.tensors().items()}
    second = optimizer_of(stopped, 6, **settings)
    second.load_tensors(state)
    take_steps(stopped, second, 3, first=3)

    assert second.step_number == 6
    for a, b in zip(straight.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(a, b)


def test_before_the_first_step_the_state_is_the_step_number_alone():
    assert list(optimizer_of(nn.Linear(2, 2)).tensors()) == ["step_number"]
