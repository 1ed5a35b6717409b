"""What the reward that a policy implies is worth on held-out thumbs up and down."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from keel.evaluate.reward_report import correlation
from keel.stats.auc import auc
from keel.stats.ranking import BagOfWordsBradleyTerry


def separation(rewards: Tensor, desirable: Sequence[float]) -> dict[str, float]:
    """How often a good response's reward [N] exceeds a bad one's, over all pairs of the two, with a 95 % interval."""
    found = auc(rewards.double().numpy(), desirable)
    return {"accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}


def rating_report(
    rewards: Tensor,
    lengths: Sequence[int],
    texts: Sequence[str],
    desirable: Sequence[float],
    train_texts: Sequence[str],
    train_desirable: Sequence[float],
) -> dict[str, Any]:
    """Everything that the report of held-out ratings holds.

    rewards, lengths (tokens), texts and desirable are of the held-out responses; the bag-of-words rival is fitted on
    the training texts, each good one beside a bad one.
    """
    return {
        **separation(rewards, desirable),
        "baseline_longer": auc(lengths, desirable).value,
        "baseline_bag_of_words": bag_of_words(train_texts, train_desirable, texts, desirable),
        "score_mean": float(rewards.mean()),
        "score_std": float(rewards.std()),
        "score_abs_max": float(rewards.abs().max()),
        "score_abs_mean": float(rewards.abs().mean()),
        "score_length_correlation": correlation(rewards, lengths),
        "desirable_share": sum(desirable) / len(desirable),
        "held_out_ratings": len(desirable),
    }


def bag_of_words(
    train: Sequence[str], train_desirable: Sequence[float], held_out: Sequence[str], desirable: Sequence[float]
) -> float:
    """How well a Bradley-Terry model on word counts tells the held-out texts apart."""
    sides: tuple[list[str], list[str]] = ([], [])
    for text, good in zip(train, train_desirable, strict=True):
        sides[good < 0.5].append(text)
    good, bad = sides
    longest = max(len(good), len(bad))  # the rarer kind serves again, so that every text is seen
    pairs = [(good[i % len(good)], bad[i % len(bad)]) for i in range(longest)]
    model = BagOfWordsBradleyTerry().fit([a for a, _ in pairs], [b for _, b in pairs], [1.0] * longest)
    return auc(model.scores(held_out), desirable).value
