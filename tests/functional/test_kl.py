"""KL estimators, as a report and as a penalty: SCIENCE T3 and T4."""

import math

import pytest
import torch
from torch import Tensor

from keel.functional.kl import adaptive_coefficient, exact_kl, kl_k1, kl_k2, kl_k3
from keel.functional.policy_losses import clipped_surrogate

REWARD = torch.tensor([1.0, 0.8, 0.3, 0.0, -0.5, 0.6], dtype=torch.float64)
REF = torch.tensor([0.05, 0.10, 0.30, 0.30, 0.20, 0.05], dtype=torch.float64)
COEF = 0.5


def test_estimators_by_hand():
    # the policy gives a token probability 1/2, the reference 1/4: the log-ratio is log 2
    logprobs, ref_logprobs = torch.tensor([0.5, 0.25]).log()
    assert kl_k1(logprobs, ref_logprobs) == pytest.approx(math.log(2))
    assert kl_k2(logprobs, ref_logprobs) == pytest.approx(math.log(2) ** 2 / 2)
    assert kl_k3(logprobs, ref_logprobs) == pytest.approx(0.5 - 1 + math.log(2))


def test_exact_kl_by_hand():
    # (1/2, 1/2) against (1/4, 3/4): log 2 / 2 + log(2/3) / 2
    found = exact_kl(torch.zeros(1, 2), torch.tensor([[1.0, 3.0]]).log())
    torch.testing.assert_close(found, torch.tensor([math.log(2) / 2 + math.log(2 / 3) / 2]))


@pytest.mark.parametrize("spread", [0.4, 1.2, 2.0, 3.0])
def test_k1_and_k3_are_unbiased_and_k2_is_not(spread):
    generator = torch.Generator().manual_seed(0)
    ref, policy = (torch.randn(50, generator=generator, dtype=torch.float64) * spread for _ in range(2))
    exact = exact_kl(policy, ref)
    drawn = torch.multinomial(policy.softmax(-1), 400_000, replacement=True, generator=generator)
    logprobs, ref_logprobs = policy.log_softmax(-1)[drawn], ref.log_softmax(-1)[drawn]
    z = {
        k.__name__: float((k(logprobs, ref_logprobs).mean() - exact) / k(logprobs, ref_logprobs).std() * 400_000**0.5)
        for k in (kl_k1, kl_k2, kl_k3)
    }
    assert abs(z["kl_k1"]) < 3
    assert abs(z["kl_k3"]) < 3
    assert abs(z["kl_k2"]) > 3


def test_estimates_are_never_clamped():
    far, near = torch.tensor([0.0, -40.0]), torch.tensor([-40.0, 0.0])
    assert kl_k1(far, near).tolist() == [40, -40]
    assert kl_k2(far, near).tolist() == [800, 800]
    assert kl_k3(far, near).tolist() == [39, pytest.approx(math.exp(40) - 41)]


def penalty(mode: str, logprobs: Tensor, ref_logprobs: Tensor) -> tuple[Tensor, Tensor]:
    """(what goes off the reward, what goes onto the loss) for each token."""
    estimator = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}[mode[:2]]
    if mode.endswith("reward"):
        return estimator(logprobs.detach(), ref_logprobs), torch.zeros_like(logprobs)
    return torch.zeros_like(logprobs), estimator(logprobs, ref_logprobs)


def expected_loss(logits: Tensor, ref_logprobs: Tensor, reward: Tensor, mode: str, coef: float) -> Tensor:
    """A policy-gradient loss on every token, weighed by its probability: what sampling gives on average."""
    logprobs = logits.log_softmax(-1)
    off_reward, onto_loss = penalty(mode, logprobs, ref_logprobs)
    terms = clipped_surrogate(logprobs, logprobs.detach(), reward - coef * off_reward) + coef * onto_loss
    return (logprobs.detach().exp() * terms).sum()


@pytest.mark.parametrize(
    ("mode", "true_gradient"),
    [
        ("k1 in the reward", lambda policy, ref: exact_kl(policy, ref)),
        ("k2 in the loss", lambda policy, ref: exact_kl(policy, ref)),
        ("k3 in the loss", lambda policy, ref: exact_kl(ref, policy)),
        ("k1 in the loss", lambda policy, ref: 0 * policy.sum()),
    ],
)
def test_each_penalty_has_the_gradient_that_its_name_promises(mode, true_gradient):
    generator = torch.Generator().manual_seed(1)
    ref, policy = (torch.randn(50, generator=generator, dtype=torch.float64) * 1.5 for _ in range(2))
    policy.requires_grad_()
    loss = expected_loss(policy, ref.log_softmax(-1), torch.zeros_like(ref), mode, coef=1.0)
    found = torch.autograd.grad(loss, policy)[0]
    wanted = torch.autograd.grad(true_gradient(policy, ref), policy)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-12)


def train(mode: str, coef: float = COEF, entropy_coef: float = 0.0, steps: int = 1500) -> Tensor:
    """The bandit's policy after exact gradient descent from the reference."""
    logits = REF.log().clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = expected_loss(logits, REF.log(), REWARD, mode, coef)
        (loss - entropy_coef * entropy(logits)).backward()
        optimizer.step()
    return logits.detach()


def entropy(logits: Tensor) -> Tensor:
    """In nats."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum()


def reverse_optimum() -> Tensor:
    """Maximiser of E[reward] - coef KL(policy || ref)."""
    return (REF.log() + REWARD / COEF).log_softmax(-1)


def forward_optimum() -> Tensor:
    """Maximiser of E[reward] - coef KL(ref || policy): coef ref / (level - reward), with the level that sums to 1."""
    low, high = REWARD.max(), REWARD.max() + 10
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if (COEF * REF / (level - REWARD)).sum() > 1 else (low, level)
    return (COEF * REF / (low - REWARD)).log()


@pytest.mark.parametrize("mode", ["k1 in the reward", "k2 in the loss"])
def test_k1_in_the_reward_and_k2_in_the_loss_reach_the_reverse_kl_optimum(mode):
    policy = train(mode)
    assert exact_kl(policy, reverse_optimum()) < 0.002
    assert exact_kl(policy, forward_optimum()) > 0.03


def test_k3_in_the_loss_reaches_the_forward_kl_optimum_instead():
    policy = train("k3 in the loss")
    assert exact_kl(policy, forward_optimum()) < 0.002
    assert exact_kl(policy, reverse_optimum()) > 0.03


def test_k1_in_the_loss_is_no_penalty_at_all():
    policy = train("k1 in the loss")
    torch.testing.assert_close(policy, train("k1 in the loss", coef=0.0), rtol=0, atol=1e-6)
    assert (policy.softmax(-1) * REWARD).sum() > 0.95 * REWARD.max()
    assert exact_kl(policy, reverse_optimum()) > 0.1


def test_a_weaker_kl_penalty_makes_the_policy_less_diverse():
    # C10: the advice against mode collapse was to lower the coefficient
    diversity = [entropy(train("k1 in the reward", coef)).item() for coef in (1.0, 0.5, 0.25, 0.1)]
    assert diversity == sorted(diversity, reverse=True)
    assert diversity[-1] < diversity[0] - 0.9


def test_an_entropy_bonus_makes_the_policy_more_diverse_at_the_same_kl_coefficient():
    # maximiser of E[reward] - coef KL + bonus H: exp((coef log ref + reward) / (coef + bonus)), normalised
    bonus = 0.2
    policy = train("k1 in the reward", entropy_coef=bonus)
    assert exact_kl(policy, (COEF * REF.log() + REWARD) / (COEF + bonus)) < 0.002
    assert entropy(policy) > entropy(reverse_optimum()) + 0.05


def tutorial_kl_loss(logits: Tensor, ref_logits: Tensor, sampler: Tensor) -> Tensor:
    """C11: the mean of ref_logprobs - logprobs over tokens drawn with probabilities `sampler`."""
    return (sampler * (ref_logits.log_softmax(-1) - logits.log_softmax(-1))).sum()


def test_the_kl_loss_of_the_tutorials_is_minus_kl_and_does_not_look_at_the_reference():
    generator = torch.Generator().manual_seed(2)
    policy, ref, other_ref, older = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    policy.requires_grad_()
    own = policy.detach().softmax(-1)
    on_policy = tutorial_kl_loss(policy, ref, own)
    assert on_policy.item() == pytest.approx(-exact_kl(policy, ref).item())
    assert torch.autograd.grad(on_policy, policy)[0].abs().max() < 1e-12

    # on samples of an older policy, as in the second epoch of PPO, it pulls towards that policy
    off_policy, elsewhere = (
        torch.autograd.grad(tutorial_kl_loss(policy, r, older.softmax(-1)), policy)[0] for r in (ref, other_ref)
    )
    torch.testing.assert_close(off_policy, elsewhere)
    torch.testing.assert_close(off_policy, torch.autograd.grad(exact_kl(older, policy), policy)[0])


def test_the_adaptive_coefficient_grows_by_its_closed_form():
    # kl at twice the target is an error of 1, clipped to 0.2; each batch of 64 episodes multiplies by 1 + 0.2 * 64 / 10000
    coef = 0.05
    for _ in range(100):
        coef = adaptive_coefficient(coef, kl=12.0, target=6.0, horizon=10_000, num_episodes=64)
    assert coef == pytest.approx(0.05 * (1 + 0.2 * 64 / 10_000) ** 100, rel=1e-9)


def test_the_adaptive_coefficient_inside_the_clip_and_at_its_bounds():
    assert adaptive_coefficient(0.1, 6.6, 6.0, 100, 10) == pytest.approx(0.1 * 1.01)
    assert adaptive_coefficient(0.1, 6.0, 6.0, 100, 10) == 0.1
    assert adaptive_coefficient(0.1, 0.0, 6.0, 100, 100, low=0.09) == 0.09
    assert adaptive_coefficient(0.1, 99.0, 6.0, 100, 100, high=0.11) == 0.11
    with pytest.raises(ValueError, match="target 0"):
        adaptive_coefficient(0.1, 6.0, 0, 100, 10)


def test_the_adaptive_coefficient_settles_a_linear_plant_on_its_target():
    coef = 0.05
    for _ in range(2000):
        kl = 20 - 100 * coef
        coef = adaptive_coefficient(coef, kl, target=6.0, horizon=10_000, num_episodes=128)
    assert kl == pytest.approx(6.0, rel=0.05)
