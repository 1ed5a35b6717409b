"""Reward modelling: Bradley-Terry on comparisons with soft targets (Bradley & Terry 1952; Ouyang et al. 2022).

P(a better than b) = sigmoid(score_a - score_b - margin)
loss = cross-entropy of that against the share of raters who preferred a (a tie is 0.5)
       + centering · (score_a + score_b)²
"""

from dataclasses import dataclass

import torch

from keel.algorithms.settings import PairLossConfig
from keel.batch.pack import pack
from keel.batch.types import PairBatch
from keel.functional.preference_losses import bradley_terry
from keel.models.reward import RewardModel
from keel.train.step import LossTerms


@dataclass
class RewardModelling:
    """Both responses of a pair share their prompt in one forward pass."""

    model: RewardModel
    config: PairLossConfig

    def prepare(self, batch: PairBatch) -> PairBatch:
        return batch

    def loss(self, rows: PairBatch) -> LossTerms:
        scores = self.model.score(pack(rows))
        a, b = scores[0::2], scores[1::2]
        losses = (
            bradley_terry(a, b, rows.preference, margin=rows.margin, label_smoothing=self.config.label_smoothing)
            + self.config.centering * (a + b).square()
        )
        decided = rows.preference != 0.5
        right = ((a > b) == (rows.preference > 0.5))[decided].sum()
        return LossTerms(
            total=(rows.weight * losses).sum(),
            count=rows.weight.sum(),
            figure_count=decided.sum(),
            sums={"accuracy": right},
            maxima={"score_abs_max": torch.maximum(a.abs().max(), b.abs().max())},
        )
