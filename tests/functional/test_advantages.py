import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from keel.functional.advantages import (
    all_alike,
    gae,
    group_centred,
    group_normalised,
    leave_one_out,
    reward_to_go,
)


def ragged(rows: int = 5, width: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(rows, width, generator=generator, dtype=torch.float64) for _ in range(2))
    lengths = torch.randint(1, width + 1, (rows, 1), generator=generator)
    return rewards, values, torch.arange(width) < lengths


def test_gae_by_hand():
    # gamma 1, lambda 1/2, values 1, 2, 3 and a reward of 4 at the end
    # delta = 2 - 1, 3 - 2, 4 - 3 = 1, 1, 1; advantages 1, 1 + 1/2, 1 + 3/4 from the end
    advantages, returns = gae(
        torch.tensor([[0.0, 0.0, 4.0]]), torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool), 1.0, 0.5
    )
    assert advantages.tolist() == [[1.75, 1.5, 1.0]]
    assert returns.tolist() == [[2.75, 3.5, 4.0]]


def test_gae_equals_its_closed_form():
    rewards, values, mask = ragged()
    gamma, lam = 0.97, 0.9
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    for row in range(len(rewards)):
        length = int(mask[row].sum())
        following = [*values[row, 1:length], 0.0]
        delta = [rewards[row, t] + gamma * following[t] - values[row, t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** k * delta[t + k] for k in range(length - t))
            assert advantages[row, t] == pytest.approx(float(expected), abs=1e-12)
            assert returns[row, t] == pytest.approx(float(expected + values[row, t]), abs=1e-12)


def test_gae_with_lambda_one_is_discounted_return_minus_value():
    rewards, values, mask = ragged()
    discount = 0.9 ** torch.arange(rewards.shape[1], dtype=torch.float64)
    kept = rewards * mask
    to_go = (kept * discount).flip(1).cumsum(1).flip(1) / discount
    advantages, returns = gae(rewards, values, mask, 0.9, 1.0)
    torch.testing.assert_close(advantages, (to_go - values) * mask, rtol=0, atol=1e-12)
    torch.testing.assert_close(returns, to_go * mask, rtol=0, atol=1e-12)


def test_gae_with_lambda_zero_is_the_one_step_error():
    rewards, values, mask = ragged()
    following = torch.nn.functional.pad((values * mask)[:, 1:], (0, 1))
    advantages, _ = gae(rewards, values, mask, 0.9, 0.0)
    torch.testing.assert_close(advantages, (rewards + 0.9 * following - values) * mask, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fill", [7.0, math.nan, math.inf])
def test_appended_padding_changes_nothing_whatever_it_holds(fill):
    rewards, values, mask = ragged()
    rewards, values = rewards.masked_fill(~mask, fill), values.masked_fill(~mask, fill)
    wider = [torch.nn.functional.pad(x, (0, 4), value=v) for x, v in ((rewards, fill), (values, fill), (mask, False))]
    clean = gae(rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0), mask, 0.97, 0.9)
    for found, expected in zip(gae(*wider, 0.97, 0.9), clean, strict=True):
        assert torch.equal(found[:, :9], expected)
        assert found[:, 9:].count_nonzero() == 0


def test_a_hole_in_the_mask_is_as_if_its_tokens_were_not_there():
    rewards, values, _ = ragged(rows=1)
    mask = torch.tensor([[False, True, True, False, False, True, False, True, False]])
    advantages, returns = gae(rewards, values, mask, 0.97, 0.9)
    dense = gae(rewards[mask][None], values[mask][None], torch.ones(1, 4, dtype=torch.bool), 0.97, 0.9)
    assert torch.equal(advantages[mask][None], dense[0])
    assert torch.equal(returns[mask][None], dense[1])


def test_rows_do_not_see_each_other():
    rewards, values, mask = ragged()
    together, _ = gae(rewards, values, mask, 0.97, 0.9)
    alone = torch.cat([gae(rewards[i : i + 1], values[i : i + 1], mask[i : i + 1], 0.97, 0.9)[0] for i in range(5)])
    assert torch.equal(together, alone)


def test_reward_to_go_is_numpy_s_sum_from_each_token_on():
    rewards, _, mask = ragged()
    kept = np.where(mask.numpy(), rewards.numpy(), 0.0)
    expected = np.where(mask.numpy(), kept[:, ::-1].cumsum(1)[:, ::-1], 0.0)
    np.testing.assert_allclose(reward_to_go(rewards.masked_fill(~mask, math.nan), mask).numpy(), expected, atol=1e-12)


def test_prompts_whose_scores_are_all_alike_are_told_from_the_others():
    scores = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, -2.0, 0.5, 0.5 + 1e-7])
    assert all_alike(scores, torch.tensor([2, 3, 1, 2])).tolist() == [True, False, True, True]


def test_leave_one_out_compares_with_the_other_samples():
    # 3 against the mean of (1, 0, 0), 1 against that of (0, 0, 3), 0 against that of (1, 0, 3); then 5 against 7
    advantages = leave_one_out(torch.tensor([1.0, 0.0, 0.0, 3.0, 5.0, 7.0]), torch.tensor([4, 2]))
    torch.testing.assert_close(advantages, torch.tensor([0.0, -4 / 3, -4 / 3, 8 / 3, -2.0, 2.0]))


@pytest.mark.parametrize(("advantage", "share"), [(leave_one_out, 1.0), (group_centred, 2 / 3)])
def test_leave_one_out_is_an_unbiased_gradient_and_centring_a_shorter_one(advantage, share):
    # every way to draw 3 samples of 3 arms, weighed by its probability
    logits = torch.tensor([0.3, -0.5, 1.0], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    logprobs = logits.log_softmax(-1)
    total = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(3), repeat=3):
        index = torch.tensor(group)
        chance = logprobs[index].sum().exp().detach()
        total = total + chance * (advantage(reward[index], torch.tensor([3])) * logprobs[index]).mean()
    found = torch.autograd.grad(total, logits, retain_graph=True)[0]
    exact = torch.autograd.grad((logprobs.exp() * reward).sum(), logits)[0]
    torch.testing.assert_close(found, share * exact, rtol=1e-12, atol=1e-12)


def test_group_normalised_by_hand():
    # 1, 2, 3 have mean 2 and deviation 1; 4, 8 have mean 6 and deviation sqrt(8)
    found = group_normalised(torch.tensor([1.0, 2.0, 3.0, 4.0, 8.0]), torch.tensor([3, 2]), eps=0.0)
    torch.testing.assert_close(found, torch.tensor([-1.0, 0.0, 1.0, -(0.5**0.5), 0.5**0.5]))


def test_equal_scores_teach_nothing():
    scores, fanout = torch.full((5,), 3.0), torch.tensor([3, 2])
    for advantage in (leave_one_out, group_centred, group_normalised):
        assert advantage(scores, fanout).count_nonzero() == 0
    assert group_normalised(torch.tensor([3.0]), torch.tensor([1])).tolist() == [0]


def test_one_sample_has_no_others_to_compare_with():
    with pytest.raises(ValueError, match="at least 2 samples a prompt, prompt 1 has 1"):
        leave_one_out(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 1]))
    with pytest.raises(ValueError, match="each of the 4 samples"):
        leave_one_out(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 2]))
