"""How far and how fast the policy moves."""

from math import isfinite, isnan

from keel.monitor.bands import is_flat, kl_ladder
from keel.monitor.history import History
from keel.monitor.reading import SURE, graded, reading, unknown
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Figure, Verdict

FEW = 3
"""Updates in a row that a training figure must stay beyond its line."""


def kl_bands(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """The KL ladder, both ends (C1)."""
    steps = history.steps
    if not steps.rows or ("kl_nats_per_token" not in steps.rows[-1] and "kl_nats_per_sequence" not in steps.rows[-1]):
        return Verdict("ok", "kl_per_token", "Not judged: no figure kl_nats_per_token.")
    per_token, per_sequence = steps.last("kl_nats_per_token"), steps.last("kl_nats_per_sequence")
    rewards = steps.values("reward_mean").tolist()
    return kl_ladder(per_token, per_sequence, reward_flat=is_flat(rewards), thresholds=thresholds)


def kl_runaway(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """A KL that takes off: the penalty held it, and no longer does."""
    rule, name = "kl_runaway", "kl_nats_per_sequence"
    recent = history.steps.until(history.steps.step)
    values = recent.known(name)
    window = thresholds.kl_runaway_updates
    if len(values) < window + 2:
        return unknown(rule, name)
    before, now = float(values[-window - 2 : -window].mean()), float(values[-2:].mean())
    rise = now - before
    figures: dict[str, Figure] = {name: now, f"{name}_before": before, "since": _onset(history, name, before, now)}
    text = f"The KL rose from {before:.1f} to {now:.1f} nats per sequence within {window} updates"
    level, sure = graded(rise, thresholds.kl_runaway_watch, thresholds.kl_runaway_act)
    if level == "ok" or now < thresholds.kl_runaway_ratio * max(before, 0.0):
        return Verdict("ok", rule, f"{text}.", figures)
    return Verdict(
        level,
        rule,
        f"{text}.",
        figures,
        "Raise the KL coefficient, or lower the learning rate.",
        "The reward gained by moving exceeds what the KL costs, more so the further it goes.",
        sure,
    )


def _onset(history: History, name: str, before: float, now: float) -> int:
    """The first of the newest updates that lie above half the way."""
    step = history.steps.step
    for row in reversed(history.steps.rows):
        value = row.get(name)
        if not isinstance(value, int | float) or value < (before + now) / 2:
            break
        step = int(row["step"])
    return step


def too_far(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """Single updates that move the policy further than the ratio clip can be trusted."""
    rule, steps = "too_far", history.steps
    moved, clipped = steps.known("approx_kl")[-FEW:], steps.known("clip_fraction")[-FEW:]
    if len(moved) < FEW and len(clipped) < FEW:
        return unknown(rule, "approx_kl")
    kl = float(moved.min()) if len(moved) == FEW else 0.0
    clip = float(clipped.min()) if len(clipped) == FEW else 0.0
    figures: dict[str, Figure] = {"approx_kl": kl, "clip_fraction": clip}
    text = f"In each of the last {FEW} updates at least {kl:.3f} nats per token and {clip:.0%} of ratios clipped"
    if kl <= thresholds.update_kl_watch and clip <= thresholds.clip_fraction_watch:
        return Verdict("ok", rule, f"{text}.", figures)
    return Verdict(
        "watch",
        rule,
        f"{text}: updates go too far from the policy that sampled.",
        figures,
        "Lower the learning rate, ppo.epochs or ppo.stop_at_kl.",
        "Steps are too large for advantages that hold near the old policy only.",
        0.7,
    )


def stalled(history: History, thresholds: Thresholds = DEFAULT) -> Verdict:
    """A policy that no longer moves while the reward is flat."""
    rule, steps = "stalled", history.steps
    kl, rewards = steps.known("kl_nats_per_token"), steps.values("reward_mean").tolist()
    window = thresholds.stalled_updates
    if len(kl) < window or not is_flat(rewards, window):
        return Verdict("ok", rule, "The policy moves, or it is too early to say.")
    now = float(kl[-window:].mean())
    figures: dict[str, Figure] = {"kl_nats_per_token": now}
    if now >= thresholds.kl_stalled_per_token:
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
    if isnan(passes) or passes < thresholds.prompt_epochs_watch or len(held_out) < 4 or len(trained) < 10:
        return Verdict("ok", rule, "Prompts are fresh enough, or it is not known.")
    figures: dict[str, Figure] = {"prompt_epochs": passes, "reward_held_out": float(held_out[-1])}
    half = len(held_out) // 2
    gained = float(trained[-5:].mean() - trained[len(trained) // 2 :][:5].mean())
    gained_held_out = float(held_out[-2:].mean() - held_out[half : half + 2].mean())
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
    row = history.steps.rows[-1] if history.steps.rows else {}
    bad = [name for name in names if name in row and not (isinstance(row[name], int | float) and isfinite(row[name]))]
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
