import math

import pytest
import torch
from torch.nn.functional import logsigmoid

from keel.functional.preference_losses import bradley_terry, dpo, ipo, without_noise

CERTAIN = torch.tensor([1.0])


def test_one_pair_by_hand():
    # scores 1 and 0: the model says sigmoid(1) = 0.731 for a
    a, b = torch.tensor([1.0]), torch.tensor([0.0])
    assert bradley_terry(a, b, CERTAIN).item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert bradley_terry(a, b, 1 - CERTAIN).item() == pytest.approx(math.log(1 + math.exp(1)))


def test_a_vote_share_weighs_the_two_verdicts():
    a, b = torch.tensor([1.0]), torch.tensor([-0.5])
    shared = bradley_terry(a, b, torch.tensor([0.75]))
    torch.testing.assert_close(shared, 0.75 * bradley_terry(a, b, CERTAIN) + 0.25 * bradley_terry(a, b, 1 - CERTAIN))


def test_the_log_sigmoid_form_is_the_same():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(100, generator=generator) * 5, torch.randn(100, generator=generator) * 5
    torch.testing.assert_close(bradley_terry(a, b, torch.ones(100)), -logsigmoid(a - b))


def test_the_gradient_is_what_the_model_says_minus_what_people_said():
    a = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    preference = torch.tensor([1.0, 0.25, 0.5], dtype=torch.float64)
    bradley_terry(a, b, preference).sum().backward()
    torch.testing.assert_close(a.grad, torch.sigmoid(a.detach()) - preference)
    torch.testing.assert_close(b.grad, -a.grad)


def test_a_tie_has_no_gradient_at_equal_scores_and_closes_a_gap():
    a = torch.tensor([0.7, 2.0], requires_grad=True)
    bradley_terry(a, torch.tensor([0.7, 0.0]), torch.full((2,), 0.5)).sum().backward()
    assert a.grad[0] == 0
    assert a.grad[1] > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lead", [-80.0, 80.0])
def test_extreme_scores_stay_finite_in_half_precision(dtype, lead):
    a = torch.tensor([lead], dtype=dtype, requires_grad=True)
    loss = bradley_terry(a, torch.zeros(1, dtype=dtype), CERTAIN.to(dtype))
    assert loss.item() == pytest.approx(max(-lead, 0.0), abs=1e-3)
    loss.sum().backward()
    assert a.grad.item() == pytest.approx(-1 / (1 + math.exp(lead)), abs=1e-3)


def test_adding_the_same_to_both_scores_changes_nothing():
    a, b = torch.tensor([1.0, -3.0]), torch.tensor([0.5, 4.0])
    preference = torch.tensor([1.0, 0.3])
    torch.testing.assert_close(bradley_terry(a + 8, b + 8, preference), bradley_terry(a, b, preference))


def test_swapping_the_pair_and_the_preference_changes_nothing():
    a, b = torch.tensor([1.0, -3.0, 2.0]), torch.tensor([0.5, 4.0, 1.0])
    preference, margin = torch.tensor([1.0, 0.3, 0.5]), torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(
        bradley_terry(a, b, preference, margin, 0.1), bradley_terry(b, a, 1 - preference, margin, 0.1)
    )


def test_a_margin_asks_the_preferred_score_to_lead_and_leaves_ties_alone():
    a, b = torch.tensor([3.0, 3.0, 3.0]), torch.tensor([1.0, 1.0, 1.0])
    preference = torch.tensor([1.0, 0.0, 0.5])
    found = bradley_terry(a, b, preference, margin=torch.full((3,), 2.0))
    # a preferred: a lead of 2 counts as 0; b preferred: as 4; a tie: as 2
    expected = [math.log(2), math.log(1 + math.exp(4)), (math.log(1 + math.exp(2)) + math.log(1 + math.exp(-2))) / 2]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_label_smoothing_has_its_minimum_at_the_smoothed_odds():
    a = torch.tensor([math.log(0.9 / 0.1)], requires_grad=True)
    bradley_terry(a, torch.zeros(1), CERTAIN, label_smoothing=0.1).backward()
    assert a.grad.item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match=r"\[0, 0.5\), found 0.5"):
        bradley_terry(a, torch.zeros(1), CERTAIN, label_smoothing=0.5)


def test_recovers_the_strengths_that_made_the_votes():
    strengths = torch.tensor([0.0, 0.4, 1.0, 2.0])
    a, b = (index.flatten() for index in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
    shares = torch.sigmoid(strengths[a] - strengths[b])
    fitted = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.LBFGS([fitted], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = bradley_terry(fitted[a], fitted[b], shares).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(fitted.detach() - fitted[0].detach(), strengths, atol=1e-3, rtol=0)


def test_dpo_by_hand():
    # log-ratios 3 and -1 at beta 0.5: rewards 1.5 and -0.5, so that a is better with probability sigmoid(2)
    a, b = torch.tensor([3.0]), torch.tensor([-1.0])
    assert dpo(a, b, CERTAIN, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert dpo(a, a, CERTAIN, 0.5).item() == pytest.approx(math.log(2))


def test_the_gradient_of_dpo_is_beta_times_what_the_policy_says_minus_what_people_said():
    a = torch.tensor([4.0, -300.0, 0.3], dtype=torch.float64, requires_grad=True)
    b, preference = torch.zeros(3, dtype=torch.float64), torch.tensor([1.0, 0.25, 0.5], dtype=torch.float64)
    dpo(a, b, preference, 0.1).sum().backward()
    torch.testing.assert_close(a.grad, 0.1 * (torch.sigmoid(0.1 * a.detach()) - preference))


def test_ipo_by_hand():
    # at beta 0.25 the lead should be 2: leads of 3 and of -1 miss it by 1 and by 3
    zeros = torch.zeros(2)
    leads = torch.tensor([3.0, -1.0])
    torch.testing.assert_close(ipo(leads, zeros, torch.ones(2), 0.25), torch.tensor([1.0, 9.0]))
    shared = ipo(leads, zeros, torch.full((2,), 0.75), 0.25)  # three in four say a
    torch.testing.assert_close(shared, torch.tensor([0.75 * 1 + 0.25 * 25, 0.75 * 9 + 0.25 * 1]))


def test_ipo_has_its_minimum_where_the_votes_are():
    lead = torch.tensor([2 * 0.8 - 1.0]) / (2 * 0.25)
    lead.requires_grad_()
    ipo(lead, torch.zeros(1), torch.tensor([0.8]), 0.25).sum().backward()
    assert lead.grad.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_what_is_corrected_for_noise_is_on_average_what_it_was(margin):
    """Over the labels as they are seen, a fifth of them flipped; a margin turns round with its label."""
    a, b, clean = torch.tensor([3.0, 1.0, -2.0]), torch.zeros(3), torch.tensor([1.0, 0.0, 1.0])

    def loss(preference: torch.Tensor) -> torch.Tensor:
        return dpo(a, b, preference, 0.5, margin)

    seen = 0.8 * without_noise(loss, clean, 0.2) + 0.2 * without_noise(loss, 1 - clean, 0.2)
    torch.testing.assert_close(seen, loss(clean))
    assert torch.equal(without_noise(loss, clean, 0.0), loss(clean))


@pytest.mark.parametrize("flipped", [-0.1, 0.5])
def test_half_of_the_labels_wrong_cannot_be_corrected(flipped):
    with pytest.raises(ValueError, match="flipped"):
        without_noise(lambda p: p, CERTAIN, flipped)
