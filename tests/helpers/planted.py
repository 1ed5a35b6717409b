"""Made-up histories of RL: a healthy run as noise leaves it, and the same noise with one failure setting in.

Sizes and noise are those of a help desk of 26 tokens an answer and some 200 samples an update. Nothing here is measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from keel.monitor.history import History
from keel.monitor.rules import RULES
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Level

Columns: TypeAlias = dict[str, NDArray[np.float64]]
ONSET = 30
"""Updates after which a planted failure sets in."""
CHECK_EVERY, PAIRS = 5, 20
"""Updates between checks by judges, and their pairs."""


@dataclass
class Course:
    """One run before it is a history: figures of updates [N], of held-out prompts, and judges' rates [N]."""

    steps: Columns
    held_out: Columns
    win_rate: NDArray[np.float64]
    """Chance that judges prefer the policy of each update."""
    agreement: NDArray[np.float64]
    """Chance that the reward model prefers what the judges prefer."""
    bias: NDArray[np.float64]
    """Nats a verdict by which the form of the texts tells the verdicts up to each update better than the score."""
    rng: np.random.Generator

    def history(self) -> History:
        """Rows as a run writes them: an update each, evaluations and checks every CHECK_EVERY updates."""
        count = len(self.win_rate)
        steps = [{name: float(values[i]) for name, values in self.steps.items()} for i in range(count)]
        moments = [step for step in range(count + 1) if step % CHECK_EVERY == 0]
        evaluations = [
            {"step": step} | {name: float(values[max(0, step - 1)]) for name, values in self.held_out.items()}
            for step in moments
        ]
        return History.of(steps, evaluations, [self._check(step) for step in moments[1:]])

    def _check(self, step: int) -> dict[str, object]:
        values = (self.rng.random(PAIRS) < self.win_rate[step - 1]).astype(float)
        agreed = float(np.mean(self.rng.random(PAIRS) < self.agreement[step - 1]))
        told = PAIRS * (step // CHECK_EVERY)
        return {
            "step": step,
            "values": values.tolist(),
            "verdicts": PAIRS,
            "reward_agreement": agreed,
            "bias_nats": float(self.bias[step - 1]) * told,
            "bias_verdicts": told,
            "bias_words": "score +1.00, surprisal -0.40",
        }


def healthy(seed: int, updates: int = 60) -> Course:
    """KL to a plateau, reward up, entropy and perplexity down, answers an eighth longer, one courtesy in half of them.

    Every figure has noise of its own, of autocorrelation .3.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(updates, dtype=np.float64)
    gain = 1 - np.exp(-t / 15)

    def noisy(level: NDArray[np.float64] | float, spread: float) -> NDArray[np.float64]:
        noise = rng.standard_normal(updates)
        for i in range(1, updates):
            noise[i] = 0.3 * noise[i - 1] + np.sqrt(1 - 0.3**2) * noise[i]
        return level + spread * noise

    tokens = noisy(26 + 4 * gain, 0.6)
    kl = noisy(6 * gain, 0.25)
    reward = noisy(1.2 * gain, 0.06)
    steps = {
        "score_mean": reward + 0.1,
        "score_std": noisy(0.9 - 0.1 * gain, 0.04),
        "score_abs_max": noisy(3.5, 0.4),
        "score_disagreement": noisy(0.30 + 0.03 * gain, 0.015),
        "reward_mean": reward,
        "kl_nats_per_sequence": kl,
        "kl_nats_per_token": kl / tokens,
        "approx_kl": noisy(0.010, 0.002),
        "clip_fraction": noisy(0.09, 0.02),
        "ref_perplexity": noisy(2.6 - 0.2 * gain, 0.03),
        "entropy_nats_sampled": noisy(0.9 - 0.25 * gain, 0.02),
        "unseen_trigram_share": noisy(0.060 - 0.005 * gain, 0.004),
        "length_reward_correlation": noisy(0.15, 0.06),
        "response_tokens_mean": tokens,
        "finished_share": np.minimum(noisy(0.96, 0.012), 1.0),
        "unique_share": np.minimum(noisy(0.99 - 0.04 * gain, 0.006), 1.0),
        "repeated_trigram_share": np.maximum(noisy(0.016, 0.004), 0.0),
        "self_bleu": noisy(0.45 + 0.10 * gain, 0.02),
        "common_phrase_share": noisy(0.20 + 0.30 * gain, 0.03),
        "explained_variance": noisy(0.6 - 1.1 * np.exp(-t / 6), 0.08),
        "prompt_epochs": (t + 1) / 16,
        "loss": noisy(-0.01, 0.01),
        "grad_norm": np.abs(noisy(0.6, 0.1)),
    }
    held_out = {"reward_mean": noisy(1.1 * gain, 0.05)}
    return Course(steps, held_out, 0.5 + 0.2 * gain, np.full(updates, 0.72), np.full(updates, 0.005), rng)


def _adds(name: str, slope: float) -> Callable[[Course, NDArray[np.float64]], None]:
    """The figure rises by `slope` an update."""

    def plant(course: Course, since: NDArray[np.float64]) -> None:
        course.steps[name] = course.steps[name] + slope * since

    return plant


def _grows(name: str, share: float) -> Callable[[Course, NDArray[np.float64]], None]:
    """The figure grows by `share` of its level an update."""

    def plant(course: Course, since: NDArray[np.float64]) -> None:
        course.steps[name] = course.steps[name] * (1 + share * since)

    return plant


def _bounded(name: str, slope: float, low: float, high: float) -> Callable[[Course, NDArray[np.float64]], None]:
    """The figure moves by `slope` an update as far as it can."""

    def plant(course: Course, since: NDArray[np.float64]) -> None:
        course.steps[name] = np.clip(course.steps[name] + slope * since, low, high)

    return plant


def _diverges(course: Course, since: NDArray[np.float64]) -> None:
    course.steps["loss"][since > 20] = np.nan


def _leaves(course: Course, since: NDArray[np.float64]) -> None:
    drift = 0.1 * since**2
    course.steps["kl_nats_per_token"] = course.steps["kl_nats_per_token"] + drift / course.steps["response_tokens_mean"]
    course.steps["kl_nats_per_sequence"] = course.steps["kl_nats_per_sequence"] + drift


def _long(course: Course, since: NDArray[np.float64]) -> None:
    _grows("response_tokens_mean", 0.04)(course, since)
    _bounded("length_reward_correlation", 0.03, -1.0, 0.8)(course, since)


def _repelled(course: Course, since: NDArray[np.float64]) -> None:
    course.win_rate = np.clip(course.win_rate - 0.06 * since, 0.1, 1.0)


def _lost(course: Course, since: NDArray[np.float64]) -> None:
    course.agreement = np.clip(course.agreement - 0.05 * since, 0.4, 1.0)


def _minded(course: Course, since: NDArray[np.float64]) -> None:
    course.bias = course.bias + 0.005 * since


def _silent(course: Course, since: NDArray[np.float64]) -> None:
    course.steps["score_std"] = np.where(since > 10, 0.0, course.steps["score_std"])
    course.steps["score_mean"] = np.where(since > 10, -0.5, course.steps["score_mean"])


def _saturated(course: Course, since: NDArray[np.float64]) -> None:
    for name in ("score_mean", "score_abs_max"):
        course.steps[name] = course.steps[name] * np.exp(0.25 * since)


def _lurches(course: Course, since: NDArray[np.float64]) -> None:
    _adds("approx_kl", 0.01)(course, since)
    _bounded("clip_fraction", 0.04, 0.0, 0.7)(course, since)


def _stays(course: Course, since: NDArray[np.float64]) -> None:
    """From the first update on: neither the policy nor its reward moves."""
    for name in ("kl_nats_per_token", "kl_nats_per_sequence"):
        course.steps[name] = 0.02 * course.steps[name]
    noise = course.steps["grad_norm"] - 0.6
    course.steps["reward_mean"] = 0.5 * noise
    course.steps["score_mean"] = 0.5 * noise + 0.1


def _by_heart(course: Course, since: NDArray[np.float64]) -> None:
    course.steps["prompt_epochs"] = course.steps["prompt_epochs"] * 6
    _adds("reward_mean", 0.05)(course, since)


Plant: TypeAlias = Callable[[Course, NDArray[np.float64]], None]

PLANTED: Mapping[str, tuple[tuple[Level, Plant], ...]] = {
    "not_finite": (("stop", _diverges),),
    "kl_bands": (("stop", _leaves),),
    "kl_runaway": (("act", _leaves),),
    "off_distribution": (("act", _grows("ref_perplexity", 0.02)),),
    "unfamiliar_text": (("act", _adds("unseen_trigram_share", 0.008)),),
    "score_spread": (("act", _grows("score_std", 0.08)),),
    "reward_disagreement": (("act", _grows("score_disagreement", 0.10)),),
    "length_hacking": (("act", _long),),
    "repetition": (("act", _adds("repeated_trigram_share", 0.008)),),
    "incoherence": (("act", _bounded("finished_share", -0.03, 0.1, 1.0)),),
    "stock_phrase": (("watch", _bounded("common_phrase_share", 0.04, 0.0, 1.0)),),
    "mode_collapse": (
        ("act", _bounded("self_bleu", 0.03, 0.0, 0.99)),
        ("act", _bounded("unique_share", -0.05, 0.01, 1.0)),
    ),
    "human_gain": (("act", _repelled),),
    "reward_agreement": (("watch", _lost),),
    "reward_bias": (("act", _minded),),
    "reward_flattened": (("act", _silent),),
    "reward_saturation": (("stop", _saturated),),
    "value_failure": (("watch", _bounded("explained_variance", -0.3, -3.0, 1.0)),),
    "too_far": (("watch", _lurches),),
    "stalled": (("watch", _stays),),
    "data_exhausted": (("watch", _by_heart),),
}
"""For each rule: the gravest level it must reach, and what is planted."""
FROM_THE_START = frozenset({"stalled", "data_exhausted"})
"""Failures without a moment at which they set in."""


def planted(plant: Plant, seed: int, updates: int = 60) -> History:
    """The healthy run of this seed with a failure that sets in after ONSET updates."""
    course = healthy(seed, updates)
    plant(course, np.maximum(0.0, np.arange(updates) + 1.0 - ONSET))
    return course.history()


def spoken(rule: str, history: History, thresholds: Thresholds = DEFAULT, first: int = 1) -> dict[int, Level]:
    """What a rule said after each update from `first` on, where it was not ok."""
    levels = {step: RULES[rule](history.until(step), thresholds).level for step in range(first, history.steps.step + 1)}
    return {step: level for step, level in levels.items() if level != "ok"}
