"""What OpenRLHF logs, read in its source: v0.4.5, v0.5.9, v0.6.4, v0.8.0, v0.8.11, v0.9.10, v0.10.4, v0.11.0 (commit
3c3be62).

Units, as the source computes them: `kl` is a mean over tokens of whatever --algo.kl.estimator says (k1 unless set),
each term clamped to ±10 in later versions; `logprobs_diff` (from 0.9.5) is the same with k1, unclamped, so it counts
first. Both are 0 throughout where no reference model is asked. `reward` and `rollout/reward_mean` are the reward
model's scores with length penalties, before the KL; `return` is what is left after the KL and, for most estimators, a
baseline. `truncated` is the share of answers that ran into the limit; `response_clip_ratio` counts prompt and answer.
"""

import math

from keel.diagnose.dialect import Dialect, Field, rest
from keel.diagnose.rows import Row


def _margin(row: Row) -> float:
    return row.get("chosen_reward", math.nan) - row.get("reject_reward", math.nan)


PPO = Dialect(
    tool="OpenRLHF",
    trainer="train_ppo_ray",
    kind="rl",
    settings="openrlhf-ppo",
    needs=(
        ("policy_loss", "act_loss"),
        ("reward", "rollout/reward_mean"),
        ("return", "kl", "response_length", "rollout/response_length_mean"),
    ),
    fields={
        "rollout/reward_mean": Field("score_mean"),
        "reward": Field("score_mean"),
        "rollout/reward_std": Field("score_std"),
        "logprobs_diff": Field("kl_nats_per_token"),
        "kl": Field("kl_nats_per_token", remark="by the estimator set, k1 unless changed"),
        "rollout/response_length_mean": Field("response_tokens_mean"),
        "response_length": Field("response_tokens_mean"),
        "rollout/truncated_rate": Field("finished_share", rest),
        "truncated": Field("finished_share", rest),
        "entropy_loss": Field("entropy_nats"),
        "ppo_kl": Field("approx_kl"),
        "ppo_clip_ratio": Field("clip_fraction"),
        "critic_loss": Field("value_loss"),
        "policy_loss": Field("policy_loss"),
        "actor_grad_norm": Field("grad_norm"),
        "actor_lr": Field("learning_rate"),
    },
    left_out={
        "return": "for most advantage estimators a baseline is already taken off",
        "group_reward_std": "of one prompt's answers only",
        "response_clip_ratio": "about prompt plus answer, not about unfinished answers",
    },
    zero_is_absent=frozenset({"kl_nats_per_token", "finished_share"}),
)

PAIRS = {
    "loss_mean": Field("loss"),
    "loss": Field("loss"),
    "acc_mean": Field("accuracy"),
    "acc": Field("accuracy"),
    "grad_norm": Field("grad_norm"),
    "lr": Field("learning_rate"),
}

REWARD = Dialect(
    tool="OpenRLHF",
    trainer="train_rm",
    kind="reward",
    settings="openrlhf-rm",
    needs=(("chosen_reward",), ("reject_reward",), ("reward_std", "reward_mean")),
    fields={**PAIRS, "reward_mean": Field("score_mean"), "reward_std": Field("score_std")},
    derived={"reward_margin": _margin},
)

PREFERENCE = Dialect(
    tool="OpenRLHF",
    trainer="train_dpo (or train_rm without an evaluation: their figures have the same names)",
    kind="preference",
    settings="openrlhf-dpo",
    needs=(("chosen_reward",), ("reject_reward",)),
    fields={**PAIRS, "chosen_reward": Field("chosen_reward"), "reject_reward": Field("rejected_reward")},
    derived={"reward_margin": _margin},
)

SFT = Dialect(
    tool="OpenRLHF",
    trainer="train_sft",
    kind="sft",
    settings="openrlhf-sft",
    needs=(("gpt_loss",),),
    fields={
        "loss_mean": Field("loss"),
        "gpt_loss": Field("loss"),
        "eval gpt_loss": Field("loss"),
        "grad_norm": Field("grad_norm"),
        "lr": Field("learning_rate"),
    },
)

DIALECTS = (PPO, REWARD, PREFERENCE, SFT)
