"""From figures to verdicts: drift of the policy, worth of a reward model, agreement of raters.

Pure functions of numbers; what counts as good stands in `Thresholds`. A figure that is nan is never ok.
"""

from collections.abc import Sequence
from math import isfinite, nan, sqrt

import numpy as np

from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Figure, Level, Verdict, worst


def kl_ladder(
    kl_nats_per_token: float | None,
    kl_nats_per_sequence: float | None,
    *,
    reward_flat: bool = False,
    thresholds: Thresholds = DEFAULT,
) -> Verdict:
    """How far the policy is from its reference: the graver of the per-token and the per-sequence rule.

    None is a figure that was not measured; its rule is left out. `reward_flat` says whether the reward has stopped
    rising (see `is_flat`); only then is a small KL a fault.
    """
    figures: dict[str, Figure] = {
        "kl_nats_per_token": kl_nats_per_token,
        "kl_nats_per_sequence": kl_nats_per_sequence,
    }
    if kl_nats_per_token is None and kl_nats_per_sequence is None:
        return Verdict("ok", "kl_per_token", "Not judged: no figure kl_nats_per_token.")
    broken = [name for name, kl in figures.items() if isinstance(kl, float) and not isfinite(kl)]
    if broken:
        return Verdict(
            "stop",
            "kl_finite",
            f"The KL is no finite number ({' and '.join(broken)}).",
            figures,
            "Go back to the last checkpoint, and look for log-probabilities of -inf and for a diverged policy.",
        )
    found = []
    if kl_nats_per_sequence is not None:
        found.append(_kl_per_sequence(kl_nats_per_sequence, figures, thresholds))
    if kl_nats_per_token is not None:
        found.append(_kl_per_token(kl_nats_per_token, reward_flat, figures, thresholds))
    return worst(found)


def _kl_per_sequence(kl: float, figures: dict[str, Figure], thresholds: Thresholds) -> Verdict:
    line = thresholds.kl_stop_per_sequence
    if kl > line:
        return Verdict(
            "stop",
            "kl_per_sequence",
            f"The KL is {kl:.1f} nats per sequence, over the line of {line:g}: the policy has left what the reward "
            "model knows.",
            figures,
            "Roll back to the last checkpoint below the line and raise the KL weight (beta). If your answers are long, "
            "set a higher line.",
        )
    return Verdict("ok", "kl_per_sequence", f"The KL is {kl:.1f} nats per sequence, below {line:g}.", figures)


def _kl_per_token(kl: float, reward_flat: bool, figures: dict[str, Figure], thresholds: Thresholds) -> Verdict:
    rule, found = "kl_per_token", f"The KL is {kl:.2f} nats per token"
    stalled, watch, act = (
        thresholds.kl_stalled_per_token,
        thresholds.kl_watch_per_token,
        thresholds.kl_act_per_token,
    )
    if kl > act:
        return Verdict(
            "act",
            rule,
            f"{found}, over {act:g}: the policy drifts fast.",
            figures,
            "Raise the KL weight (beta), or lower the learning rate.",
        )
    if kl > watch:
        return Verdict(
            "watch",
            rule,
            f"{found}, above the healthy {stalled:g} to {watch:g}.",
            figures,
            f"Read some samples. If they are good, go on; beyond {act:g} raise the KL weight (beta).",
        )
    if kl < stalled and reward_flat:
        return Verdict(
            "watch",
            rule,
            f"{found}, below {stalled:g}, and the reward is flat: the policy has stalled.",
            figures,
            "Lower the KL weight (beta) or raise the learning rate a little.",
        )
    where = f"below {stalled:g} and the reward not flat" if kl < stalled else f"inside {stalled:g} to {watch:g}"
    return Verdict("ok", rule, f"{found}, {where}.", figures)


def is_flat(rewards: Sequence[float], window: int = 10) -> bool:
    """Whether the mean reward of the last `window` updates shows no rise: a fitted line rises by less than twice its
    standard error. False while there are fewer updates, since nothing is known yet.
    """
    if window < 3 or len(rewards) < window:
        return False
    recent = np.asarray(rewards[-window:], dtype=np.float64)
    if not np.isfinite(recent).all():
        return False
    steps = np.arange(window) - (window - 1) / 2
    spread = float(steps @ steps)
    slope = float(steps @ recent) / spread
    residual = recent - recent.mean() - slope * steps
    error = sqrt(float(residual @ residual) / (window - 2) / spread)
    return slope <= 2 * error


def accuracy_word(accuracy: float, thresholds: Thresholds = DEFAULT) -> str:
    """fail, warn, good, check leakage or suspicious; fail when nothing was measured."""
    if not accuracy >= thresholds.accuracy_fail:
        return "fail"
    if accuracy < thresholds.accuracy_warn:
        return "warn"
    if accuracy <= thresholds.accuracy_leak:
        return "good"
    return "check leakage" if accuracy <= thresholds.accuracy_suspicious else "suspicious"


_ACCURACY: dict[str, tuple[Level, str]] = {
    "fail": (
        "act",
        "Check the labels first: rater agreement, the guide, swapped columns. Then add pairs, or train longer.",
    ),
    "warn": ("watch", "Add pairs or clean the labels; an optimiser finds the errors of a weak reward model."),
    "good": ("ok", ""),
    "check leakage": (
        "watch",
        "Make sure that no held-out prompt or response is in the training pairs, and that no trivial cue decides.",
    ),
    "suspicious": (
        "act",
        "Look for held-out pairs in the training set, and for a cue that gives the label away (source, length, "
        "wording). Human preferences are rarely this predictable.",
    ),
}


def reward_model_accuracy(
    accuracy: float, low: float, high: float, baseline: float | None = None, thresholds: Thresholds = DEFAULT
) -> Verdict:
    """Held-out accuracy of a reward model, in [0, 1], with its 95 % interval; `figures["verdict"]` is the word for it.

    `baseline` is the accuracy of the best trivial rule on the same pairs; not to beat it is at least worth a look.
    """
    word = accuracy_word(accuracy, thresholds)
    level, remedy = _ACCURACY[word]
    figures: dict[str, Figure] = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high, "verdict": word}
    if not isfinite(accuracy):
        return Verdict(
            "act",
            "reward_model_accuracy",
            "The accuracy could not be measured: no held-out pair has a preferred side.",
            figures,
            "Hold out pairs that are not ties.",
        )
    message = f"Held-out accuracy is {accuracy:.1%} (95 % interval {low:.1%} to {high:.1%}): {word}."
    if low <= 0.5 <= high:
        message += " The interval includes 50 %, a coin flip."
    elif (reach := {accuracy_word(low, thresholds), accuracy_word(high, thresholds)} - {word}) and low < high:
        message += f" The interval reaches into: {', '.join(sorted(reach))}."
    if baseline is not None:
        figures["baseline"] = baseline
        if accuracy <= baseline:
            message += f" A trivial rule gets {baseline:.1%} on the same pairs."
            level = worst([Verdict(level, "", ""), Verdict("watch", "", "")]).level
            remedy = f"{remedy} Until it beats the trivial rule, prefer more data or a larger model.".strip()
    return Verdict(level, "reward_model_accuracy", message, figures, remedy)


def reward_collapse(score_std: float, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Whether a reward model gives everything the same score; `score_std` over responses to different prompts."""
    figures: dict[str, Figure] = {"score_std": score_std}
    found = f"The standard deviation of the reward model's scores is {score_std:.3g}"
    remedy = (
        "Check that the comparisons are not all for one side or one kind of response, then train again with a lower "
        "learning rate or more pairs."
    )
    if not score_std > thresholds.score_std_stop:
        text = f"{found} (line: {thresholds.score_std_stop:g}): it has collapsed and gives RL no signal."
        return Verdict("stop", "reward_collapse", text, figures, remedy)
    if score_std < thresholds.score_std_watch:
        text = f"{found}, below {thresholds.score_std_watch:g}: it hardly tells responses apart."
        return Verdict("watch", "reward_collapse", text, figures, remedy)
    return Verdict("ok", "reward_collapse", f"{found}.", figures)


def reward_saturation(score_abs_max: float, score_abs_mean: float = nan, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Whether scores have run away; the largest size of a score, and their mean size where it is known."""
    line = thresholds.score_saturated
    figures: dict[str, Figure] = {"score_abs_max": score_abs_max, "score_abs_mean": score_abs_mean}
    found = f"The reward model's largest score is {score_abs_max:.4g} in size"
    if isfinite(score_abs_max) and score_abs_max <= line:
        return Verdict("ok", "reward_saturation", f"{found}, within {line:g}.", figures)
    remedy = "Train it again with a lower learning rate or weight decay, so that scores stay near 0."
    if isfinite(score_abs_max) and score_abs_mean <= line:
        text = f"{found}, beyond {line:g}, though the mean size is {score_abs_mean:.4g}: a few scores run away."
        return Verdict("watch", "reward_saturation", text, figures, f"Look at those responses. {remedy}")
    text = f"{found}, beyond {line:g}: it has saturated."
    return Verdict("stop", "reward_saturation", text, figures, remedy)


def reward_model_scores(
    score_std: float, score_abs_max: float, score_abs_mean: float = nan, thresholds: Thresholds = DEFAULT
) -> Verdict:
    """The graver of collapse and saturation. RL should not start on act or stop."""
    return worst(
        [
            reward_collapse(score_std, thresholds),
            reward_saturation(score_abs_max, score_abs_mean, thresholds),
        ]
    )


def agreement_gate(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    measure: str = "Krippendorff's alpha",
    num_items: int | None = None,
    num_raters: int | None = None,
    thresholds: Thresholds = DEFAULT,
) -> Verdict:
    """Whether raters agree enough to train on what they said; `value` is a chance-corrected measure, None or nan where
    it is undefined. Where the interval spans both lines it is never ok: any verdict could be the right one.
    """
    block, scale = thresholds.agreement_block, thresholds.agreement_scale
    figures: dict[str, Figure] = {"agreement": value, "agreement_low": low, "agreement_high": high, "measure": measure}
    if value is None or not isfinite(value):
        return Verdict(
            "watch",
            "agreement",
            f"{measure} is undefined: no two raters judged the same item, or all votes say the same.",
            figures,
            "Let two or more raters judge the same items, among them some with a clear answer either way.",
        )
    facts = [f"95 % interval {low:.2f} to {high:.2f}"] if low is not None and high is not None else []
    facts += [f"{num_items} items"] if num_items is not None else []
    facts += [f"{num_raters} raters"] if num_raters is not None else []
    found = f"Rater agreement is {measure} {value:.2f}" + (f" ({', '.join(facts)})" if facts else "")
    calibrate = (
        "Show all raters the same 50 items, discuss where they differ, sharpen the guide, and measure again before "
        "collecting more."
    )
    unsure = low is not None and high is not None and low < block and high >= scale
    if value < block:
        reading = "too few items to say whether all of it is noise" if unsure else "mostly noise"
        return Verdict("stop", "agreement", f"{found}, below {block:.2f}: {reading}.", figures, calibrate)
    if unsure:
        text = f"{found}: too few items to say, the interval spans both {block:.2f} and {scale:.2f}."
        more = "Let two or more raters judge more of the same items, 50 at least, and measure again."
        return Verdict("watch", "agreement", text, figures, more)
    if value < scale:
        text = f"{found}, between {block:.2f} and {scale:.2f}: usable, not yet good."
        return Verdict("watch", "agreement", text, figures, calibrate)
    return Verdict("ok", "agreement", f"{found}, at or above {scale:.2f}.", figures)
