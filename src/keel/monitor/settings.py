"""Settings of the guardian. No torch here: the command line reads them."""

from typing import Literal

from pydantic import Field

from keel.core.config import Config

Mode = Literal["act", "advise", "silent"]
RuleName = Literal[
    "not_finite",
    "kl_bands",
    "kl_runaway",
    "off_distribution",
    "unfamiliar_text",
    "score_spread",
    "reward_disagreement",
    "length_hacking",
    "repetition",
    "incoherence",
    "stock_phrase",
    "mode_collapse",
    "human_gain",
    "reward_agreement",
    "reward_bias",
    "reward_flattened",
    "reward_saturation",
    "value_failure",
    "too_far",
    "stalled",
    "data_exhausted",
]
"""The rules of keel.monitor.rules, named here so that the command line can tell a wrong name without NumPy."""


class ActionsConfig(Config):
    """What the guardian changes when it acts, and how far."""

    kl_factor: float = Field(2.0, gt=1)
    """By how much the KL coefficient is multiplied after a rollback, and divided when exploration has stalled; always
    within kl.low and kl.high."""
    kl_most: float = Field(4.0, ge=1)
    """How many times kl.initial the KL coefficient becomes at most: a policy that may not move learns nothing."""
    kl_least: float = Field(0.02, gt=0)
    """What the KL coefficient is raised to, at least, where it was smaller."""
    length_penalty: float = Field(0.5, ge=0)
    """shaping.length_penalty from the moment that length is what the policy games."""
    missing_eos_ceiling: float = -1.0
    """shaping.missing_eos_ceiling from the moment that responses stop ending by themselves."""
    entropy_coef: float = Field(0.01, ge=0)
    """Entropy bonus from the moment that answers become alike; it comes before the KL coefficient."""
    correct_reward: bool = True
    """Judges' verdicts correct the reward where they contradict the score for certain."""
    max_rollbacks: int = Field(5, ge=0)
    """After so many rollbacks the next alarm ends the stage with the last healthy policy."""


class CheckConfig(Config):
    """Independent evidence: pairs of policy and SFT answers on held-out prompts, for judges."""

    judge: str | None = None
    """`file.py:function` that judges pairs, like rounds.labeller; null leaves the pairs to people (keel judge RUN)."""
    every: int = Field(0, ge=0)
    """Updates between checks; twice as many once half of the labels are spent, four times when three quarters are, and
    so on, since most is to be learnt early. 0 asks nobody."""
    pairs: int = Field(20, ge=1)
    """Pairs a check."""
    label_budget: int = Field(200, ge=0)
    """Verdicts that a stage may ask for, all checks together."""


class GuardianConfig(Config):
    """Watches an RL run, explains what goes wrong, and acts before it is lost."""

    mode: Mode = "act"
    """act changes settings, rolls back and stops; advise says what it would do; silent only keeps the figures."""
    rules: dict[RuleName, Mode] = Field(default_factory=dict)
    """Rules that differ from `mode`, by name (docs/guardian.md lists them)."""
    actions: ActionsConfig = ActionsConfig()
    """What acting means."""
    checks: CheckConfig = CheckConfig()
    """Judges' verdicts while the run goes on."""
    quiet_updates: int = Field(3, ge=0)
    """Updates after an action in which no other is taken: what was changed must show first."""
    snapshot_every: int = Field(5, ge=1)
    """Updates between the checkpoints that a rollback can go back to."""
    snapshots: int = Field(4, ge=1)
    """How many of them are kept; each is as large as the trained weights and the optimiser's state."""
