"""Kahneman-Tversky optimisation: thumbs up and down move the policy, no pairs (Ethayarajh et al. 2024).

r        = log pi/ref of a rated response, summed over its tokens
prepare  z0 = max(0, mean over the batch of log pi/ref of responses to other prompts): how far the policy has moved
loss     desirable:   desirable_weight · (1 - sigmoid(beta · (r - z0)))
         undesirable: undesirable_weight · (1 - sigmoid(beta · (z0 - r)))
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keel.algorithms.settings import KTOConfig
from keel.batch.pack import pack
from keel.batch.types import RatedBatch, RatingBatch, widen
from keel.functional import preference_losses
from keel.models.packed import token_logprobs
from keel.train.rollout import over_micro_batches
from keel.train.step import LossTerms


@dataclass
class KTO:
    """Every rating is judged by itself, against the one z0 of its batch."""

    policy: nn.Module
    config: KTOConfig
    micro_batch_tokens: int
    """Tokens per forward pass of `prepare`."""

    def prepare(self, batch: RatingBatch) -> RatedBatch:
        rated, others = (batch.only(torch.arange(side, batch.num_responses, 2)) for side in (0, 1))
        with torch.no_grad():  # z0 says where the policy is; it is no way to move it
            logprobs = over_micro_batches(
                others, self.micro_batch_tokens, self.policy, lambda packed: token_logprobs(self.policy, packed)[0]
            )
        moved = others.sum_per_response(logprobs) - others.sequence_ref_logprobs
        z0, share = moved.mean().clamp(min=0), batch.desirable.mean()
        return widen(rated, RatedBatch, reference_point=z0.expand(len(batch)), desirable_share=share.expand(len(batch)))

    def loss(self, rows: RatedBatch) -> LossTerms:
        return self.terms(rows.sum_per_response(token_logprobs(self.policy, pack(rows))[0]), rows)

    def terms(self, logprobs: Tensor, rows: RatedBatch) -> LossTerms:
        """The loss of rated responses that have these log-probabilities [P]."""
        c, log_ratios = self.config, logprobs - rows.sequence_ref_logprobs
        losses = preference_losses.kto(
            log_ratios, rows.desirable, rows.reference_point, c.beta, c.desirable_weight, c.undesirable_weight
        )
        said, share = log_ratios.detach(), rows.desirable_share
        chosen = (rows.desirable * said / share.clamp(min=1e-9)).sum()
        rejected = ((1 - rows.desirable) * said / (1 - share).clamp(min=1e-9)).sum()
        return LossTerms(
            total=(rows.weight * losses).sum(),
            count=rows.weight.sum(),
            figure_count=rows.weight.new_tensor(len(rows)),
            sums={
                "reference_point": rows.reference_point.sum(),
                "reward_margin": c.beta * (chosen - rejected),
                "chosen_log_ratio": chosen,
                "rejected_log_ratio": rejected,
            },
        )

    def rewards(self, logprobs: Tensor, rows: RatedBatch) -> Tensor:
        """[P] the rewards that the policy implies, beta · log pi/ref."""
        return self.config.beta * (logprobs - rows.sequence_ref_logprobs)
