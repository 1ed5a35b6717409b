"""How much better than expected: advantages from rewards or scores."""

import torch
from torch import Tensor

from keel.functional.checks import boolean, same_shape


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and their returns (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    rewards, values [B, T]; mask [B, T] bool, True on response tokens. `values` is the return expected *before* each
    token; after the last True position it is 0, so nothing is bootstrapped past the end. Positions under a False mask
    are skipped, at the ends or in the middle: the next True position follows on. Returns (advantages, returns), both
    [B, T] and 0 outside the mask; returns = advantages + values, taken before any whitening.
    """
    same_shape(rewards=rewards, values=values, mask=mask)
    boolean(mask=mask)
    advantages = torch.zeros_like(rewards)
    advantage = next_value = rewards.new_zeros(rewards.shape[0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = torch.where(mask[:, t], delta + gamma * lam * advantage, advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        advantages[:, t] = advantage
    advantages = advantages.masked_fill(~mask, 0.0)
    return advantages, (advantages + values).masked_fill(~mask, 0.0)


def reward_to_go(rewards: Tensor, mask: Tensor) -> Tensor:
    """Sum of the rewards from each token on, [B, T]: REINFORCE's return (Williams 1992), undiscounted.

    `gae` without values and with lam = 1; rewards under a False mask count for nothing, and there it is 0.
    """
    return gae(rewards, torch.zeros_like(rewards), mask, 1.0, 1.0)[0]


def leave_one_out(scores: Tensor, fanout: Tensor) -> Tensor:
    """Each score minus the mean of its prompt's other scores: RLOO (Ahmadian et al. 2024, arXiv 2402.14740, eq. 6).

    scores [S], one prompt's samples adjacent; fanout [P] samples of each prompt, at least 2. Returns [S]; a prompt's
    advantages sum to zero, and a prompt with equal scores teaches nothing.
    """
    if bool((fanout < 2).any()):
        raise ValueError(
            f"leave-one-out needs at least 2 samples a prompt, prompt {int(fanout.argmin())} has {int(fanout.min())}"
        )
    group, count = _groups(scores, fanout)
    return (scores - _group_mean(scores, group, count)) * (count / (count - 1))[group]


def group_centred(scores: Tensor, fanout: Tensor) -> Tensor:
    """Each score minus the mean of its prompt's scores: Dr. GRPO (Liu et al. 2025, arXiv 2503.20783).

    Shapes as in `leave_one_out`; (k - 1) / k of it for k samples.
    """
    group, count = _groups(scores, fanout)
    return scores - _group_mean(scores, group, count)


def group_normalised(scores: Tensor, fanout: Tensor, eps: float = 1e-4) -> Tensor:
    """Each score standardised within its prompt's scores: GRPO (Shao et al. 2024, arXiv 2402.03300, sec. 4.1.2).

    Shapes as in `leave_one_out`. The deviation divides by k - 1; equal scores give 0. Dividing by it weighs prompts by
    how alike their samples are: `group_centred` does not.
    """
    group, count = _groups(scores, fanout)
    centred = scores - _group_mean(scores, group, count)
    variance = _group_mean(centred.square(), group, count) * (count / (count - 1).clamp(min=1))[group]
    return centred / (variance.sqrt() + eps)


def all_alike(scores: Tensor, fanout: Tensor, tolerance: float = 1e-6) -> Tensor:
    """[P] bool, True for a prompt whose scores differ by no more than `tolerance`; shapes as in `leave_one_out`.

    Compared with each other such samples teach nothing (DAPO, Yu et al. 2025, arXiv 2503.14476, sec. 3.2).
    """
    spreads = [group.max() - group.min() for group in scores.split(fanout.tolist())]
    return torch.tensor([bool(spread <= tolerance) for spread in spreads], dtype=torch.bool, device=scores.device)


def _groups(scores: Tensor, fanout: Tensor) -> tuple[Tensor, Tensor]:
    """[S] the prompt of each score, and [P] the samples of each prompt in the dtype of scores."""
    if scores.dim() != 1 or int(fanout.sum()) != len(scores):
        raise ValueError(f"scores {list(scores.shape)} must be flat, one for each of the {int(fanout.sum())} samples")
    return torch.repeat_interleave(torch.arange(len(fanout), device=scores.device), fanout), fanout.to(scores.dtype)


def _group_mean(scores: Tensor, group: Tensor, count: Tensor) -> Tensor:
    """[S] the mean of the scores of each score's prompt."""
    return (torch.zeros_like(count).index_add(0, group, scores) / count)[group]
