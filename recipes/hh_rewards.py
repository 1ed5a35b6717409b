"""A rule beside the reward model of hh-harmless.yaml.

The shorter answer wins more often than not in these pairs, and a weak reward model learns little else: without this
rule PPO on a tiny model ends in empty answers (docs/recipes.md, Measured).
"""

from collections.abc import Sequence

ENOUGH_WORDS = 8


def long_enough(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """0 for ENOUGH_WORDS words or more, falling evenly to -1 for an empty response."""
    return [min(0.0, len(response.split()) / ENOUGH_WORDS - 1) for response in responses]
