"""Every rule about a run of RL, by name: pure functions from what a run has shown to a verdict."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from keel.monitor.collapse import incoherence, mode_collapse, reward_flattened, reward_runaway, value_failure
from keel.monitor.drift import data_exhausted, kl_bands, kl_runaway, not_finite, stalled, too_far
from keel.monitor.hacking import (
    human_gain,
    length_hacking,
    off_distribution,
    proxy_gap,
    repetition,
    reward_bias,
    reward_disagreement,
    score_spread,
    stock_phrase,
    unfamiliar_text,
)
from keel.monitor.history import History
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import Verdict

Rule: TypeAlias = Callable[[History, Thresholds], Verdict]
Family = Literal["numbers", "drift", "map", "score", "form", "variety", "people", "training"]
"""What a rule looks at. Rules of one family see the same thing twice; rules of different ones are evidence apart."""

RULES: Mapping[str, Rule] = {
    "not_finite": not_finite,
    "kl_bands": kl_bands,
    "kl_runaway": kl_runaway,
    "off_distribution": off_distribution,
    "unfamiliar_text": unfamiliar_text,
    "score_spread": score_spread,
    "reward_disagreement": reward_disagreement,
    "length_hacking": length_hacking,
    "repetition": repetition,
    "incoherence": incoherence,
    "stock_phrase": stock_phrase,
    "mode_collapse": mode_collapse,
    "human_gain": human_gain,
    "reward_agreement": proxy_gap,
    "reward_bias": reward_bias,
    "reward_flattened": reward_flattened,
    "reward_saturation": reward_runaway,
    "value_failure": value_failure,
    "too_far": too_far,
    "stalled": stalled,
    "data_exhausted": data_exhausted,
}

FAMILIES: Mapping[str, Family] = {
    "not_finite": "numbers",
    "kl_bands": "drift",
    "kl_runaway": "drift",
    "off_distribution": "map",
    "unfamiliar_text": "map",
    "score_spread": "score",
    "reward_disagreement": "score",
    "length_hacking": "form",
    "repetition": "form",
    "incoherence": "form",
    "stock_phrase": "form",
    "mode_collapse": "variety",
    "human_gain": "people",
    "reward_agreement": "people",
    "reward_bias": "people",
    "reward_flattened": "numbers",
    "reward_saturation": "numbers",
    "value_failure": "training",
    "too_far": "training",
    "stalled": "training",
    "data_exhausted": "training",
}


def judged(history: History, thresholds: Thresholds) -> dict[str, Verdict]:
    """What every rule says, by its name here."""
    return {name: rule(history, thresholds) for name, rule in RULES.items()}
