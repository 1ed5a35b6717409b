"""Settings of what RL maximises. No torch here: the command line reads it."""

from typing import Self

from pydantic import model_validator

from keel.core.config import Config


class RewardPart(Config):
    """One term of the score."""

    name: str
    """Under which it is logged."""
    weight: float = 1.0
    """Factor in the sum."""
    model: str | None = None
    """Folder of a reward model, or `stage` for the one this recipe trains."""
    python: str | None = None
    """`file.py:function`; the function takes (prompts, responses) and returns one number each."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.python is None):
            raise ValueError("give exactly one of `model` and `python`")
        return self
