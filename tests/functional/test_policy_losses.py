import pytest
import torch

from keel.functional.policy_losses import clipped_surrogate, clipped_value_loss


def test_surrogate_by_hand():
    # ratios 1.5, 1.5, 0.5, 0.5 with clips at 0.8 and 1.2; advantages +2, -2, +2, -2
    logprobs = torch.tensor([1.5, 1.5, 0.5, 0.5]).log()
    loss = clipped_surrogate(logprobs, torch.zeros(4), torch.tensor([2.0, -2.0, 2.0, -2.0]), 0.2, 0.2)
    torch.testing.assert_close(loss, torch.tensor([-2.4, 3.0, -1.0, 1.6]))


def test_the_gradient_is_zero_exactly_where_the_ratio_has_gone_far_enough():
    clip_low, clip_high = 0.2, 0.28
    ratios = torch.linspace(0.4, 1.8, 57, dtype=torch.float64)
    ratio, advantage = (
        grid.flatten() for grid in torch.meshgrid(ratios, torch.tensor([-2.0, -0.5, 0.5, 2.0]).double(), indexing="ij")
    )
    logprobs = ratio.log().requires_grad_()
    clipped_surrogate(logprobs, torch.zeros_like(ratio), advantage, clip_low, clip_high).sum().backward()
    far = ((advantage > 0) & (ratio > 1 + clip_high)) | ((advantage < 0) & (ratio < 1 - clip_low))
    assert 0 < far.sum() < len(far)
    assert logprobs.grad[far].count_nonzero() == 0
    torch.testing.assert_close(logprobs.grad[~far], (-advantage * ratio)[~far])


def test_on_the_first_pass_the_gradient_is_that_of_reinforce():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    clipped_surrogate(logprobs, logprobs.detach(), torch.tensor([3.0, -4.0])).sum().backward()
    assert logprobs.grad.tolist() == [-3, 4]


def test_the_surrogate_bounds_the_unclipped_objective_from_below():
    generator = torch.Generator().manual_seed(0)
    logprobs, old, advantages = (torch.randn(1000, generator=generator) for _ in range(3))
    assert (clipped_surrogate(logprobs, old, advantages) >= -advantages * (logprobs - old).exp() - 1e-6).all()


def test_value_loss_by_hand():
    # old value 0, clip 0.5, return 2: a value of 1 counts as 0.5, whose error is the larger; a value of 4 errs by 2 itself;
    # a return of 0.4 with a value of 1 errs by 0.6 itself and by 0.1 clipped
    loss = clipped_value_loss(torch.tensor([1.0, 4.0, 1.0]), torch.zeros(3), torch.tensor([2.0, 2.0, 0.4]), 0.5)
    torch.testing.assert_close(loss, torch.tensor([1.5**2 / 2, 2.0, 0.6**2 / 2]))


def test_value_loss_without_a_clip_is_half_the_squared_error():
    values, returns = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0])
    assert clipped_value_loss(values, torch.zeros(2), returns, None).tolist() == [0.5, 2.0]


def test_a_value_that_has_moved_far_enough_towards_its_return_stops():
    values = torch.tensor([1.0], requires_grad=True)
    clipped_value_loss(values, torch.zeros(1), torch.tensor([2.0]), 0.5).backward()
    assert values.grad.item() == 0


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"logprobs \[4\], old_logprobs \[4\], advantages \[4, 1\]"):
        clipped_surrogate(torch.zeros(4), torch.zeros(4), torch.zeros(4, 1))
