"""Rules for what is trained on a fixed set: by comparisons, a reward model, by demonstrations.

Pure functions like those of keel.monitor. Where a log has no held-out figures, those of training stand in and only the
faults that show there are named.
"""

from math import isfinite, log

import numpy as np

from keel.monitor.bands import accuracy_word, reward_saturation
from keel.monitor.history import History, number
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import Figure, Level, Verdict
from keel.stats.arrays import Floats

WATCH_RISE, ACT_RISE = 0.02, 0.10
"""By how much of its lowest value a held-out loss has risen when it is worth a look, and when training went on too
long. keel's own lines."""
GAP = 0.15
"""How much better than on held-out pairs a model ranks its training pairs when it has learned them by heart."""
DISPLACED = 0.25
"""Share by which the log-probability of chosen answers sinks when a policy forgets them. DPO lowers it by a tenth or
two in many a run that ends well. keel's own line."""
SATURATED_LOSS = 0.1
"""A pair loss of -log sigma(2.25): pairs are told apart with 90 % certainty, and little is left to learn."""
VITAL = ("loss", "policy_loss", "score_mean", "reward_mean", "kl_nats_per_token", "kl_nats_per_sequence", "accuracy")


def start_and_end(values: Floats) -> tuple[float, float]:
    """Mean of the first and of the last tenth, ten values at most, of the finite ones; nan where there are none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    window = max(1, min(10, len(known) // 10))
    return float(known[:window].mean()), float(known[-window:].mean())


def not_finite(history: History, thresholds: Thresholds) -> Verdict:
    """Whether vital figures were logged as nan or infinite: for good, or here and there."""
    rows = history.steps.rows
    bad = [
        (int(row["step"]), name) for row in rows for name in VITAL if name in row and not isfinite(number(row[name]))
    ]
    if not bad:
        return Verdict("ok", "not_finite", "Every figure that was logged is a number.")
    names = ", ".join(dict.fromkeys(name for _, name in bad))
    figures: dict[str, Figure] = {"updates": len({step for step, _ in bad}), "first": bad[0][0], "names": names}
    if bad[-1][0] == history.steps.step:
        return Verdict(
            "stop",
            "not_finite",
            f"{names}: not a number since update {_since(rows, bad)}, to the end.",
            figures,
            "Go back to the last checkpoint before it; what was trained since is lost.",
            "The training diverged: a rate too high, a division by nothing, or log-probabilities of -inf.",
            1.0,
        )
    return Verdict(
        "watch",
        "not_finite",
        f"{names}: not a number in {figures['updates']} of {len(rows)} updates, the first at {bad[0][0]}.",
        figures,
        "Find out what those updates trained on; a lower learning rate helps if they become more.",
        "Single batches overflow.",
        0.8,
    )


def _since(rows: list, bad: list[tuple[int, str]]) -> int:
    """The first step of the unbroken stretch of bad ones at the end."""
    steps = {step for step, _ in bad}
    since = bad[-1][0]
    for row in reversed(rows):
        if int(row["step"]) not in steps:
            break
        since = int(row["step"])
    return since


def held_out_loss(history: History, thresholds: Thresholds) -> Verdict:
    """Whether the loss on held-out data has turned and risen while training went on."""
    rule = "overfitting"
    losses = history.evaluations.known("loss")
    if not len(losses):
        losses = np.array([log(value) for value in history.evaluations.known("perplexity") if value > 0])
    if len(losses) < 3:
        return _not_measured(rule, "three evaluations with a loss on held-out data")
    lowest, last = float(losses.min()), float(losses[-1])
    rise = (last - lowest) / max(abs(lowest), 1e-9)
    figures: dict[str, Figure] = {"lowest": lowest, "last": last, "rise": rise}
    level: Level = "act" if rise > ACT_RISE else "watch" if rise > WATCH_RISE else "ok"
    if level == "ok":
        return Verdict("ok", rule, f"The held-out loss ended at {last:.3f}, near its lowest ({lowest:.3f}).", figures)
    at = int(losses.argmin()) + 1
    return Verdict(
        level,
        rule,
        f"The held-out loss was lowest at evaluation {at} of {len(losses)} ({lowest:.3f}) and rose to {last:.3f}.",
        figures,
        f"Take the checkpoint of evaluation {at}, and train no longer than that.",
        "The model learns its training data by heart.",
        0.9 if level == "act" else 0.6,
    )


def gap(history: History, thresholds: Thresholds) -> Verdict:
    """Whether training pairs are ranked far better than held-out ones."""
    rule = "memorised"
    _, training = start_and_end(history.steps.values("accuracy"))
    held_out = history.evaluations.known("accuracy")
    if not isfinite(training) or not len(held_out):
        return _not_measured(rule, "accuracy on training and on held-out pairs")
    figures: dict[str, Figure] = {"accuracy_training": training, "accuracy_held_out": float(held_out[-1])}
    found = f"{training:.0%} of training pairs and {held_out[-1]:.0%} of held-out pairs are ranked right"
    if training - held_out[-1] > GAP:
        return Verdict(
            "act" if training > 0.95 else "watch",
            rule,
            f"{found}: a gap of {100 * (training - held_out[-1]):.0f} points.",
            figures,
            "Train for fewer epochs or at a lower rate, or add pairs.",
            "The pairs are learned by heart, not what makes the chosen ones better.",
            0.8,
        )
    return Verdict("ok", rule, f"{found}.", figures)


def pair_accuracy(history: History, thresholds: Thresholds) -> Verdict:
    """How many pairs are ranked right, held-out ones where there are any."""
    rule = "pair_accuracy"
    held_out = history.evaluations.known("accuracy")
    _, training = start_and_end(history.steps.values("accuracy"))
    accuracy = float(held_out[-1]) if len(held_out) else training
    if not isfinite(accuracy):
        return _not_measured(rule, "the share of pairs that are ranked right")
    where = "held-out" if len(held_out) else "training"
    figures: dict[str, Figure] = {"accuracy": accuracy, "pairs": where}
    word = accuracy_word(accuracy, thresholds)
    found = f"{accuracy:.1%} of {where} pairs are ranked right"
    if word == "fail" or (word == "warn" and not len(held_out)):
        return Verdict(
            "act",
            rule,
            f"{found}, below {thresholds.accuracy_fail if word == 'fail' else thresholds.accuracy_warn:.0%}.",
            figures,
            "Check the labels first: rater agreement, the guide, swapped columns. Then add pairs, or train longer.",
            "Little of the preference was learned: noisy or swapped labels, too few pairs, or too low a rate.",
            0.8,
        )
    if word == "warn":
        return Verdict(
            "watch",
            rule,
            f"{found}: weak.",
            figures,
            "Add pairs or clean the labels.",
            "Noisy labels or few pairs.",
            0.6,
        )
    if word == "suspicious" and len(held_out):
        return Verdict(
            "watch",
            rule,
            f"{found}, more than human preferences usually allow.",
            figures,
            "Look for held-out pairs in the training set, and for a cue that gives the label away.",
            "Leaked pairs, or a trivial cue such as length or source.",
            0.6,
        )
    return Verdict("ok", rule, f"{found}.", figures)


def chosen_falls(history: History, thresholds: Thresholds) -> Verdict:
    """Whether chosen answers became less likely than under the reference, though only rejected ones should."""
    rule = "chosen_falls"
    fall = _fall_of_chosen(history)
    _, implicit = start_and_end(history.steps.values("chosen_reward"))
    if not (isfinite(fall) or isfinite(implicit)):
        return _not_measured(rule, "the log-probability or the implicit reward of chosen answers")
    start, _ = start_and_end(history.steps.values("chosen_logprob"))
    share = fall / abs(start) if isfinite(start) and start else 1.0  # of all the nats that they cost at the start
    figures: dict[str, Figure] = {"chosen_logprob_fall": fall, "chosen_reward": implicit, "share": share}
    line = thresholds.kl_stop_per_sequence
    if isfinite(fall) and fall > line and share > DISPLACED:
        return Verdict(
            "act",
            rule,
            f"Chosen answers lost {fall:.1f} nats of log-probability, {share:.0%} of what they cost.",
            figures,
            "Hold the policy closer to its reference, and add a likelihood term for chosen answers.",
            "The margin grows by pushing both answers down, the rejected one faster (likelihood displacement); what "
            "gains is neither of them.",
            0.8,
        )
    if fall > line / 2 or (implicit < -1 and not isfinite(fall)):
        size = f"{fall:.1f} nats" if isfinite(fall) else f"an implicit reward of {implicit:.2f}"
        return Verdict(
            "watch",
            rule,
            f"Chosen answers are less likely than at the start ({size}).",
            figures,
            "Read some answers of the policy; if they wander, hold it closer to its reference.",
            "Both answers of a pair fall, the rejected one faster (likelihood displacement).",
            0.6,
        )
    return Verdict("ok", rule, "Chosen answers are about as likely as at the start, or more so.", figures)


def _fall_of_chosen(history: History) -> float:
    """Nats per answer that chosen answers lost."""
    for series in (history.evaluations, history.steps):  # the same held-out pairs each time are compared best
        _, ratio = start_and_end(series.values("chosen_log_ratio"))
        if isfinite(ratio):
            return -ratio
        first, last = start_and_end(series.values("chosen_logprob"))
        if isfinite(first) and len(series.known("chosen_logprob")) > 1:
            return first - last
    return float("nan")


def saturated(history: History, thresholds: Thresholds) -> Verdict:
    """Whether a preference loss has nothing left to learn from its pairs."""
    rule = "saturated_loss"
    _, loss = start_and_end(history.steps.values("loss"))
    _, accuracy = start_and_end(history.steps.values("accuracy"))
    if not (isfinite(loss) and isfinite(accuracy)):
        return _not_measured(rule, "loss and accuracy on training pairs")
    figures: dict[str, Figure] = {"loss": loss, "accuracy": accuracy}
    if loss < SATURATED_LOSS and accuracy > 0.98:
        return Verdict(
            "watch",
            rule,
            f"The training loss is {loss:.3f} and {accuracy:.0%} of training pairs are ranked right.",
            figures,
            "Stop earlier, or at a lower rate; the margins grow without end from here.",
            "The pairs are told apart with near certainty, so the policy only moves further from its reference.",
            0.7,
        )
    return Verdict("ok", rule, f"The training loss is {loss:.3f}: the pairs still teach.", figures)


def score_size(history: History, thresholds: Thresholds) -> Verdict:
    """Whether a reward model's scores ran away."""
    known = history.steps.known("score_abs_max")
    if not len(known):
        return _not_measured("reward_saturation", "the largest score")
    return reward_saturation(float(known[-1]), thresholds=thresholds)


def no_learning(history: History, thresholds: Thresholds) -> Verdict:
    """Whether the training loss fell at all; a model that ranks pairs well when it starts need not learn more."""
    rule = "no_learning"
    losses = history.steps.known("loss")
    if len(losses) < 10:
        return _not_measured(rule, "ten steps with a loss")
    first, last = start_and_end(losses)
    accuracy = max([*history.evaluations.known("accuracy")[-1:], *history.steps.known("accuracy")[-1:]], default=0.0)
    tenth = max(2, len(losses) // 10)
    noise = float(np.hypot(losses[:tenth].std(ddof=1), losses[-tenth:].std(ddof=1)) / np.sqrt(tenth))
    figures: dict[str, Figure] = {"loss_first": first, "loss_last": last}
    if first - last <= 2 * noise and first - last < 0.02 * abs(first) and accuracy < thresholds.accuracy_warn:
        return Verdict(
            "watch",
            rule,
            f"The training loss began at {first:.3f} and ended at {last:.3f}: it did not fall.",
            figures,
            "Raise the learning rate, or look whether the labels are masked out.",
            "Too low a rate, frozen weights, or nothing left to learn.",
            0.6,
        )
    return Verdict("ok", rule, f"The training loss went from {first:.3f} to {last:.3f}.", figures)


def _not_measured(rule: str, what: str) -> Verdict:
    return Verdict("ok", rule, f"Not measured: it takes {what}.")
