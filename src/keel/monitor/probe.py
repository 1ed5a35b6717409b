"""The golden probe of a reward model: is it right where seniors judged, and as right there as where it was trained?"""

from math import isfinite

from keel.monitor.bands import accuracy_word
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Figure, Verdict

FEW = 200
"""Golden pairs below which the probe says little: its interval is wider than 13 points."""
OVERFIT_GAP = 0.1
"""How much better a model must be on training pairs, beyond both intervals, to have learned them by heart."""


def golden_probe(
    accuracy: float,
    low: float,
    high: float,
    decided: int,
    *,
    train_accuracy: float,
    train_low: float,
    seen: int = 0,
    thresholds: Thresholds = DEFAULT,
) -> Verdict:
    """Accuracy on golden pairs, in [0, 1] with its 95 % interval, beside that on `train_low`'s training pairs.

    `seen` counts golden pairs that are among the training pairs. "act" means failed: such a model is not promoted.
    """
    overfit = train_low > high and train_accuracy - accuracy > OVERFIT_GAP
    figures: dict[str, Figure] = {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "decided_pairs": decided,
        "train_accuracy": train_accuracy,
        "overfit": overfit,
        "seen": seen,
    }
    if not isfinite(accuracy):
        message = "The golden probe measured nothing: no golden pair has a preferred side."
        return Verdict("act", "golden_probe", message, figures, "Let seniors judge golden pairs that are not ties.")
    found = (
        f"On {decided} golden pairs the reward model is right on {accuracy:.1%} (95 % interval {low:.1%} to {high:.1%})"
    )
    if seen:
        return Verdict(
            "act",
            "golden_probe",
            f"{found}, but {seen} of them were trained on: this measures memory.",
            figures,
            "Take the golden pairs out of data.comparisons, and train again.",
        )
    if accuracy_word(accuracy, thresholds) == "fail" or low <= 0.5:
        return Verdict(
            "act",
            "golden_probe",
            f"{found}: it has not learned what seniors see.",
            figures,
            "Compare the raters' votes on golden items with the seniors' first; then the guide, then more pairs.",
        )
    if overfit:
        return Verdict(
            "act",
            "golden_probe",
            f"{found}, and on training pairs on {train_accuracy:.1%}: it has learned them by heart.",
            figures,
            "Train for fewer epochs or at a lower rate, or add pairs; look for a cue that only training pairs have.",
        )
    message = f"{found}, on training pairs on {train_accuracy:.1%}."
    if decided < FEW:
        remedy = f"Have seniors judge {FEW} to 500 golden pairs: with {decided} the interval is wide."
        return Verdict("watch", "golden_probe", message, figures, remedy)
    return Verdict("ok", "golden_probe", message, figures)
