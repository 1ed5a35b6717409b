"""How far and how fast the policy moves."""

from dataclasses import replace
from math import isfinite, isnan

import numpy as np

from keel.monitor.bands import is_flat, kl_ladder
from keel.monitor.history import History, number
from keel.monitor.reading import RECENT, SURE, graded, reading, trailing, unknown
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Figure, Verdict

FEW = 3
"""Updates in a row that a training figure must stay beyond its line."""


def kl_bands(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """The KL ladder, both ends."""
    steps = history.steps
    per_token, per_sequence = (
        value if isfinite(value := steps.last(name)) or steps.lost(name) else None
        for name in ("kl_nats_per_token", "kl_nats_per_sequence")
    )
    rewards = steps.values("reward_mean").tolist()
    verdict = kl_ladder(per_token, per_sequence, reward_flat=is_flat(rewards), thresholds=thresholds)
    if verdict.rule == "kl_per_token" and verdict.level in ("act", "stop"):
        return replace(verdict, confidence=0.95)
    if verdict.rule != "kl_per_sequence" or verdict.level != "stop":
        return verdict
    if per_token is not None and per_token <= thresholds.kl_watch_per_token / 2:
        # Long answers gather nats without going far: the line is meant for answers of some 40 tokens.
        return replace(verdict, level="watch", confidence=0.6)
    before = steps.known("kl_nats_per_sequence")[-2:]
    lasting = len(before) == 2 and bool((before > thresholds.kl_stop_per_sequence).all())
    return verdict if lasting else replace(verdict, level="act", confidence=0.95)


def kl_runaway(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """A KL that takes off: it rises faster than it ever did. At the beginning every KL rises, and that is no sign."""
    rule, name = "kl_runaway", "kl_nats_per_sequence"
    values = history.steps.known(name)
    window = thresholds.kl_runaway_updates
    if len(values) < window + 2:
        return unknown(rule, name, window + 2)
    before, now = float(values[-window - 2 : -window].mean()), float(values[-2:].mean())
    rise = now - before
    figures: dict[str, Figure] = {name: now, f"{name}_before": before, "since": _onset(history, name, before, now)}
    text = f"The KL rose from {before:.1f} to {now:.1f} nats per sequence within {window} updates"
    level, sure = graded(rise, thresholds.kl_runaway_watch, thresholds.kl_runaway_act)
    earlier = values[: -window or None]
    pairs = trailing(earlier, 2) if len(earlier) >= 2 else earlier
    fastest = float((pairs[window:] - pairs[:-window]).max()) if len(pairs) > window else float("inf")
    figures["earlier_rise"] = fastest if isfinite(fastest) else None
    if level == "ok" or now < thresholds.kl_runaway_ratio * max(before, 0.0) or rise < thresholds.kl_faster * fastest:
        return Verdict("ok", rule, f"{text}.", figures)
    figures["kl_yield"] = gained = _yield(history, before, rise, window)
    if gained is not None and gained >= thresholds.kl_yield:
        return Verdict("ok", rule, f"{text}, and a nat still buys {gained:.1f} times the score it used to.", figures)
    return Verdict(
        level,
        rule,
        f"{text}.",
        figures,
        "Raise the KL coefficient, or lower the learning rate.",
        "The reward gained by moving exceeds what the KL costs, more so the further it goes.",
        sure,
    )


def _yield(history: History, before: float, rise: float, window: int) -> float | None:
    """Score gained per nat within the window, over that per nat from the start up to it; None where unknown.

    An honest reward pays less and less for a nat, about as one over the root of the KL, and a run that has only just
    begun to move pays as much as ever.
    """
    scores = history.steps.known("score_mean")
    if len(scores) < window + 2 or before <= 0:
        return None
    earlier, now = float(scores[-window - 2 : -window].mean()), float(scores[-2:].mean())
    average = (earlier - float(scores[:RECENT].mean())) / before
    return (now - earlier) / rise / average if average > 0 else None


def _onset(history: History, name: str, before: float, now: float) -> int:
    """The first of the newest updates that lie above half the way."""
    step = history.steps.step
    for row in reversed(history.steps.rows):
        value = number(row.get(name))
        if isnan(value):
            continue
        if value < (before + now) / 2:
            break
        step = int(row["step"])
    return step


def too_far(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Single updates that move the policy further than the ratio clip can be trusted."""
    rule, steps = "too_far", history.steps
    moved, clipped = steps.known("approx_kl")[-FEW:], steps.known("clip_fraction")[-FEW:]
    if len(moved) < FEW and len(clipped) < FEW:
        return unknown(rule, "approx_kl", FEW)
    figures: dict[str, Figure] = {}
    seen, far = [], False
    if len(moved) == FEW:
        figures["approx_kl"] = least = float(moved.min())
        seen.append(f"moved at least {least:.3f} nats per token")
        far = least > thresholds.update_kl_watch
    if len(clipped) == FEW:
        figures["clip_fraction"] = least = float(clipped.min())
        seen.append(f"clipped at least {least:.0%} of ratios")
        far = far or least > thresholds.clip_fraction_watch
    text = f"Each of the last {FEW} updates {' and '.join(seen)}"
    if not far:
        return Verdict("ok", rule, f"{text}.", figures)
    return Verdict(
        "watch",
        rule,
        f"{text}: updates go too far from the policy that sampled.",
        figures,
        "Lower the learning rate, or epochs or stop_at_kl of the algorithm (such as ppo.ppo.stop_at_kl).",
        "Steps are too large for advantages that hold near the old policy only.",
        0.7,
    )


def stalled(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """A policy that stays where it began while the reward is flat; one whose reward has risen before has arrived."""
    rule, steps = "stalled", history.steps
    kl, rewards = steps.known("kl_nats_per_token"), steps.values("reward_mean").tolist()
    window = thresholds.stalled_updates
    if len(kl) < window or not is_flat(rewards, window):
        return Verdict("ok", rule, "The policy moves, or it is too early to say.")
    spread = steps.known("score_std")[-window:]
    if np.ptp(rewards[-window:]) == 0 or (spread.size and spread.max() <= thresholds.score_std_stop):
        return Verdict(
            "ok", rule, "The rewards are all the same: nothing could move the policy, whatever the KL costs."
        )
    now = float(kl[-window:].mean())
    figures: dict[str, Figure] = {"kl_nats_per_token": now}
    risen = reading(steps, "reward_mean")
    if now >= thresholds.kl_stalled_per_token or (risen is not None and risen.errors > SURE):
        return Verdict("ok", rule, f"The KL is {now:.2f} nats per token.", figures)
    return Verdict(
        "watch",
        rule,
        f"The KL is {now:.3f} nats per token and the reward has been flat for {window} updates: exploration stalled.",
        figures,
        "Lower the KL coefficient, or raise the learning rate a little or the sampling temperature.",
        "The penalty, or too small a step, holds the policy where it began.",
        0.7,
    )


def data_exhausted(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Prompts seen again and again, training reward up, held-out reward not."""
    rule = "data_exhausted"
    passes, held_out = history.steps.last("prompt_epochs"), history.evaluations.known("reward_mean")
    trained = history.steps.known("reward_mean")
    if isnan(passes) or passes < thresholds.prompt_epochs_watch or len(held_out) < 6 or len(trained) < 15:
        return Verdict("ok", rule, "Prompts are fresh enough, or it is not known.")
    figures: dict[str, Figure] = {"prompt_epochs": passes, "reward_held_out": float(held_out[-1])}
    # Half way and the end; so many values that none is in both.
    half, middle = len(held_out) // 2, len(trained) // 2
    gained = float(trained[-5:].mean() - trained[middle - 2 : middle + 3].mean())
    gained_held_out = float(held_out[-2:].mean() - held_out[half - 1 : half + 1].mean())
    risen = reading(history.steps, "reward_mean")
    if risen is None or risen.errors < SURE or gained <= 0 or gained_held_out > 0.25 * gained:
        return Verdict("ok", rule, f"The prompts were seen {passes:.1f} times.", figures)
    return Verdict(
        "watch",
        rule,
        f"The prompts were seen {passes:.1f} times; the reward still rises on them (+{gained:.2f} in the second half) "
        f"and no longer on held-out ones ({gained_held_out:+.2f}).",
        figures,
        "Add prompts, or stop here.",
        "The policy learns these prompts by heart.",
        0.6,
    )


def not_finite(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Losses or gradients that are no numbers."""
    rule, names = "not_finite", ("loss", "grad_norm")
    bad = [name for name in names if history.steps.lost(name)]
    if not bad:
        return Verdict("ok", rule, "Loss and gradient are finite.")
    return Verdict(
        "stop",
        rule,
        f"The figure {bad[0]} of step {history.steps.step} is not finite.",
        {bad[0]: None, "since": history.steps.step},
        "Go back to the last healthy checkpoint and lower the learning rate.",
        "Numbers overflowed.",
        0.99,
    )
