import math

import pytest
import torch

from keel.functional.masking import masked_mean, masked_sum, masked_var, whiten, zero_outside

VALUES = torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_sums_by_hand():
    assert masked_sum(VALUES, MASK) == 6
    assert masked_mean(VALUES, MASK) == 2
    assert masked_var(VALUES, MASK) == 1  # (1 + 0 + 1) / (3 - 1)


def test_flat_and_padded_values_agree():
    assert masked_var(VALUES[MASK], MASK[MASK]) == masked_var(VALUES, MASK)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_what_lies_under_a_false_mask_reaches_neither_result_nor_gradient(poison):
    for function in (masked_sum, masked_mean, masked_var, lambda values, mask: whiten(values, mask)[0, 0]):
        clean, poisoned = (VALUES.masked_fill(~MASK, fill).requires_grad_() for fill in (0.0, poison))
        results = [function(values, MASK) for values in (clean, poisoned)]
        assert torch.equal(*results)
        for result in results:
            result.backward()
        assert torch.equal(clean.grad, poisoned.grad)
        assert poisoned.grad[~MASK].count_nonzero() == 0


def test_a_loss_of_zeroed_inputs_has_a_finite_gradient_where_the_mask_is_false():
    logprobs = torch.zeros(2, requires_grad=True)
    old, mask = torch.tensor([0.0, math.nan]), torch.tensor([True, False])
    masked_sum(torch.exp(logprobs - zero_outside(old, mask)), mask).backward()
    assert logprobs.grad.tolist() == [1, 0]


def test_an_empty_mask_gives_zero():
    nothing = torch.zeros_like(MASK)
    assert masked_sum(VALUES, nothing) == masked_mean(VALUES, nothing) == masked_var(VALUES, nothing) == 0
    assert whiten(VALUES, nothing).count_nonzero() == 0


def test_whitening_brings_mean_zero_and_variance_one_over_the_mask_alone():
    generator = torch.Generator().manual_seed(0)
    values = 5 + 3 * torch.randn(8, 20, generator=generator)
    mask = torch.rand(8, 20, generator=generator) < 0.6
    white = whiten(values, mask)
    assert abs(white[mask].mean()) < 1e-6
    assert white[mask].var() == pytest.approx(1, abs=1e-6)
    assert white[~mask].count_nonzero() == 0
    wider = [
        torch.nn.functional.pad(tensor, (0, 7), value=fill) for tensor, fill in ((values, math.nan), (mask, False))
    ]
    torch.testing.assert_close(whiten(*wider)[:, :20], white)


def test_whitening_without_the_shift_keeps_the_mean():
    white = whiten(VALUES, MASK, shift_mean=False)
    assert white.tolist() == [[pytest.approx(1), pytest.approx(2), 0], [pytest.approx(3), 0, 0]]  # variance was 1


def test_whitening_one_value_or_equal_values_gives_zero():
    assert whiten(torch.tensor([4.0, 9.0]), torch.tensor([True, False])).tolist() == [0, 0]
    assert whiten(torch.full((3,), 4.0), torch.ones(3, dtype=torch.bool)).tolist() == [0, 0, 0]


def test_an_integer_mask_or_another_shape_is_refused():
    with pytest.raises(TypeError, match=r"must be bool, .*int64"):
        masked_mean(VALUES, MASK.long())
    with pytest.raises(ValueError, match=r"values \[2, 3\], mask \[3\]"):
        masked_mean(VALUES, MASK[0])
