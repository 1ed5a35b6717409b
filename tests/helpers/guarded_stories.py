"""Tiny runs of RL whose guardian has something to do: the KL passes a line that the recipe drew low."""

from typing import Any

from helpers.recipes import Ran, merged

from keel.core.files import file_sha256

PEOPLE = """
from keel.data.records import Comparison

def thanks(prompts, responses):
    return [float(response.split().count("thank")) for response in responses]

def constant(prompts, responses):
    return [1.0] * len(responses)

def wordy(prompts, responses):
    return [float(len(response.split())) for response in responses]

def judge(pairs):
    return [
        Comparison(prompt=pair.prompt, a=pair.a, b=pair.b, preference=0.9 if len(pair.a) > len(pair.b) else 0.2)
        for pair in pairs
    ]

def away(pairs):
    raise OSError("the service is away")

def rubbish(pairs):
    return ["left"] * len(pairs)
"""
THANKS = [{"name": "thanks", "python": "people.py:thanks"}]
OFF_THE_MAP = {"ref_perplexity_watch": 8.0, "ref_perplexity_act": 9.0}
"""Random weights wander off any map; these runs are about other rules."""
LOW_LINE = {"kl_stop_per_sequence": 1.0, **OFF_THE_MAP}
"""Nats per sequence that the runs below pass again and again."""
CHECKS = {"judge": "people.py:judge", "every": 3, "pairs": 4, "label_budget": 14}
ALARMED: dict[str, Any] = {
    "sft": None,
    "reward": None,
    "evaluate": None,
    "ppo": {"updates": 10, "rewards": THANKS, "evaluate_every": 2, "optim": {"learning_rate": 3e-3}},
    "guardian": {
        "snapshot_every": 2,
        "quiet_updates": 1,
        "snapshots": 2,
        "actions": {"max_rollbacks": 2, "kl_factor": 3.0, "kl_most": 100.0},
    },
    "thresholds": LOW_LINE,
}
"""Rolls back twice, then stops. Changes for `Workplace.run`."""
WORDY: dict[str, Any] = {
    "ppo": {"rewards": [{"name": "wordy", "python": "people.py:wordy"}]},
    "guardian": {"checks": {**CHECKS, "every": 1, "pairs": 16, "label_budget": 1000}},
}
"""Changes to ALARMED: scores that differ, and enough verdicts for a correction from the first alarm on."""
ON_A_REWARD_MODEL = {**ALARMED, "reward": {"best_of": 0}, "ppo": {**ALARMED["ppo"], "rewards": None}}
TIGHTENED: dict[str, Any] = {
    "ppo": {"updates": 18},
    "thresholds": {
        "kl_stop_per_sequence": 1e6,
        "ref_perplexity_watch": 0.05,
        "ref_perplexity_act": 0.1,
        "human_least_gain": 0.99,
    },
    "guardian": {"quiet_updates": 2, "checks": {**CHECKS, "every": 2, "label_budget": 100}},
}
"""Changes to ALARMED: one loud sign, which is enough to tighten and not to go back, and judges hard to please."""


def alarmed(**changes: Any) -> dict[str, Any]:
    """ALARMED with changes laid over it; None stays, for it removes a section."""
    return {**ALARMED, **{name: laid(ALARMED.get(name), change) for name, change in changes.items()}}


def laid(old: Any, change: Any) -> Any:
    return merged(old, change) if isinstance(old, dict) and isinstance(change, dict) else change


def weights(ran: Ran, stage: str = "ppo") -> str:
    """Digest of the policy that a run kept."""
    (file,) = (ran.directory / "artifacts" / ran.stages[stage]["artifact"]).rglob("model.safetensors")
    return file_sha256(file)


def actions(ran: Ran) -> list[dict[str, Any]]:
    return ran.events("action")
