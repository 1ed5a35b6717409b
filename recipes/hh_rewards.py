"""A rule beside the reward model of hh-harmless.yaml.

Half the refusals in the set are short, so a weak reward model comes to like silence best; without this rule PPO on a
tiny model ends in empty answers (docs/recipes.md has the figures).
"""

from collections.abc import Sequence

ENOUGH_WORDS = 8


def long_enough(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """0 for ENOUGH_WORDS words or more, falling evenly to -1 for an empty response."""
    return [min(0.0, len(response.split()) / ENOUGH_WORDS - 1) for response in responses]
