"""Supervised fine-tuning: maximise the log-probability of the demonstrated responses.

loss = - sum over response tokens of log pi(token | what came before) / number of response tokens
"""

from dataclasses import dataclass

from torch import nn

from keel.batch.pack import pack
from keel.batch.types import TokenBatch
from keel.models.packed import token_logprobs
from keel.train.step import LossTerms


@dataclass
class SFT:
    """Completion-only cross-entropy; the mean is over the response tokens of the whole batch."""

    policy: nn.Module

    def prepare(self, batch: TokenBatch) -> TokenBatch:
        return batch

    def loss(self, rows: TokenBatch) -> LossTerms:
        logprobs, _ = token_logprobs(self.policy, pack(rows))
        total = -logprobs.masked_fill(~rows.response_mask, 0).sum()
        return LossTerms(total=total, count=rows.response_mask.sum())
