"""Settings of the algorithms: only what their equations hold. No torch here: the command line reads them."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from keel.core.config import Config

KL_PRESETS = {
    "source_a": {"controller": "adaptive", "initial": 0.05, "low": 0.01, "high": 0.1},
    "instructgpt": {"controller": "adaptive", "initial": 0.2, "low": 0.02, "high": 2.0},
    "grpo": {"controller": "fixed", "initial": 0.04, "estimator": "k3", "placement": "loss"},
}
GRPO_PRESETS = {
    "dr_grpo": {"scale": "none", "average": "constant"},
    "dapo": {"average": "tokens", "clip_high": 0.28, "resample_tries": 2},
}


def filled(values: object, presets: Mapping[str, Mapping[str, object]]) -> object:
    """`values` of a section over those of the preset that it names."""
    if not isinstance(values, dict):
        return values
    preset = values.get("preset")
    return {**presets[preset], **values} if isinstance(preset, str) and preset in presets else values


class KLConfig(Config):
    """The penalty that keeps the policy near its reference. The estimator decides the fixed point (C14)."""

    preset: Literal["none", "source_a", "instructgpt", "grpo"] = "none"
    """Named starting values: source_a is 0.05 adaptive within 0.01 to 0.1, instructgpt is 0.2 adaptive, grpo is 0.04
    fixed with k3 in the loss (what algorithm grpo takes when no preset is named). Fields given beside a preset win over
    it."""
    estimator: Literal["k1", "k2", "k3"] = "k1"
    """k1 = log pi/ref, k2 = k1²/2, k3 = exp(-k1) - 1 + k1 (Schulman 2020)."""
    placement: Literal["reward", "loss"] = "reward"
    """Where the penalty acts. Only k1 in the reward leads to ref·exp(score/kl) whatever the length of responses. k2 in
    the loss does so for responses of one token and is short-sighted for longer ones, k3 in the loss and k2 or k3 in the
    reward lead elsewhere, and k1 in the loss is no penalty at all."""
    controller: Literal["fixed", "adaptive"] = "adaptive"
    """adaptive steers the coefficient towards `target` (Ziegler et al. 2019)."""
    initial: float = Field(0.05, ge=0)
    """First value of the coefficient."""
    target: float = Field(6.0, gt=0)
    """Wanted KL in nats per sequence, for the adaptive controller."""
    horizon: float = Field(10_000.0, gt=0)
    """Episodes over which the adaptive controller reacts."""
    low: float = Field(0.0, ge=0)
    """The coefficient never falls below."""
    high: float = Field(10.0, gt=0)
    """The coefficient never rises above."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: object) -> object:
        return filled(values, KL_PRESETS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.low <= self.initial <= self.high:
            raise ValueError(f"initial={self.initial} lies outside low={self.low} to high={self.high}; widen the clamp")
        return self

    @property
    def warning(self) -> str | None:
        """What is wrong with this estimator in this place, if anything (SCIENCE: penalty fixed points)."""
        meant = "ref·exp(score/kl). Use k1 in the reward for that."
        return {
            ("reward", "k1"): None,
            ("reward", "k2"): f"k2 in the reward is a biased estimate of the KL: the optimum is not {meant}",
            ("reward", "k3"): f"The gradient of k3 in the reward is not that of the KL: the optimum is not {meant}",
            ("loss", "k1"): "k1 in the loss has zero expected gradient on-policy: it does not hold the policy at all. "
            "Use k1 in the reward.",
            ("loss", "k2"): "k2 in the loss charges each token its own KL, not what it leads to: beyond responses of "
            f"one token the optimum is not {meant}",
            ("loss", "k3"): f"k3 in the loss has the gradient of KL(ref || policy): the optimum is not {meant}",
        }[self.placement, self.estimator]


class PPOConfig(Config):
    """Proximal policy optimisation (Schulman et al. 2017) with a critic."""

    epochs: int = Field(4, ge=1)
    """Passes over each rollout."""
    minibatches: int = Field(4, ge=1)
    """Optimiser steps per pass."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """The ratio is held above 1 - clip_low."""
    clip_high: float = Field(0.2, gt=0)
    """The ratio is held below 1 + clip_high."""
    value_clip: float | None = Field(0.2, gt=0)
    """New values are held within this of the old ones; none with null."""
    value_coef: float = Field(0.1, ge=0)
    """Weight of the value loss."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of the entropy bonus, in reward per nat."""
    whiten_advantages: bool = True
    """Advantages are brought to mean 0 and variance 1 over the rollout."""
    whiten_rewards: bool = False
    """Per-token rewards are scaled to variance 1 (the mean is kept)."""
    stop_at_kl: float | None = Field(0.05, gt=0)
    """An update ends early when the policy has moved this far from the one that sampled, in nats per token."""
    critic: Literal["separate", "trunk"] = "separate"
    """Own network, or a head on the policy's trunk."""
    critic_learning_rate: float | None = Field(None, gt=0)
    """Rate of the critic; null takes the policy's."""


class CriticFreeConfig(Config):
    """What every method without a critic needs."""

    epochs: int = Field(1, ge=1)
    """Passes over each rollout."""
    minibatches: int = Field(2, ge=1)
    """Optimiser steps per pass."""
    entropy_coef: float = Field(0.0, ge=0)
    """Weight of the entropy bonus, in reward per nat."""
    stop_at_kl: float | None = Field(0.05, gt=0)
    """An update ends early when the policy has moved this far from the one that sampled, in nats per token."""
    resample_tries: int = Field(0, ge=0)
    """Dynamic sampling (DAPO): how often an update may sample other prompts in place of those whose samples are all
    paid alike and so teach nothing. What is still missing then is filled up with these; 0 trains on what came."""


class GroupConfig(CriticFreeConfig):
    """What those of them need that clip the ratio."""

    clip_low: float = Field(0.2, gt=0, lt=1)
    """The ratio is held above 1 - clip_low."""
    clip_high: float = Field(0.2, gt=0)
    """The ratio is held below 1 + clip_high."""


class RLOOConfig(GroupConfig):
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024)."""


class GRPOConfig(GroupConfig):
    """Group-relative policy optimisation (Shao et al. 2024) and its two best-known corrections."""

    preset: Literal["none", "dr_grpo", "dapo"] = "none"
    """none is GRPO as published; dr_grpo takes scale none and average constant (Liu et al. 2025); dapo averages over
    tokens, clips at 1.28 and takes resample_tries 2 (Yu et al. 2025; its penalty for overlong answers is
    ppo.shaping.overlong_buffer). Fields given beside a preset win over it."""
    scale: Literal["std", "none"] = "std"
    """What the advantages of a prompt are divided by: the deviation of its scores, which weighs prompts by how alike
    their samples are, or nothing."""
    average: Literal["responses", "tokens", "constant"] = "responses"
    """Of what the loss is a mean: responses takes the mean over each response's tokens first, so that long responses
    count less a token; tokens takes all alike; constant divides the sum over a response by ppo.max_new_tokens."""

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: object) -> object:
        return filled(values, GRPO_PRESETS)


class ReinforcePPConfig(GroupConfig):
    """REINFORCE++ (Hu et al. 2025): PPO without a critic, its advantages in units of the whole rollout."""

    baseline: Literal["rollout", "prompt"] = "rollout"
    """What a score is compared with: the mean over the whole rollout, for which one sample a prompt is enough, or
    first the mean of its prompt's samples (REINFORCE++-baseline)."""

    @model_validator(mode="after")
    def _nothing_to_resample(self) -> Self:
        if self.baseline == "rollout" and self.resample_tries:
            raise ValueError(
                f"resample_tries={self.resample_tries} is for methods that compare the samples of a prompt, and "
                "baseline: rollout compares all with all. Set baseline: prompt, or leave resample_tries out"
            )
        return self


class OnlineDPOConfig(CriticFreeConfig):
    """Online DPO (Guo et al. 2024): fresh pairs, judged by their scores. Its beta is the KL coefficient."""

    loss: Literal["dpo", "ipo"] = "dpo"
    """Of a pair: that of DPO, or the squared one of IPO."""
    label: Literal["soft", "hard"] = "soft"
    """What the judge says of a pair: soft is sigmoid(score - other score), the chance that Bradley-Terry gives it, and
    leads to ref·exp(score/kl); hard is 1 for the better score, however little better, and has no such end."""
    pairs: Literal["all", "best_worst"] = "all"
    """Which of a prompt's samples make a pair: each with each, or only the best with the worst, which costs less a
    sample and says nothing of what lies between."""


class PairLossConfig(Config):
    """The Bradley-Terry loss of a reward model."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of labels taken to be random."""
    centering: float = Field(0.01, ge=0)
    """Weight of (score_a + score_b)², which keeps scores near zero."""


class NoisyLabels(Config):
    """What a loss on pairs may believe of its labels."""

    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the way that targets move to their opposite (conservative DPO). It holds the policy back; it does not
    correct for wrong labels."""
    label_noise: float = Field(0.0, ge=0, lt=0.5)
    """Share of labels known to be wrong, which the loss then corrects for (robust DPO, Chowdhury et al. 2024)."""

    @model_validator(mode="after")
    def _one_view_of_noise(self) -> Self:
        if self.label_smoothing and self.label_noise:
            raise ValueError(
                f"label_smoothing={self.label_smoothing} and label_noise={self.label_noise} pull the targets in "
                "opposite directions. Keep label_noise if you know how many labels are wrong, else label_smoothing"
            )
        return self


class DPOConfig(NoisyLabels):
    """Direct preference optimisation (Rafailov et al. 2023): the loss on a pair of responses."""

    beta: float = Field(0.1, gt=0)
    """Reward per nat of log-ratio to the reference. Higher keeps the policy nearer to it."""


class IPOConfig(NoisyLabels):
    """Identity preference optimisation (Azar et al. 2023): a squared loss, bounded however sure the raters are."""

    beta: float = Field(0.1, gt=0)
    """Reward per nat of log-ratio to the reference: a certain pair should be 1 / (2 beta) nats apart."""


class SimPOConfig(NoisyLabels):
    """Simple preference optimisation (Meng et al. 2024): mean log-probabilities as rewards, no reference."""

    beta: float = Field(2.0, gt=0)
    """Reward per nat of mean log-probability. The paper takes 2 to 2.5, far more than DPO's."""
    gamma: float = Field(1.0, ge=0)
    """By how much the better reward should lead; the paper takes 0.3 to 0.5 of beta."""


class ORPOConfig(Config):
    """Odds-ratio preference optimisation (Hong et al. 2024): SFT on the better response and a penalty, no reference."""

    odds_weight: float = Field(0.1, ge=0)
    """Weight of the odds-ratio term beside imitation (lambda of the paper, beta in TRL)."""


class KTOConfig(Config):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024): thumbs up and down, no pairs."""

    beta: float = Field(0.1, gt=0)
    """Reward per nat of log-ratio to the reference. Higher keeps the policy nearer to it."""
    desirable_weight: float = Field(1.0, gt=0)
    """Weight of responses with thumbs up."""
    undesirable_weight: float = Field(1.0, gt=0)
    """Weight of responses with thumbs down. The paper wants (thumbs up · desirable_weight) to be 1 to 4/3 of (thumbs
    down · undesirable_weight)."""


PairConfig = DPOConfig | IPOConfig | SimPOConfig | ORPOConfig
"""Of the methods that learn from comparisons."""
