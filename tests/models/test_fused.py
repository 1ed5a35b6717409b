"""Replaced norms and feed-forward parts answer and learn as transformers' own."""

import copy

import pytest
import torch
from helpers.tiny import ARCHITECTURES, tiny_model
from torch import nn
from transformers.models.cohere.modeling_cohere import CohereLayerNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from keel.models.fused import FusedMLP, FusedNorm, fuse


def grads(model) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_fused_model_equals_the_plain_one_in_outputs_and_gradients(name):
    plain, fused = tiny_model(name), tiny_model(name)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for a, b in zip(plain.parameters(), fused.parameters(), strict=True):
            b.copy_(a.add_(torch.randn(a.shape, generator=generator) * 0.02))  # norm weights away from 0 and 1
    fuse(fused.base_model)
    ids = torch.arange(5, 29)[None]
    found, expected = fused(input_ids=ids).logits, plain(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for out in (found, expected):
        out.log_softmax(-1)[..., 7].sum().backward()
    wanted, got = grads(plain), grads(fused)
    assert got.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], atol=1e-5, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize(("name", "norms", "parts"), [("llama", 5, 2), ("qwen3", 9, 2), ("gemma3", 13, 0)])
def test_norms_and_gated_parts_are_found(name, norms, parts):
    """Gemma's feed-forward part uses another activation, and stays as it is."""
    model = tiny_model(name)
    fuse(model.base_model)
    assert sum(isinstance(m, FusedNorm) for m in model.modules()) == norms
    assert sum(isinstance(m, FusedMLP) for m in model.modules()) == parts


def test_a_layer_norm_is_not_taken_for_one():
    """Not in half precision either, where on wide and centred inputs the two can hardly be told apart."""
    for dtype in (torch.float32, torch.bfloat16):
        layer = nn.Sequential(nn.LayerNorm(8, bias=False), nn.LayerNorm(8), CohereLayerNorm(8192)).to(dtype)
        fuse(layer)
        assert not any(isinstance(m, FusedNorm) for m in layer.modules())


class EpsilonOutside(LlamaRMSNorm):
    def forward(self, hidden_states):
        norm = hidden_states.pow(2).mean(-1, keepdim=True).sqrt() + self.variance_epsilon
        return self.weight * hidden_states / norm


def test_a_norm_with_its_epsilon_elsewhere_is_not_taken_for_one():
    layer = nn.Sequential(EpsilonOutside(16), LlamaRMSNorm(16))
    fuse(layer)
    assert [isinstance(m, FusedNorm) for m in layer] == [False, True]


def test_another_activation_is_not_taken_for_silu():
    model = tiny_model("gemma2").to(torch.bfloat16)
    fuse(model.base_model)
    assert not any(isinstance(m, FusedMLP) for m in model.modules())


def test_copies_and_state_stay_whole():
    model = tiny_model()
    names = list(model.state_dict())
    fuse(model.base_model)
    again = copy.deepcopy(model)
    assert list(again.state_dict()) == names
    with torch.no_grad():
        again.base_model.norm.weight.mul_(2)
    ids = torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(2 * model(input_ids=ids).logits, again(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_half_precision_is_as_close_to_the_truth_as_transformers_is(name):
    truth = tiny_model(name)
    plain, fused = (copy.deepcopy(truth).to(torch.bfloat16) for _ in range(2))
    fuse(fused.base_model)
    ids = torch.arange(5, 29)[None]
    exact = truth(input_ids=ids).logits
    errors = [(each(input_ids=ids).logits.float() - exact).abs().mean() for each in (fused, plain)]
    assert errors[0] <= errors[1] * 1.1


def test_no_random_number_is_drawn():
    model = tiny_model()
    before = torch.get_rng_state()
    fuse(model.base_model)
    assert torch.equal(torch.get_rng_state(), before)
