import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from keel.functional import logprobs as module
from keel.functional.logprobs import token_logprobs

FORMS = [
    {},
    {"temperature": 0.7},
    {"softcap": 3.0},
    {"logit_scale": 0.25},
    {"softcap": 2.0, "temperature": 1.7, "logit_scale": 1.5},
]
TILES = ["auto", 4, 1]  # all 7 rows kept; some rows, computed again; one row at a time


def problem(rows: int = 7, width: int = 5, vocabulary: int = 11, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype)
        for shape in ((rows, width), (vocabulary, width), (vocabulary,))
    )
    return hidden, weight, bias, torch.randint(vocabulary, (rows,), generator=generator)


def reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    temperature=1.0,
    softcap=None,
    logit_scale=1.0,
):
    z = torch.nn.functional.linear(hidden, weight, bias) * logit_scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    logp = (z / temperature).log_softmax(-1)
    return logp.gather(1, targets[:, None]).squeeze(1), -(logp.exp() * logp).sum(1)


def test_two_logits_by_hand():
    # hidden 1 against weights 0 and log 3: logits 0 and log 3, probabilities 1/4 and 3/4
    logprobs, entropy = token_logprobs(
        torch.ones(2, 1), torch.tensor([[0.0], [math.log(3)]]), torch.tensor([0, 1]), with_entropy=True
    )
    torch.testing.assert_close(logprobs, torch.tensor([0.25, 0.75]).log())
    torch.testing.assert_close(entropy, torch.full((2,), 0.25 * math.log(4) + 0.75 * math.log(4 / 3)))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("form", FORMS)
def test_values_equal_the_full_softmax(form, tile):
    hidden, weight, bias, targets = problem()
    found = token_logprobs(hidden, weight, targets, bias=bias, tile=tile, with_entropy=True, **form)
    torch.testing.assert_close(found, reference(hidden, weight, targets, bias, **form), rtol=0, atol=1e-14)


@pytest.mark.parametrize("tile", ["auto", 2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("trained", ["hidden", "weight", "all"])
def test_gradients_match_finite_differences_through_both_outputs(form, tile, trained):
    hidden, weight, bias, targets = problem(rows=3, width=2, vocabulary=4)
    if trained in ("hidden", "all"):
        hidden.requires_grad_()
    if trained in ("weight", "all"):
        weight.requires_grad_()
        bias.requires_grad_()

    def both(hidden, weight, bias):
        return token_logprobs(hidden, weight, targets, bias=bias, tile=tile, with_entropy=True, **form)

    def alone(hidden, weight, bias):
        return token_logprobs(hidden, weight, targets, bias=bias, tile=tile, **form)[0]

    assert gradcheck(both, (hidden, weight, bias))
    assert gradcheck(alone, (hidden, weight, bias))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("frozen", [False, True])
def test_float32_gradients_equal_autograd_of_the_full_softmax(tile, frozen):
    hidden, weight, bias, targets = problem(rows=40, width=16, vocabulary=97, dtype=torch.float32)
    tile = tile if tile == "auto" else 10 * tile
    upstream = torch.randn(40, generator=torch.Generator().manual_seed(1))
    gradients = []
    for compute in (token_logprobs, reference):
        leaves = [
            tensor.clone().requires_grad_(not frozen or i == 0) for i, tensor in enumerate((hidden, weight, bias))
        ]
        options = {"tile": tile} if compute is token_logprobs else {}
        logprobs, _ = compute(leaves[0], leaves[1], targets, bias=leaves[2], **options)
        logprobs.backward(upstream)
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_the_backward_can_run_twice():
    hidden, weight, _, targets = problem()
    weight.requires_grad_()
    logprobs, _ = token_logprobs(hidden, weight, targets)
    first = torch.autograd.grad(logprobs.sum(), weight, retain_graph=True)[0].clone()
    assert torch.equal(first, torch.autograd.grad(logprobs.sum(), weight)[0])


def test_an_entropy_bonus_of_zero_changes_no_gradient():
    hidden, weight, _, targets = problem()
    weight.requires_grad_()
    logprobs, entropy = token_logprobs(hidden, weight, targets, with_entropy=True)
    plain = torch.autograd.grad(logprobs.sum(), weight, retain_graph=True)[0]
    assert torch.equal(plain, torch.autograd.grad((logprobs - 0.0 * entropy).sum(), weight)[0])


def test_logits_far_beyond_exp_stay_finite_and_exact():
    # logits 0, 1000, 2000: the last has probability 1, the middle one log-probability -1000
    weight = torch.tensor([[0.0], [1000.0], [2000.0]])
    hidden = torch.ones(3, 1, requires_grad=True)
    logprobs, entropy = token_logprobs(hidden, weight, torch.tensor([0, 1, 2]), with_entropy=True)
    assert logprobs.tolist() == [-2000.0, -1000.0, 0.0]
    assert entropy.tolist() == [0.0, 0.0, 0.0]
    (logprobs + entropy).sum().backward()
    assert hidden.grad.squeeze(1).tolist() == [-2000.0, -1000.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_float32_and_close(dtype):
    hidden, weight, _, targets = problem(rows=64, width=32, vocabulary=50, dtype=torch.float32)
    hidden, weight = hidden.to(dtype), (weight / 6).to(dtype)
    exact = reference(hidden.float(), weight.float(), targets)
    for tile in ("auto", 16):
        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        logprobs, entropy = token_logprobs(*leaves, targets, tile=tile, with_entropy=True)
        assert logprobs.dtype == entropy.dtype == torch.float32
        torch.testing.assert_close((logprobs, entropy), exact, rtol=0, atol=0.02)
        logprobs.sum().backward()
        assert [leaf.grad.dtype for leaf in leaves] == [dtype, dtype]
        wide = hidden.float().requires_grad_(), weight.float().requires_grad_()
        reference(*wide, targets)[0].sum().backward()
        for leaf, other in zip(leaves, wide, strict=True):
            assert (leaf.grad.float() - other.grad).norm() < 0.01 * other.grad.norm()


def test_a_nearly_certain_token_keeps_its_small_gradient_in_bfloat16():
    # p = 1 - 4.5e-5; rounded to bfloat16 first, 1 - p would be 0
    weight = torch.tensor([[0.0], [10.0]], dtype=torch.bfloat16)
    hidden = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    token_logprobs(hidden, weight.requires_grad_(), torch.tensor([1]))[0].sum().backward()
    assert hidden.grad.item() == pytest.approx(10 / (1 + math.exp(10)), rel=0.01)


def test_autocast_decides_the_precision_of_the_matrix_products():
    hidden, weight, _, targets = problem(rows=8, dtype=torch.float32)
    hidden.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logprobs, _ = token_logprobs(hidden, weight, targets)
    rounded, _ = token_logprobs(hidden.bfloat16(), weight.bfloat16(), targets)
    assert torch.equal(logprobs, rounded)
    logprobs.sum().backward()
    assert hidden.grad.dtype == torch.float32


def test_no_more_than_a_tile_of_logits_is_held(monkeypatch):
    shapes = []
    empty = torch.empty

    def recorded(*size, **options):
        shapes.append(size)
        return empty(*size, **options)

    monkeypatch.setattr(module, "TILE_BYTES", 4 * 11 * 3)
    monkeypatch.setattr(torch, "empty", recorded)
    hidden, weight, _, targets = problem(dtype=torch.float32)
    token_logprobs(hidden.requires_grad_(), weight.requires_grad_(), targets)[0].sum().backward()
    assert shapes.count((3, 11)) == 2  # one buffer in the forward, one in the backward
    assert (7, 11) not in shapes


def test_without_rows_there_is_nothing_and_no_gradient():
    hidden, weight, _, targets = problem(rows=0)
    logprobs, _ = token_logprobs(hidden, weight.requires_grad_(), targets)
    logprobs.sum().backward()
    assert logprobs.shape == (0,)
    assert weight.grad.count_nonzero() == 0


def test_shapes_that_disagree_are_named():
    hidden, weight, _, targets = problem()
    with pytest.raises(ValueError, match=r"\[7, 4\] and \[11, 5\]"):
        token_logprobs(hidden[:, :4], weight, targets)
    with pytest.raises(ValueError, match="one for each of the 7 rows"):
        token_logprobs(hidden, weight, targets[:3])
    with pytest.raises(ValueError, match="temperature must be positive, found 0"):
        token_logprobs(hidden, weight, targets, temperature=0)
