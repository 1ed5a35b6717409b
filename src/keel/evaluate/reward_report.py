"""What a reward model is worth: held-out accuracy beside the trivial baselines, calibration, spread."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keel.batch.collate import EncodedPair, pair_batch
from keel.core.errors import TrainingError
from keel.data.records import Comparison
from keel.stats.calibration import expected_calibration_error, reliability_bins
from keel.stats.intervals import wilson
from keel.stats.ranking import (
    BagOfWordsBradleyTerry,
    count_correct,
    longer_wins_accuracy,
    preference_accuracy,
)
from keel.train.judge import Responses, Scorer


def score_pairs(scorer: Scorer, pairs: Sequence[EncodedPair]) -> tuple[Tensor, Tensor]:
    """Scores [P] of the first and of the second responses, in the scorer's own unit.

    Raises TrainingError when one is not a finite number.
    """
    batch = pair_batch(pairs)
    blank = [""] * batch.num_responses
    finished = torch.ones(batch.num_responses, dtype=torch.bool)
    scores = scorer.score(Responses(batch=batch, prompt_texts=blank, response_texts=blank, finished=finished))
    if not scores.isfinite().all():
        raise TrainingError(
            f"{int((~scores.isfinite()).sum())} of {len(scores)} scores are not finite numbers, so the reward model "
            "cannot be measured: its training diverged. Lower reward.optim.learning_rate."
        )
    return scores[0::2], scores[1::2]


def accuracy_figures(a: Tensor, b: Tensor, preference: Sequence[float]) -> dict[str, float]:
    """Accuracy on decided pairs with a 95 % Wilson interval; equal scores count half."""
    right, decided = count_correct((a - b).numpy(), np.asarray(preference))
    low, high = wilson(right, decided)
    return {
        "accuracy": right / decided if decided else float("nan"),
        "accuracy_low": low,
        "accuracy_high": high,
        "decided_pairs": decided,
    }


def reward_figures(
    scorer: Scorer, pairs: Sequence[EncodedPair], records: Sequence[Comparison], train: Sequence[Comparison]
) -> dict[str, Any]:
    """`figures_of_scores` with the scores of `scorer`."""
    a, b = score_pairs(scorer, pairs)
    return figures_of_scores(a, b, pairs, records, train)


def figures_of_scores(
    a: Tensor,
    b: Tensor,
    pairs: Sequence[EncodedPair],
    records: Sequence[Comparison],
    train: Sequence[Comparison],
) -> dict[str, Any]:
    """Everything that a reward's report holds, from its scores [P] of held-out responses, the pairs and their records.

    The bag-of-words baseline is fitted on `train`, the records that the reward was learned from.
    """
    preference = np.array([p.preference for p in pairs])
    both = torch.cat([a, b])
    # Both orders of every pair, so that data that always names the better response first is no shortcut.
    probability = torch.sigmoid(torch.cat([a - b, b - a])).double().numpy()
    outcome = np.concatenate([preference, 1 - preference])
    return {
        **accuracy_figures(a, b, [p.preference for p in pairs]),
        "baseline_longer": longer_wins_accuracy([len(p.a) for p in pairs], [len(p.b) for p in pairs], preference),
        "baseline_bag_of_words": bag_of_words_accuracy(train, records),
        "ece": expected_calibration_error(probability, outcome),
        "reliability": [
            {
                "low": bin.low,
                "high": bin.high,
                "count": bin.count,
                "predicted": bin.mean_probability,
                "observed": bin.mean_label,
            }
            for bin in reliability_bins(probability, outcome)
        ],
        "score_mean": float(both.mean()),
        "score_std": float(both.std()),
        "score_abs_max": float(both.abs().max()),
        "score_abs_mean": float(both.abs().mean()),
        "score_length_correlation": correlation(both, [len(p.a) for p in pairs] + [len(p.b) for p in pairs]),
        "held_out_pairs": len(pairs),
    }


def bag_of_words_accuracy(train: Sequence[Comparison], held_out: Sequence[Comparison]) -> float:
    """Held-out accuracy of a Bradley-Terry model on word counts: what vocabulary alone gives away."""
    model = BagOfWordsBradleyTerry().fit([c.a for c in train], [c.b for c in train], [c.preference for c in train])
    gaps = model.scores([c.a for c in held_out]) - model.scores([c.b for c in held_out])
    return preference_accuracy(gaps, [c.preference for c in held_out])


def correlation(scores: Tensor, lengths: Sequence[int]) -> float:
    """Pearson correlation of scores with lengths; 0 when either is constant."""
    x, y = scores.double(), torch.tensor(lengths, dtype=torch.float64)
    if float(x.std()) == 0 or float(y.std()) == 0:
        return 0.0
    return float(torch.corrcoef(torch.stack([x, y]))[0, 1])
