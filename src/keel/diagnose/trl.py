"""What TRL's trainers log, read in its source: v0.9.6, v0.15.2, v0.19.1, v0.23.0, v0.29.0, v1.9.0 (35def3e).

Units, as the source computes them:

- PPOTrainer, PPOv2Trainer and RLOOTrainer up to 0.21: `objective/kl` is the sum over a response of k1 (or k3, a
  setting), averaged over responses: nats per sequence. `policy/approxkl_avg` averages over padded positions too, so
  it is a lower bound; `policy/entropy_avg` likewise mixes padded positions in, and `objective/entropy` counts -1 nat
  for each of them.
- GRPOTrainer (k3) and RLOOTrainer from 0.22 (k1): `kl` is a mean over tokens. The length of answers is often in the
  thousands, and older versions average per-answer means, so nothing per sequence is made of it.
- `completions/clipped_ratio` is the share of answers that ran into the length limit.
- DPOTrainer: `rewards/*` are beta times the log-ratio to the reference; `logps/*` sums over the response (averages
  for some losses).
"""

import math

from keel.diagnose.dialect import Dialect, Field, rest
from keel.diagnose.rows import Row

OPTIMISER = {"loss": Field("loss"), "grad_norm": Field("grad_norm"), "learning_rate": Field("learning_rate")}


def _kl_coef(row: Row) -> float:
    """PPOTrainer logs -kl_coef x KL and the KL."""
    kl, cost = row.get("objective/kl", math.nan), row.get("objective/non_score_reward", math.nan)
    return -cost / kl if math.isfinite(cost) and abs(kl) > 1e-3 else math.nan


def _largest_score(row: Row) -> float:
    ends = [abs(row[name]) for name in ("min_reward", "max_reward") if name in row]
    return max(ends) if ends else math.nan


FIRST_PPO = Dialect(
    tool="TRL",
    trainer="PPOTrainer before 0.12",
    kind="rl",
    settings="trl-ppo-first",
    needs=(("ppo/mean_scores",),),
    fields={
        "ppo/mean_scores": Field("score_mean"),
        "ppo/std_scores": Field("score_std"),
        "objective/kl": Field("kl_nats_per_sequence"),
        "objective/kl_coef": Field("kl_coef"),
        "tokens/responses_len_mean": Field("response_tokens_mean"),
        "ppo/policy/entropy": Field("entropy_nats"),
        "ppo/policy/approxkl": Field("approx_kl"),
        "ppo/policy/clipfrac": Field("clip_fraction"),
        "ppo/loss/value": Field("value_loss"),
        "ppo/val/var_explained": Field("explained_variance"),
        "ppo/loss/total": Field("loss"),
        "ppo/learning_rate": Field("learning_rate"),
    },
    left_out={
        "objective/entropy": "a sum of sampled log-probabilities, not an entropy per token",
        "env/reward_mean": "the same scores once more",
    },
)

PPO = Dialect(
    tool="TRL",
    trainer="PPOTrainer (or RLOOTrainer before 0.22)",
    kind="rl",
    settings="trl-ppo",
    needs=(("objective/kl",), ("objective/scores",), ("policy/approxkl_avg",)),
    fields={
        "objective/scores": Field("score_mean"),
        "objective/rlhf_reward": Field("reward_mean"),
        "objective/kl": Field("kl_nats_per_sequence"),
        "policy/approxkl_avg": Field("approx_kl", remark="averaged over padding too: a lower bound"),
        "policy/clipfrac_avg": Field("clip_fraction"),
        "loss/value_avg": Field("value_loss"),
        "loss/policy_avg": Field("policy_loss"),
        "lr": Field("learning_rate"),
        "learning_rate": Field("learning_rate"),
        "grad_norm": Field("grad_norm"),
    },
    derived={"kl_coef": _kl_coef},
    left_out={
        "policy/entropy_avg": "averaged over padding too, so it moves with the length of answers",
        "objective/entropy": "counts -1 nat for each padded position",
        "val/num_eos_tokens": "counts tokens, not answers, padding included where pad and EOS are one token",
    },
    zero_is_absent=frozenset({"value_loss"}),
)

ONLINE_DPO = Dialect(
    tool="TRL",
    trainer="OnlineDPOTrainer",
    kind="rl",
    settings="trl-online-dpo",
    needs=(("objective/kl",), ("objective/scores_margin", "rewards/margins")),
    fields={
        "objective/scores": Field("score_mean"),
        "objective/rlhf_reward": Field("reward_mean"),
        "objective/kl": Field("kl_nats_per_sequence"),
        "val/contain_eos_token": Field("finished_share"),
        **OPTIMISER,
    },
    left_out={"objective/entropy": "a sum over the response, not an entropy per token"},
)

GROUPS = Dialect(
    tool="TRL",
    trainer="GRPOTrainer (or RLOOTrainer from 0.22)",
    kind="rl",
    settings="trl-grpo",
    needs=(
        ("reward",),
        ("reward_std", "frac_reward_zero_std"),
        ("completions/mean_length", "completion_length", "kl", "num_tokens"),
    ),
    fields={
        "reward": Field("score_mean"),
        "reward_std": Field("score_std", remark="of one prompt's answers before 0.27, of all answers since"),
        "kl": Field("kl_nats_per_token"),
        "completions/mean_length": Field("response_tokens_mean"),
        "completion_length": Field("response_tokens_mean"),
        "completions/clipped_ratio": Field("finished_share", rest),
        "entropy": Field("entropy_nats"),
        "clip_ratio/region_mean": Field("clip_fraction"),
        "clip_ratio": Field("clip_fraction"),
        "frac_reward_zero_std": Field("zero_spread_share"),
        **OPTIMISER,
    },
    families={r"rewards/(.+)/mean": r"score_\1"},
)

REWARD = Dialect(
    tool="TRL",
    trainer="RewardTrainer (or a Trainer of classifiers, which logs an accuracy too)",
    kind="reward",
    settings="trl-reward",
    needs=(("accuracy",), ("loss",)),
    fields={
        "accuracy": Field("accuracy"),
        "margin": Field("reward_margin"),
        "mean_reward": Field("score_mean"),
        **OPTIMISER,
    },
    derived={"score_abs_max": _largest_score},
)

PREFERENCE = Dialect(
    tool="TRL",
    trainer="DPOTrainer or one of its kin (CPO, ORPO, KTO)",
    kind="preference",
    settings="trl-dpo",
    needs=(("rewards/chosen",), ("rewards/rejected",)),
    fields={
        "rewards/accuracies": Field("accuracy"),
        "rewards/margins": Field("reward_margin"),
        "rewards/chosen": Field("chosen_reward"),
        "rewards/rejected": Field("rejected_reward"),
        "logps/chosen": Field("chosen_logprob"),
        "logps/rejected": Field("rejected_logprob"),
        **OPTIMISER,
    },
)

SFT = Dialect(
    tool="TRL",
    trainer="SFTTrainer, or another Trainer with a loss",
    kind="sft",
    settings="trl-sft",
    needs=(("loss",), ("learning_rate", "grad_norm", "mean_token_accuracy")),
    fields={"mean_token_accuracy": Field("token_accuracy"), **OPTIMISER},
)

DIALECTS = (FIRST_PPO, ONLINE_DPO, PPO, GROUPS, PREFERENCE, REWARD, SFT)
"""In the order in which they are tried: what fits a later one may fit an earlier one better."""
