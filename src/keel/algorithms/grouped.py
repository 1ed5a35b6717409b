"""What methods share that need no critic: RLOO, GRPO, REINFORCE++ and online DPO."""

from torch import Tensor, nn

from keel.algorithms.ppo import KLPenalty, policy_figures
from keel.algorithms.settings import GroupConfig
from keel.batch.pack import pack
from keel.batch.types import Experience, Rollout
from keel.functional.policy_losses import clipped_surrogate
from keel.models.packed import logprobs_and_entropy
from keel.train.step import LossTerms


def returns(rollout: Rollout, kl: KLPenalty) -> Tensor:
    """[S] the score of each response, less the KL penalty of its tokens where that acts in the reward."""
    return rollout.scores + rollout.sum_per_response(kl.in_reward(rollout))


def clipped_terms(
    policy: nn.Module,
    rows: Experience,
    config: GroupConfig,
    kl: KLPenalty,
    temperature: float,
    *,
    count: Tensor,
    weights: Tensor | None = None,
) -> LossTerms:
    """The clipped surrogate, penalty and entropy bonus summed over tokens, each weighed by `weights` [R] (1 if none).

    `count` is what the sum is a mean of.
    """
    c, kept = config, rows.response_mask
    logprobs, entropy = logprobs_and_entropy(policy, pack(rows), temperature=temperature)
    # Only tokens that count go on, so that nothing elsewhere, not even nan, can reach a gradient.
    logprobs, entropy, old = logprobs[kept], entropy[kept], rows.logprobs[kept]
    surrogate = clipped_surrogate(logprobs, old, rows.advantages[kept], c.clip_low, c.clip_high)
    penalty = kl.in_loss(logprobs, rows.ref_logprobs[kept])
    losses = surrogate + penalty - c.entropy_coef * entropy
    return LossTerms(
        total=(losses if weights is None else weights[kept] * losses).sum(),
        count=count,
        sums=policy_figures(logprobs, old, entropy, surrogate, c.clip_low, c.clip_high),
        figure_count=kept.sum(),
        maxima={"log_ratio_max": (logprobs.detach() - old).abs().max()},
    )
