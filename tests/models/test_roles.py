"""Adapters in roles over one set of weights, and layers that are shared because nothing in them is trained."""

import copy

import pytest
import torch
from helpers.tiny import ARCHITECTURES, tiny_model
from peft.tuners.lora import Linear
from torch import Tensor

from keel.batch.pack import pack, repeated
from keel.batch.types import TokenBatch
from keel.core.errors import ConfigError
from keel.models.adapters import add_lora, add_role, merged, reference_mode
from keel.models.layers import share_layers, shared_layers, untouched_layers
from keel.models.packed import forward_hidden, lower_states, token_logprobs, transformer
from keel.models.roles import RoleLayer, role, role_tensors, set_role
from keel.models.settings import LoraConfig

BATCH = TokenBatch(
    prompt_lengths=torch.tensor([5, 0, 3]),
    fanout=torch.tensor([2, 1, 1]),
    prompt_tokens=torch.arange(8) + 3,
    response_lengths=torch.tensor([4, 2, 6, 1]),
    response_tokens=torch.arange(13) + 12,
    response_mask=torch.ones(13, dtype=torch.bool),
)
PACKED = pack(BATCH)


def trained(model, seed: int = 0):
    """The model with adapters that say something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def adapted(name: str = "llama", config: LoraConfig | None = None, seed: int = 0):
    torch.manual_seed(seed)
    return trained(add_lora(tiny_model(name), config or LoraConfig(rank=4)), seed)


def gradients(model, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_and_gradients_equal_those_of_peft(name):
    model = adapted(name)
    plain = copy.deepcopy(model)
    for layer in plain.modules():
        if isinstance(layer, RoleLayer):
            layer.__class__ = type(layer).__mro__[2]  # peft's own
    weights = torch.linspace(-1, 1, 13)
    found, expected = (token_logprobs(each, PACKED)[0] for each in (model, plain))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    ours, theirs = (gradients(m, (x * weights).sum()) for m, x in ((model, found), (plain, expected)))
    assert ours.keys() == theirs.keys()
    assert any("lora_A" in key for key in ours)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-6, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


def test_each_role_computes_what_a_model_of_its_own_would():
    base, other = tiny_model(), adapted(config=LoraConfig(rank=2, alpha=3), seed=1)
    model = adapted()
    before = token_logprobs(model, PACKED)[0]
    add_role(model, "reward", LoraConfig(rank=2, alpha=3), role_tensors(other))
    with role(model, "reward"):
        torch.testing.assert_close(token_logprobs(model, PACKED)[0], token_logprobs(other, PACKED)[0])
    for nobody in (role(model, None), reference_mode(model)):
        with nobody:
            torch.testing.assert_close(token_logprobs(model, PACKED)[0], token_logprobs(base, PACKED)[0])
    assert torch.equal(token_logprobs(model, PACKED)[0], before)


def test_several_roles_share_a_forward_pass():
    """Each stretch of the row meets its own adapter, in gradients too; the last layer's shorter ones as well."""
    model, other = adapted(), adapted(seed=1)
    add_role(model, "reward", LoraConfig(rank=4), role_tensors(other))
    count, both = len(PACKED.tokens), repeated(PACKED, 2)
    at = torch.cat([PACKED.source.clamp(min=0), PACKED.last + count])
    stretches = ([count, count], [len(PACKED.source.clamp(min=0).unique()), len(PACKED.last)])
    with role(model, "default", "reward", stretches=stretches):
        found = forward_hidden(model, both, at)
        with torch.no_grad():
            torch.testing.assert_close(forward_hidden(model, both, at), found)
    expected = [forward_hidden(model, PACKED, PACKED.source.clamp(min=0)), forward_hidden(other, PACKED, PACKED.last)]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-6, rtol=1e-5)
    ours, alone = gradients(model, found.square().sum()), gradients(model, expected[0].square().sum())
    for key, value in alone.items():
        torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-4)


def test_a_further_role_is_frozen_and_stays_out_of_the_merged_policy():
    model, other = adapted(), adapted(seed=1)
    alone = token_logprobs(merged(model), PACKED)[0]
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    add_role(model, "reward", LoraConfig(rank=4), role_tensors(other))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable
    torch.testing.assert_close(token_logprobs(merged(model), PACKED)[0], alone)


def test_a_role_of_another_shape_is_refused():
    model = adapted()
    with pytest.raises(ValueError, match="differ in name or shape"):
        set_role(model, role_tensors(adapted(config=LoraConfig(rank=2))))


def test_a_model_without_adapters_has_one_role():
    with pytest.raises(TypeError, match="no adapters"), role(tiny_model(), "reward"):
        pass


def test_dropout_acts_on_the_adapters_input_in_training_only():
    model = adapted(config=LoraConfig(rank=4, dropout=0.5))
    steady = token_logprobs(model.eval(), PACKED)[0]
    model.train()
    torch.manual_seed(0)
    shaken = token_logprobs(model, PACKED)[0]
    assert not torch.allclose(steady, shaken)
    assert torch.equal(token_logprobs(model.eval(), PACKED)[0], steady)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_passes_above_the_shared_layers_equal_whole_ones(name):
    config = LoraConfig(rank=4, last_layers=1)
    model = adapted(name, config)
    whole = copy.deepcopy(model)
    layers = transformer(model).config.get_text_config().num_hidden_layers
    assert share_layers(transformer(model).base_model) == layers - 1
    states = lower_states(model, PACKED)
    known = pack(with_states(BATCH, states))
    expected, found = token_logprobs(whole, PACKED)[0], token_logprobs(model, known)[0]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    wanted, got = (gradients(m, x.sum()) for m, x in ((whole, expected), (model, found)))
    assert got.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], atol=1e-6, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


def with_states(batch: TokenBatch, states: Tensor) -> TokenBatch:
    return batch.with_states(states[PACKED.prompt_index], states[PACKED.response_index])


def test_states_travel_with_the_rows_of_a_batch():
    model = adapted(config=LoraConfig(rank=4, last_layers=1))
    share_layers(transformer(model).base_model)
    batch = with_states(BATCH, lower_states(model, PACKED))
    some = batch.rows(torch.tensor([2, 0]))
    expected = token_logprobs(model, pack(BATCH.rows(torch.tensor([2, 0]))))[0]
    torch.testing.assert_close(token_logprobs(model, pack(some))[0], expected, atol=1e-6, rtol=1e-5)


def test_shared_layers_do_not_run_again():
    model, seen = adapted(config=LoraConfig(rank=4, last_layers=1)), []
    trunk = transformer(model).base_model
    share_layers(trunk)
    batch = with_states(BATCH, lower_states(model, PACKED))
    trunk.layers[0].register_forward_hook(lambda *_: seen.append("lower"))
    trunk.layers[-1].register_forward_hook(lambda *_: seen.append("upper"))
    token_logprobs(model, pack(batch))
    assert seen == ["upper"]
    seen.clear()
    token_logprobs(model, PACKED)  # without states the whole model runs
    assert seen == ["lower", "upper"]


def test_states_of_another_model_are_not_taken_for_ones_own():
    model = adapted(config=LoraConfig(rank=4, last_layers=1))
    share_layers(transformer(model).base_model)
    batch = with_states(BATCH, lower_states(model, PACKED))
    other = tiny_model(seed=3)
    assert shared_layers(other.base_model) == 0
    torch.testing.assert_close(forward_hidden(other, pack(batch)), forward_hidden(other, PACKED))


def test_layers_count_as_untouched_only_below_everything_that_is_trained():
    assert untouched_layers(tiny_model().base_model) == 0  # embeddings are trained
    assert untouched_layers(tiny_model().requires_grad_(False).base_model) == 2
    assert untouched_layers(transformer(adapted()).base_model) == 0
    upper = adapted(config=LoraConfig(rank=4, last_layers=1))
    assert untouched_layers(transformer(upper).base_model) == 1
    add_role(upper, "reward", LoraConfig(rank=4), role_tensors(adapted()))
    assert untouched_layers(transformer(upper).base_model) == 0  # the other role changes the first layer


def test_more_last_layers_than_there_are_is_an_error():
    with pytest.raises(ConfigError, match="last_layers is 9, but the model has 2"):
        adapted(config=LoraConfig(last_layers=9))


def test_peft_finds_the_layers_it_made():
    """The class of the layers is keel's; peft still recognises them."""
    layers = [layer for layer in adapted().modules() if isinstance(layer, Linear)]
    assert len(layers) == 14
    assert all(isinstance(layer, RoleLayer) for layer in layers)
