"""DPO, IPO, SimPO, ORPO and KTO against numpy: losses and gradients by hand, soft labels, log-probabilities at the ends.

The formulas here are those of the papers, written with exp and log as they stand, in float64; gradients are worked out
on paper. Nothing is shared with the library.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from keel.functional.preference_losses import dpo, ipo, kto, log_odds, orpo, simpo

Floats = NDArray[np.float64]
LABELS = np.array([1.0, 0.0, 0.5, 0.75, 0.1, 1.0])
EXTREME = np.array([-1e-7, -1e3, -0.5, -1e-7, -1e3, -2.0])


def sigmoid(x: Floats) -> Floats:
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def minus_log_sigmoid(x: Floats) -> Floats:
    return np.maximum(-x, 0) + np.log1p(np.exp(-np.abs(x)))


def cross_entropy(lead: Floats, p: Floats) -> Floats:
    return p * minus_log_sigmoid(lead) + (1 - p) * minus_log_sigmoid(-lead)


@dataclass(frozen=True)
class Values:
    """A loss and its gradients by the two things compared; of KTO the second is nothing."""

    loss: Floats
    by_a: Floats
    by_b: Floats | None = None


def numpy_dpo(a: Floats, b: Floats, p: Floats, beta: float) -> Values:
    pull = beta * (sigmoid(beta * (a - b)) - p)
    return Values(cross_entropy(beta * (a - b), p), pull, -pull)


def numpy_ipo(a: Floats, b: Floats, p: Floats, beta: float) -> Values:
    wanted = 1 / (2 * beta)
    pull = 2 * (a - b) - 2 * (2 * p - 1) * wanted
    return Values(p * (a - b - wanted) ** 2 + (1 - p) * (a - b + wanted) ** 2, pull, -pull)


def numpy_simpo(a: Floats, b: Floats, p: Floats, beta: float, gamma: float) -> Values:
    lead = beta * a - beta * b - gamma * (2 * p - 1)
    pull = beta * (sigmoid(lead) - p)
    return Values(cross_entropy(lead, p), pull, -pull)


def numpy_log_odds(mean: Floats) -> Floats:
    return mean - np.log(-np.expm1(mean))


def numpy_orpo(a: Floats, b: Floats, p: Floats, odds_weight: float) -> Values:
    ratio = numpy_log_odds(a) - numpy_log_odds(b)
    surplus = odds_weight * (sigmoid(ratio) - p)
    # d log odds / d log p = 1 / (1 - p)
    return Values(
        -(p * a + (1 - p) * b) + odds_weight * cross_entropy(ratio, p),
        -p + surplus / -np.expm1(a),
        -(1 - p) - surplus / -np.expm1(b),
    )


def numpy_kto(r: Floats, p: Floats, z0: float, beta: float, up: float, down: float) -> Values:
    rises = sigmoid(beta * (r - z0))
    return Values(up * p * (1 - rises) + down * (1 - p) * rises, (down * (1 - p) - up * p) * beta * rises * (1 - rises))


LOSSES = {
    "dpo": (lambda a, b, p: dpo(a, b, p, 0.3), lambda a, b, p: numpy_dpo(a, b, p, 0.3)),
    "ipo": (lambda a, b, p: ipo(a, b, p, 0.3), lambda a, b, p: numpy_ipo(a, b, p, 0.3)),
    "simpo": (lambda a, b, p: simpo(a, b, p, 2.0, 0.8), lambda a, b, p: numpy_simpo(a, b, p, 2.0, 0.8)),
    "orpo": (lambda a, b, p: orpo(a, b, p, 0.4), lambda a, b, p: numpy_orpo(a, b, p, 0.4)),
    "kto": (lambda a, b, p: kto(a - b, p, 0.7, 0.3, 1.0, 0.6), lambda a, b, p: numpy_kto(a - b, p, 0.7, 0.3, 1.0, 0.6)),
}
WHERE = {
    "ordinary": (-np.linspace(0.05, 4.0, 6), -np.linspace(3.0, 0.2, 6)),
    "extreme": (EXTREME, EXTREME[::-1].copy()),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_those_of_numpy(name, where, dtype):
    ours, theirs = LOSSES[name]
    a, b = (torch.tensor(values, dtype=dtype, requires_grad=True) for values in WHERE[where])
    expected = theirs(*(values.detach().double().numpy() for values in (a, b)), LABELS)
    loss = ours(a, b, torch.tensor(LABELS, dtype=dtype))
    by_a, by_b = torch.autograd.grad(loss.sum(), [a, b])
    tolerance = 1e-6 if dtype == torch.float64 else 2e-5
    for found, wanted in ((loss, expected.loss), (by_a, expected.by_a), (by_b, expected.by_b)):
        wanted = -expected.by_a if wanted is None else wanted  # KTO here sees the difference alone
        assert torch.isfinite(found).all()
        np.testing.assert_allclose(found.detach().double().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_slopes(name):
    """The formulas on paper against differences of their own losses, so that one slip does not hide another."""
    _, theirs = LOSSES[name]
    a, b = WHERE["ordinary"]
    step = 1e-6
    slope = (theirs(a + step, b, LABELS).loss - theirs(a - step, b, LABELS).loss) / (2 * step)
    np.testing.assert_allclose(theirs(a, b, LABELS).by_a, slope, rtol=1e-6, atol=1e-8)


def test_all_but_simpo_are_linear_in_the_label_and_so_a_share_of_votes_is_a_mix_of_verdicts():
    a, b = (torch.tensor(values) for values in WHERE["ordinary"])
    for name in ("dpo", "ipo", "orpo", "kto"):
        ours, _ = LOSSES[name]
        shared = ours(a, b, torch.full((6,), 0.75, dtype=torch.float64))
        mixed = 0.75 * ours(a, b, torch.ones(6, dtype=torch.float64)) + 0.25 * ours(a, b, torch.zeros(6).double())
        torch.testing.assert_close(shared, mixed)


def test_simpo_by_hand():
    # rewards 2 · -0.5 = -1 and 2 · -1.5 = -3 lead by 2, of which gamma takes 0.5
    a, b = torch.tensor([-0.5]), torch.tensor([-1.5])
    assert simpo(a, b, torch.ones(1), 2.0, 0.5).item() == pytest.approx(math.log(1 + math.exp(-1.5)))
    # three votes in four ask for half of gamma, a tie for nothing
    shared = 0.75 * math.log(1 + math.exp(-1.75)) + 0.25 * math.log(1 + math.exp(1.75))
    assert simpo(a, b, torch.tensor([0.75]), 2.0, 0.5).item() == pytest.approx(shared)
    tied = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert simpo(a, b, torch.tensor([0.5]), 2.0, 0.5).item() == pytest.approx(tied)


def test_a_margin_of_the_data_adds_to_gamma():
    a, b = torch.tensor([-0.5]), torch.tensor([-1.5])
    for preference in (0.0, 1.0):
        label = torch.tensor([preference])
        torch.testing.assert_close(simpo(a, b, label, 2.0, 0.5, margin=0.25), simpo(a, b, label, 2.0, 0.75))


def test_odds_by_hand():
    # probabilities 1/2, 0.8 and 1/5 have odds 1, 4 and 1/4
    means = torch.tensor([0.5, 0.8, 0.2], dtype=torch.float64).log()
    torch.testing.assert_close(log_odds(means).exp(), torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64))


def test_a_certain_response_has_finite_odds_and_no_gradient():
    mean = torch.tensor([0.0, -1e-12, -1e-7], requires_grad=True)
    odds = log_odds(mean)
    odds.sum().backward()
    assert torch.isfinite(odds).all()
    assert mean.grad.tolist() == [0.0, 0.0, pytest.approx(1e7, rel=1e-4)]


def test_orpo_by_hand():
    # means log 0.8 and log 0.5: odds 4 and 1, so the better one has -log sigmoid(log 4) = log 1.25
    a, b = torch.tensor([0.8]).log(), torch.tensor([0.5]).log()
    assert orpo(a, b, torch.ones(1), 0.5).item() == pytest.approx(-math.log(0.8) + 0.5 * math.log(1.25))
    assert orpo(a, b, torch.zeros(1), 0.5).item() == pytest.approx(-math.log(0.5) + 0.5 * math.log(5))
    tied = (-math.log(0.8) - math.log(0.5)) / 2 + 0.5 * (math.log(1.25) + math.log(5)) / 2
    assert orpo(a, b, torch.full((1,), 0.5), 0.5).item() == pytest.approx(tied)


def test_kto_by_hand():
    # log-ratio 3 at z0 = 1 and beta 0.5: sigmoid(1) = 0.731 of the value of a good response is there
    r, value = torch.tensor([3.0]), 1 / (1 + math.exp(-1))
    assert kto(r, torch.ones(1), 1.0, 0.5, desirable_weight=2.0).item() == pytest.approx(2 * (1 - value))
    assert kto(r, torch.zeros(1), 1.0, 0.5, undesirable_weight=3.0).item() == pytest.approx(3 * value)


def test_who_cannot_say_has_no_say_in_kto():
    r = torch.tensor([3.0, -2.0], requires_grad=True)
    kto(r, torch.full((2,), 0.5), 1.0, 0.5).sum().backward()
    assert r.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-8)


def test_no_gradient_goes_through_the_reference_point():
    r, z0 = torch.tensor([3.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    kto(r, torch.ones(1), z0, 0.5).sum().backward()
    assert r.grad is not None
    assert z0.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extremes_stay_finite_in_half_precision(dtype):
    a, b, label = (torch.tensor(values, dtype=dtype) for values in (*WHERE["extreme"], LABELS))
    for ours, _ in LOSSES.values():
        loss = ours(a, b, label)
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss).all()
