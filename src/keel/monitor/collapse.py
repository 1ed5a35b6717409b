"""Answers that become alike, rewards that say nothing, a critic that learns nothing."""

import numpy as np

from keel.monitor.drift import FEW
from keel.monitor.history import History
from keel.monitor.reading import SURE, graded, reading, unknown
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Figure, Verdict, worst

GROWN = 10.0
"""Scores that are so many times what they were at the start have run away."""
ALIKE = "One answer pays best whatever is asked, and the policy has settled on it."


def mode_collapse(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """The same answer to one prompt every time, or to all prompts: the graver of the two."""
    return worst([_self_bleu(history, thresholds), _unique(history, thresholds)])


def _self_bleu(history: History, thresholds: Thresholds) -> Verdict:
    rule, name = "mode_collapse", "self_bleu"
    found = reading(history.steps, name)
    if found is None:
        return unknown(rule, name)
    level, sure = graded(found.now, thresholds.self_bleu_watch, thresholds.self_bleu_act)
    text = f"Self-BLEU across prompts is {found.now:.2f} ({found.before:.2f} at the start)"
    if level == "ok" or found.errors < SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    return Verdict(level, rule, f"{text}: answers to different prompts are alike.", found.figures, _REMEDY, ALIKE, sure)


def _unique(history: History, thresholds: Thresholds) -> Verdict:
    rule, name = "mode_collapse", "unique_share"
    found = reading(history.steps, name)
    if found is None:
        return unknown(rule, name)
    level, sure = graded(1 - found.now, 1 - thresholds.unique_watch, 1 - thresholds.unique_act)
    text = f"{found.now:.0%} of a rollout's responses are different ({found.before:.0%} at the start)"
    if level == "ok" or found.errors > -SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    return Verdict(level, rule, f"{text}.", found.figures, _REMEDY, ALIKE, sure)


_REMEDY = (
    "Set an entropy bonus (entropy_coef of the algorithm, such as ppo.ppo.entropy_coef) first. Then look at the KL: "
    "above its healthy band raise the KL coefficient, below it lower it."
)


def incoherence(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Responses that no longer come to an end by themselves."""
    rule, name = "incoherence", "finished_share"
    found = reading(history.steps, name)
    if found is None:
        return unknown(rule, name)
    level, sure = graded(-found.difference, thresholds.unfinished_watch, thresholds.unfinished_act)
    text = f"{found.now:.0%} of responses end by themselves ({found.before:.0%} at the start)"
    if level == "ok" or found.errors > -SURE:
        return Verdict("ok", rule, f"{text}.", found.figures)
    return Verdict(
        level,
        rule,
        f"{text}, since step {found.since}.",
        found.figures,
        "Set ppo.shaping.missing_eos_ceiling, raise max_new_tokens, or raise the KL coefficient.",
        "Going on talking pays more than ending.",
        sure,
    )


def reward_flattened(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Scores of a rollout that are all the same: nothing to learn from.

    A fault only where they once differed and the policy has got worse since, or says the same always: rewards of a
    verifier are equal too before the first success, and when all is solved.
    """
    rule, steps = "reward_flattened", history.steps
    spread = steps.known("score_std")[-FEW:]
    if len(spread) < FEW:
        return unknown(rule, "score_std", FEW)
    widest = float(spread.max())
    figures: dict[str, Figure] = {"score_std": widest}
    found = f"The scores of each of the last {FEW} rollouts differ by {widest:.3g} at most (standard deviation)"
    if widest > thresholds.score_std_watch:
        return Verdict("ok", rule, f"{found}.", figures)
    flat = widest <= thresholds.score_std_stop
    told_apart = steps.known("score_std").max() > thresholds.score_std_watch
    score, unique = reading(steps, "score_mean"), reading(steps, "unique_share")
    alike = unique is not None and unique.now <= thresholds.unique_act and unique.errors < -SURE
    collapsed = flat and told_apart and (alike or (score is not None and score.errors < -SURE))
    return Verdict(
        "act" if collapsed else "watch",
        rule,
        f"{found}: {'no' if flat else 'hardly any'} signal is left.",
        figures,
        "Look at the samples: all are the same, or all as good, or the reward model does not tell them apart.",
        "The reward model has no opinion about what the policy now writes.",
        0.95 if collapsed else 0.6,
    )


def reward_runaway(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Scores beyond any that a reward model should give, where they did not begin there: a reward in units of its own,
    such as points of a game, may be large and healthy.
    """
    rule, sizes = "reward_saturation", history.steps.known("score_abs_max")
    if not len(sizes):
        return Verdict("ok", rule, "Not judged: no figure score_abs_max.")
    largest, first = float(sizes[-1]), float(sizes[0])
    figures: dict[str, Figure] = {"score_abs_max": largest, "score_abs_max_before": first}
    text = f"The largest score of a rollout is {largest:.4g} in size ({first:.4g} at the start)"
    line = max(thresholds.score_saturated, GROWN * first)
    if largest <= line:
        return Verdict("ok", rule, f"{text}.", figures)
    lasting = bool((sizes[-FEW:] > line).all()) and len(sizes) > FEW
    return Verdict(
        "stop" if lasting else "watch",
        rule,
        f"{text}, beyond {line:.4g}: scores run away.",
        figures,
        "Go back to before it began, and train the reward model again with a lower learning rate or weight decay.",
        "The reward model is asked about texts so strange that its answer means nothing.",
        0.95 if lasting else 0.6,
    )


def value_failure(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """A critic that, after its first updates, predicts returns worse than their mean would."""
    rule, window = "value_failure", thresholds.value_updates
    values = history.steps.known("explained_variance")
    if len(values) < 2 * window:
        return unknown(rule, "explained_variance", 2 * window)
    now = float(np.median(values[-window:]))
    figures: dict[str, Figure] = {"explained_variance": now}
    found = f"The critic explains {now:.0%} of the variance of returns (median of {window} updates)"
    if now >= thresholds.explained_variance_watch:
        return Verdict("ok", rule, f"{found}.", figures)
    return Verdict(
        "watch",
        rule,
        f"{found}: advantages are noisier than without it.",
        figures,
        "Raise ppo.ppo.critic_learning_rate, give the critic a network of its own (ppo.ppo.critic: separate), or use "
        "rloo.",
        "The critic does not follow the returns.",
        0.7,
    )
