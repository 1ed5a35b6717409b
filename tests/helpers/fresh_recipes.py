"""Recipes whose policies answer afresh: rounds of prefer, PPO then prefer, best of n; judged by a rule in a file."""

from typing import Any

from helpers.recipes import Workplace

PEOPLE = """
from keel.data.records import Comparison

def thanks(prompts, responses):
    return [float(response.split().count("thank")) + 0.01 * len(response) for response in responses]

def same(prompts, responses):
    return [1.0] * len(responses)

def truth(prompts, responses, finished):
    return thanks(prompts, responses)

def judge(pairs):
    return [Comparison(pair.prompt, pair.a, pair.b, 0.9 if len(pair.a) > len(pair.b) else 0.2) for pair in pairs]
"""
THANKS: list[dict[str, Any]] = [{"name": "thanks", "python": "people.py:thanks"}]
PREFER: dict[str, Any] = {
    "batch": 8, "evaluate_every": 2, "max_new_tokens": 8, "optim": {"learning_rate": 2e-3}
}  # fmt: skip
ROUNDS: dict[str, Any] = {"count": 3, "comparisons": 24, "judge": "reward", "rewards": THANKS}
BEST_OF: dict[str, Any] = {
    "n": 4, "prompts": 30, "rounds": 2, "max_new_tokens": 8, "unfinished": "keep", "rewards": THANKS,
    "train": {"epochs": 2, "batch": 8, "optim": {"learning_rate": 3e-3}},
}  # fmt: skip
ALONE: dict[str, Any] = {"reward": None, "ppo": None, "evaluate": {"preference": "people.py:truth"}}
"""Without what the method does not need."""

ITERATIVE = {**ALONE, "method": "iterative_dpo", "prefer": PREFER, "rounds": ROUNDS}
HYBRID = {
    **ALONE, "method": "hybrid", "prefer": PREFER, "rounds": {**ROUNDS, "count": 1},
    "ppo": {"updates": 2, "rewards": THANKS, "keep": "last"},
}  # fmt: skip
REJECTION = {**ALONE, "method": "rejection", "best_of": BEST_OF}


def place_of_people(folder: Any, count: int = 40) -> Workplace:
    """A workplace with the file of judges."""
    place = Workplace(folder, count=count)
    place.write("people.py", PEOPLE)
    return place
