"""Settings of rounds: labels follow the policy. No torch here: the command line reads it."""

from pydantic import Field

from keel.core.config import Config


class RoundsConfig(Config):
    """Collect, refresh the reward model, optimise, repeat: labels follow the policy."""

    count: int = Field(4, ge=1)
    """Rounds of RL; the reward model is refreshed between them."""
    comparisons: int = Field(800, ge=1)
    """Fresh pairs judged before each refresh, half policy against policy, half policy against SFT."""
    first_comparisons: int = Field(0, ge=0)
    """Pairs of SFT samples judged before the first reward model, for recipes without data.comparisons."""
    labeller: str | None = None
    """`file.py:function` that judges pairs: takes a list of `keel.stages.labels.Pair` and returns a list of
    `keel.data.records.Comparison`, votes included where there are any."""
    replay: float = Field(1.0, ge=0)
    """Earlier comparisons mixed into each refresh, as a share of the fresh ones."""
    learning_rate: float | None = Field(None, gt=0)
    """Rate of a refresh; null takes two thirds of reward.optim's."""
