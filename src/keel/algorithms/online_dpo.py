"""Online DPO (Guo et al. 2024, arXiv 2402.04792): pairs that the policy has just written, judged by their scores.

prepare   all of a prompt's samples, or the best and the worst by score
label     soft: sigmoid(score_a - score_b), the chance that Bradley-Terry gives a;  hard: 1, 0, or 0.5 for a tie
h         = log pi/ref of response a - log pi/ref of response b, each summed over the response's tokens
loss      DPO's on every pair of a prompt's responses: cross-entropy of sigmoid(kl_coef · h) against the label
          ipo: label · (h - 1/2kl_coef)² + (1 - label) · (h + 1/2kl_coef)²
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keel.algorithms.ppo import KLPenalty
from keel.algorithms.settings import OnlineDPOConfig
from keel.batch.pack import pack
from keel.batch.types import Rollout
from keel.functional.kl import kl_k2
from keel.functional.preference_losses import dpo, ipo
from keel.models.packed import logprobs_and_entropy
from keel.train.step import LossTerms


@dataclass
class OnlineDPO:
    """A policy that learns which of its own samples are better. The KL coefficient is DPO's beta."""

    policy: nn.Module
    config: OnlineDPOConfig
    kl: KLPenalty
    temperature: float = 1.0

    def prepare(self, rollout: Rollout) -> Rollout:
        if self.config.pairs == "all":
            return rollout
        return rollout.only(best_and_worst(rollout.scores, rollout.fanout))

    def loss(self, rows: Rollout) -> LossTerms:
        c, beta = self.config, self.kl.coefficient
        logprobs, entropy = logprobs_and_entropy(self.policy, pack(rows), temperature=self.temperature)
        log_ratios = rows.sum_per_response(logprobs) - rows.sum_per_response(rows.ref_logprobs)
        a, b = pairs_within(rows)
        lead = rows.scores[a] - rows.scores[b]
        labels = torch.sigmoid(lead) if c.label == "soft" else (lead.sign() + 1) / 2
        losses = (dpo if c.loss == "dpo" else ipo)(log_ratios[a], log_ratios[b], labels, beta)
        entropies, lengths = rows.sum_per_response(entropy), rows.sum_per_response(torch.ones_like(entropy))
        moved = rows.sum_per_response(kl_k2(logprobs.detach(), rows.logprobs)) / lengths.clamp(min=1)
        said = beta * (log_ratios[a] - log_ratios[b]).detach() * lead.sign()
        return LossTerms(
            total=(losses - c.entropy_coef * (entropies[a] + entropies[b]) / 2).sum(),
            count=lead.new_tensor(len(lead)),
            sums={
                "policy_loss": losses.detach().sum(),
                "entropy_nats": ((entropies / lengths.clamp(min=1)).detach()[torch.cat([a, b])] / 2).sum(),
                "approx_kl": (moved[torch.cat([a, b])] / 2).sum(),
                "accuracy": ((said.sign() + 1) / 2).sum(),  # a pair without a lead is half right
                "reward_margin": said.sum(),
            },
            maxima={"log_ratio_max": (logprobs.detach() - rows.logprobs)[rows.response_mask].abs().max()},
        )


def best_and_worst(scores: Tensor, fanout: Tensor) -> Tensor:
    """[2P] places of the best and the worst of each prompt's scores [S], in ascending order.

    Equal ones are told apart by their place, so that a prompt with two samples or more always gives two.
    """
    places: list[int] = []
    start = 0
    for group in scores.split(fanout.tolist()):
        order = group.argsort(stable=True).tolist()
        places += sorted((start + order[0], start + order[-1]))
        start += len(group)
    return torch.tensor(places, device=scores.device)


def pairs_within(rows: Rollout) -> tuple[Tensor, Tensor]:
    """[K], [K] the places of the two responses of every pair that answers one prompt."""
    a, b = torch.triu_indices(rows.num_responses, rows.num_responses, 1, device=rows.device)
    same = rows.prompt_of_response[a] == rows.prompt_of_response[b]
    return a[same], b[same]
