"""Run folders of a guarded RL run: alarms, actions, judges, a rollback. Figures are made up, names are the real ones."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from helpers.report_runs import HACKED, PROMPTS, Writer

RECIPE = """name: help desk
ppo: {updates: 60}
thresholds: {kl_stop_per_sequence: 25}
"""
HOSTILE = "\x1b[31mred\x1b]0;owned\x07 \u202etxet\u202c [bold]markup[/bold] \x00 \ud800 " + "very long " * 200


def figures(step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
    """One update of a policy that learns to please: length, KL and the proxy rise, entropy and diversity fall."""
    t = step / steps
    length = 22 + 18 * t + rng.normal()
    per_token = 0.02 + 1.1 * t**1.5 + 0.01 * rng.normal()
    return {
        "score_mean": 0.1 + 3.1 * t**0.8 + 0.05 * rng.normal(), "score_std": 0.9 - 0.4 * t, "reward_mean": 0.2 + 2.2 * t,
        "reward_std": 0.8, "score_p05": -0.9 + t, "score_p95": 1.4 + 2 * t, "score_abs_max": 2.0 + 2 * t,
        "kl_nats_per_token": per_token, "kl_nats_per_sequence": per_token * length, "kl_k3_nats_per_token": per_token,
        "kl_k3_nats_per_sequence": per_token * length, "response_tokens_mean": length, "response_tokens_p95": 1.4 * length,
        "length_reward_correlation": 0.1 + 0.6 * t, "finished_share": 0.97 - 0.2 * t, "entropy_nats": 1.5 * math.exp(-2 * t),
        "distinct_1": 0.3 - 0.15 * t, "distinct_2": 0.45 - 0.3 * t, "unique_share": 0.99 - 0.5 * t, "self_bleu": 0.3 + 0.4 * t,
        "repeated_trigram_share": 0.02 + 0.2 * t, "common_phrase_share": 0.1 + 0.7 * t, "unseen_trigram_share": 0.2 + 0.3 * t,
        "ref_perplexity": 3 + 20 * t, "explained_variance": 0.8 * (1 - math.exp(-6 * t)), "clip_fraction": 0.08 + 0.1 * t,
        "approx_kl": 0.006 + 0.004 * t, "value_loss": 0.3, "kl_coef": 0.05 if step <= 40 else 0.1, "grad_norm": 0.6,
    }  # fmt: skip


def verdict(level: str, rule: str, message: str, **fields: Any) -> dict[str, Any]:
    return {"level": level, "rule": rule, "message": message, "figures": {}, "remedy": "", "cause": "", **fields}


HACKING = verdict(
    "act", "reward_hacking", "The reward rose by 1.9 while judges prefer the policy only 47 % of the time (34 to 60 %).",
    figures={"win_rate": 0.47, "score_rise": 1.9}, cause="The policy found what the reward model overpays: length.",
    remedy="Add pairs that show long empty answers as rejected, and train the reward model again.", confidence=0.93,
)  # fmt: skip
LENGTH = verdict(
    "watch", "length", "Answers are 1.4 times as long as the SFT model's.", cause="Longer answers score higher.",
    remedy="Read the samples; ppo.shaping.length_penalty=0.01 makes length cost.", confidence=0.7,
)  # fmt: skip


def events(steps: int = 60, *, seed: int = 0, of: int = 60) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """(event, seconds since the one before, fields) of the stage `ppo` up to update `steps`."""
    rng = np.random.default_rng(seed)
    yield "stage_started", 0.0, {"config": {"updates": of, "kl": {"initial": 0.05}}}
    yield "evaluated", 1.0, {"step": 0, "round": 0, "score": 0.1, "score_mean": 0.1, "kl_nats_per_token": 0.0}
    yield "samples", 0.0, {"step": 0, "round": 0, "samples": samples("the kettle has two years .")}
    for step in range(1, steps + 1):
        now = figures(step, of, rng)
        yield "step", 3.5, {"step": step, "of": of, "round": 0, **now}
        if step % 10 == 0:
            yield "evaluated", 1.0, {"step": step, "round": 0, "score": now["score_mean"] - 0.1, **now}
            yield "samples", 0.0, {"step": step, "round": 0, "samples": samples(HACKED if step > 20 else HOSTILE)}
            yield "asked", 0.0, {"step": step, "pairs": 10, "labels_spent": step}
        if step % 10 == 4 and step > 10:
            yield "checked", 0.0, judged(step)
        if step == 5:
            said = verdict("watch", "value_function", "The critic explains 0.18 of the returns.", remedy="Wait.")
            yield "verdict", 0.0, {"step": step, **said}
        if step == 15:
            said = verdict("ok", "value_function", "The critic explains 0.61 of the returns.")
            yield "verdict", 0.0, {"step": step, **said}
        if step >= 20 and step % 5 == 0:
            yield "verdict", 0.0, {"step": step, **LENGTH}
        if step in (36, 40):
            yield "verdict", 0.0, {"step": step, **HACKING}
        if step == 36:
            yield "action", 0.0, action(step, "lower_kl", taken=False, before={"kl_coef": 0.1}, after={"kl_coef": 0.05})
        if step == 40:
            changed = {"before": {"kl_coef": 0.05}, "after": {"kl_coef": 0.1}}
            yield "action", 0.0, action(step, "roll_back", taken=True, to_step=20, **changed)


def judged(step: int) -> dict[str, Any]:
    wins, ties = (6, 1) if step < 30 else (4, 1)
    rate = (wins + ties / 2) / 10
    return {
        "step": step, "verdicts": 10, "wins": wins, "ties": ties, "losses": 9 - wins, "win_rate": rate,
        "win_rate_low": rate - 0.13, "win_rate_high": rate + 0.13, "proxy_win_rate": 0.5 + step / 150,
        "reward_agreement": 0.6, "labels_spent": step,
    }  # fmt: skip


def action(step: int, name: str, *, taken: bool, **fields: Any) -> dict[str, Any]:
    said = {"step": step, "action": name, "taken": taken, "rules": ["reward_hacking"], "evidence": [HACKING]}
    return {**said, "reason": "Two independent rules agree.", "remedy": HACKING["remedy"], **fields}


def samples(answer: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": answer, "score": 1.5, "finished": True} for prompt in PROMPTS[:4]]


def write_guarded(folder: Path, steps: int = 60, *, recipe: str = RECIPE) -> Path:
    """A run folder that has come to update `steps` of 60."""
    out = Writer(folder)
    for event, wait_s, fields in events(steps):
        out.add(event, "ppo", wait_s, **fields)
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return out.close()
