"""Settings of rounds: judgments follow the policy. No torch here: the command line reads it."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config
from keel.stages.sections.rewards import RewardPart, RewardParts

JudgeName = Literal["labeller", "reward", "feedback"]


class RoundsConfig(Config):
    """Judge fresh samples, learn, repeat. With ppo the reward model learns from them, with prefer the policy itself."""

    count: int = Field(4, ge=1)
    """Rounds of training; fresh samples are judged between them."""
    comparisons: int = Field(800, ge=1)
    """Fresh pairs judged in a round, half policy against policy, half policy against SFT."""
    first_comparisons: int = Field(0, ge=0)
    """Pairs of SFT samples judged before anything learns from them, for recipes without data.comparisons."""
    judge: JudgeName = "labeller"
    """Who judges fresh pairs: labeller asks rounds.labeller, reward asks rounds.rewards (a policy can learn from its
    judgments, the reward model itself cannot), feedback the AI judge of that section. The first comparisons are always
    the labeller's where there is one."""
    labeller: str | None = None
    """`file.py:function` that judges pairs: takes a list of `keel.stages.labels.Pair` and returns a list of
    `keel.data.records.Comparison`, votes included where there are any."""
    rewards: RewardParts = (RewardPart(name="reward_model", model="stage"),)
    """Who judges with judge: reward; a weighted sum. Left out: ppo.rewards, where there is such a section."""
    verdicts: Literal["probability", "choice"] = "probability"
    """What judge: reward says of a pair: the probability that a is better, sigmoid(score a - score b), which is what
    Bradley-Terry scores mean; or the choice alone, 1 or 0 and 0.5 for equal scores, for rewards on another scale."""
    reference: Literal["sft", "previous"] = "sft"
    """The policy that prefer is held to in later rounds. sft bounds the whole way from SFT; previous lets each round go
    as far again."""
    replay: float = Field(1.0, ge=0)
    """Earlier comparisons mixed into each round, as a share of the fresh ones."""
    learning_rate: float | None = Field(None, gt=0)
    """Rate of the later rounds' training on comparisons; null takes two thirds of reward.optim's, or of
    prefer.optim's."""
