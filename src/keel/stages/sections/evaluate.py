"""Settings of the comparison with SFT. No torch here: the command line reads it."""

from pydantic import Field

from keel.core.config import Config
from keel.data.formats import DataConfig


class EvaluateConfig(Config):
    """Final policy against SFT on held-out prompts."""

    prompts: int = Field(256, ge=1)
    """Held-out prompts, one response each from both policies."""
    data: DataConfig | None = None
    """Prompts to compare on; null takes held-out ones of data.prompts, or of what stands in for them."""
    temperature: float = Field(1.0, ge=0)
    """Sampling temperature; 0 is greedy."""
    preference: str | None = None
    """`file.py:function` that knows the true preference: takes (prompts, responses, finished) and returns one utility
    each, or named lists of which one is `utility`. null compares by the reward model, and says so."""
