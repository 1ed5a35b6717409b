"""How each tool says what the moves ask for: the names of its settings, and their defaults.

Read in the same sources as the figures: TRL v0.9.6 (first PPO) and v1.9.0, OpenRLHF v0.11.0. OpenRLHF renamed its flags
in 0.10.2; the older name stands beside.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from keel.monitor.history import number


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a tool, and how it should change."""

    name: str
    factor: float | None = None
    """The new value over the old one."""
    to: str = ""
    """The new value in words, where it is not a multiple of the old one: always, or where the old one is 0 or unset."""
    default: float | None = None
    looked_up: str = ""
    """Where the value that it had is found, if not under its own name."""
    highest: float | None = None
    whole: bool = False
    usual: bool = False
    """Whether it is the tool's default, which most runs have already: other advice goes before it."""
    met: tuple[str, float] | None = None
    """A figure of the run, and the value from which on nothing is left to do."""
    formerly: str = ""
    """OpenRLHF's name of the flag before 0.10.2."""

    def change(self, set_to: Mapping[str, Any], algorithm: str) -> tuple[float | None, str]:
        """The value that it had, None where the log does not say, and the change in words, empty where there is none:
        a value at its limit goes no further.
        """
        key = (self.looked_up or self.name).replace("{algorithm}", algorithm)
        had = number(set_to.get(key))
        known = had if isfinite(had) else None
        if self.met and number(set_to.get(self.met[0])) >= self.met[1]:
            return known, ""
        if self.factor is None:
            inside = self.name.partition(".")[2]  # a stage's settings go without the stage's name
            return known, "" if str(set_to.get(inside)) == self.to else self.to
        if known:
            new = self._times(known)
            return known, self._text(new) if (new > known) == (self.factor > 1) and new != known else ""
        if known == 0 and self.factor < 1:
            return known, ""
        was_off = key in set_to and self.to
        return known, self.to if was_off else self._in_words()

    def _times(self, value: float) -> float:
        new = value * (self.factor or 1.0)
        new = min(new, self.highest) if self.highest is not None else new
        return max(1, round(new)) if self.whole else new

    def _in_words(self) -> str:
        verb = {2.0: "double it", 0.5: "halve it", 1.5: "half as much again", 0.7: "by a third less"}
        text = verb.get(self.factor or 1.0, f"times {self.factor:g}")
        return f"{text} (the default is {self.default:g})" if self.default is not None else text

    def _text(self, value: float) -> str:
        return f"{value:.3g}" if not self.whole else str(int(value))


AGREEMENT = Setting(
    "data.override_agreement",
    to="null, and votes of two raters or more on shared items",
    met=("krippendorff_alpha", 0.4),
)
KEEL_PPO = {
    "hold": Setting("ppo.kl.initial", 2.0, looked_up="kl.initial", to="0.05", highest=10.0),
    "hold_target": Setting("ppo.kl.target", 0.5, looked_up="kl.target"),
    "loosen": Setting("ppo.kl.initial", 0.5, looked_up="kl.initial", to="0.02"),
    "loosen_target": Setting("ppo.kl.target", 1.5, looked_up="kl.target"),
    "slower": Setting("ppo.optim.learning_rate", 0.5, looked_up="optim.learning_rate"),
    "faster": Setting("ppo.optim.learning_rate", 1.5, looked_up="optim.learning_rate"),
    "sturdier": Setting("ppo.optim.max_grad_norm", 0.5, looked_up="optim.max_grad_norm"),
    "shorter": Setting("ppo.shaping.length_penalty", 2.0, looked_up="shaping.length_penalty", to="0.5"),
    "finish": Setting("ppo.shaping.missing_eos_penalty", 2.0, looked_up="shaping.missing_eos_penalty", to="1.0"),
    "room": Setting("ppo.max_new_tokens", 1.5, looked_up="max_new_tokens", whole=True),
    "explore": Setting(
        "ppo.{algorithm}.entropy_coef", 2.0, looked_up="{algorithm}.entropy_coef", to="0.01", highest=0.1
    ),
    "warmer": Setting("ppo.temperature", 1.5, looked_up="temperature", highest=1.2),
    "more_samples": Setting("ppo.samples", 2.0, looked_up="samples", whole=True),
    "stop_earlier": Setting("ppo.updates", to="{stop}", looked_up="updates"),
    "longer": Setting("ppo.updates", 1.5, looked_up="updates", whole=True),
    "fewer_epochs": Setting("ppo.{algorithm}.epochs", 0.5, looked_up="{algorithm}.epochs", whole=True),
    "narrow": Setting("ppo.{algorithm}.clip_high", 0.5, looked_up="{algorithm}.clip_high"),
    "critic": Setting(
        "ppo.ppo.critic_learning_rate", 2.0, looked_up="ppo.critic_learning_rate", to="3 times ppo.optim.learning_rate"
    ),
    "no_critic": Setting("ppo.algorithm", to="rloo", looked_up="-"),
    "fresh_labels": Setting("rounds.count", to="2 or more, so that labels are collected on the policy's own answers"),
    "better_reward": Setting("rounds.first_comparisons", to="twice as many comparisons as were trained on"),
    "ensemble": Setting("reward.members", to="3, with reward.aggregate: min"),
    "clip_reward": Setting("ppo.shaping.clip", 0.5, looked_up="shaping.clip", to="3.0"),
    "prompts": Setting("data.prompts", to="more prompts, or a lower ppo.updates"),
    "rescale": Setting("ppo.shaping.normalise", to="running", looked_up="-"),
    "place": Setting("ppo.kl.placement", to="reward, with ppo.kl.estimator k1", looked_up="-"),
    "spread": Setting("data.prompts", to="prompts whose answers differ in score"),
    "judge": Setting("evaluate.preference", to="judges who are not the reward model (a Python function)"),
}
KEEL_REWARD = {
    "slower": Setting("reward.optim.learning_rate", 0.5, looked_up="optim.learning_rate"),
    "faster": Setting("reward.optim.learning_rate", 2.0, looked_up="optim.learning_rate"),
    "sturdier": Setting("reward.optim.max_grad_norm", 0.5, looked_up="optim.max_grad_norm"),
    "smooth": Setting("reward.loss.label_smoothing", 2.0, looked_up="loss.label_smoothing", to="0.1", highest=0.4),
    "pass_less": Setting("reward.epochs", 0.5, looked_up="epochs", whole=True),
    "pass_more": Setting("reward.epochs", 2.0, looked_up="epochs", whole=True),
    "clean": AGREEMENT,
    "centre": Setting("reward.loss.centering", 2.0, looked_up="loss.centering", to="0.01"),
    "decay": Setting("reward.optim.weight_decay", 2.0, looked_up="optim.weight_decay", to="0.01"),
    "ensemble": Setting("reward.members", to="3, with reward.aggregate: min"),
    "better_reward": Setting("data.comparisons", to="twice as many comparisons"),
    "fresh_labels": Setting("rounds.count", to="2 or more, so that labels are collected on the policy's own answers"),
}
KEEL_PREFER = {
    "hold_pairs": Setting("prefer.dpo.beta", 2.0, looked_up="dpo.beta"),
    "loosen_pairs": Setting("prefer.dpo.beta", 0.5, looked_up="dpo.beta"),
    "likelihood": Setting("prefer.algorithm", to="ipo, whose margins stop at a finite value", looked_up="-"),
    "slower": Setting("prefer.optim.learning_rate", 0.5, looked_up="optim.learning_rate"),
    "faster": Setting("prefer.optim.learning_rate", 2.0, looked_up="optim.learning_rate"),
    "sturdier": Setting("prefer.optim.max_grad_norm", 0.5, looked_up="optim.max_grad_norm"),
    "smooth": Setting("prefer.dpo.label_smoothing", 2.0, looked_up="dpo.label_smoothing", to="0.1", highest=0.4),
    "pass_less": Setting("prefer.patience", to="2, so that training stops when held-out pairs stop gaining"),
    "pass_more": Setting("prefer.epochs", 2.0, looked_up="epochs", whole=True),
    "clean": AGREEMENT,
    "decay": Setting("prefer.optim.weight_decay", 2.0, looked_up="optim.weight_decay", to="0.01"),
    "better_reward": Setting("data.comparisons", to="twice as many comparisons"),
    "judge": Setting("evaluate.preference", to="judges who did not label the training pairs (a Python function)"),
}
KEEL_SFT = {
    "slower": Setting("sft.optim.learning_rate", 0.5, looked_up="optim.learning_rate"),
    "faster": Setting("sft.optim.learning_rate", 2.0, looked_up="optim.learning_rate"),
    "sturdier": Setting("sft.optim.max_grad_norm", 0.5, looked_up="optim.max_grad_norm"),
    "pass_less": Setting("sft.epochs", 0.5, looked_up="epochs", whole=True),
    "pass_more": Setting("sft.epochs", 2.0, looked_up="epochs", whole=True),
    "decay": Setting("sft.optim.weight_decay", 2.0, looked_up="optim.weight_decay", to="0.01"),
    "clean": Setting("data.demonstrations", to="demonstrations without duplicates and empty answers"),
    "evaluate": Setting("data.demonstrations.holdout", to="0.1"),
}

TRL_COMMON = {
    "slower": Setting("learning_rate", 0.5),
    "faster": Setting("learning_rate", 2.0),
    "sturdier": Setting("max_grad_norm", 0.5, default=1.0),
}
TRL_REWARD_DATA = {
    "fresh_labels": Setting("reward_funcs", to="a reward model trained again, with pairs of this policy's own answers"),
    "better_reward": Setting("reward_funcs", to="a reward model trained on more, and more different, pairs"),
    "ensemble": Setting("reward_funcs", to="three reward models, combined by their least score"),
    "judge": Setting("eval_dataset", to="held-out prompts, answers before and after compared by judges"),
}
TRL_PPO = {
    **TRL_COMMON,
    **{move: Setting("reward_model", to=setting.to) for move, setting in TRL_REWARD_DATA.items()},
    "judge": TRL_REWARD_DATA["judge"],
    "hold": Setting("kl_coef", 2.0, default=0.05),
    "loosen": Setting("kl_coef", 0.5, default=0.05),
    "shorter": Setting("response_length", 0.7, default=53.0, whole=True),
    "room": Setting("response_length", 1.5, default=53.0, whole=True),
    "finish": Setting("missing_eos_penalty", to="1.0, with stop_token: eos (both are unset by default)"),
    "warmer": Setting("temperature", to="1.0 (the default is 0.7)"),
    "fewer_epochs": Setting("num_ppo_epochs", 0.5, default=4.0, whole=True),
    "narrow": Setting("cliprange", 0.5, default=0.2),
    "critic": Setting("vf_coef", 2.0, default=0.1),
    "no_critic": Setting("RLOOTrainer", to="instead of PPOTrainer: it has no critic"),
    "stop_earlier": Setting("total_episodes", to="as many as update {stop} had seen; save_steps keeps the checkpoints"),
    "longer": Setting("total_episodes", 1.5),
    "more_samples": Setting("num_mini_batches", to="1, with a larger per_device_train_batch_size"),
}
TRL_PPO_FIRST = {
    "hold": Setting("init_kl_coef", 2.0, default=0.2, looked_up="kl_coef"),
    "loosen": Setting("init_kl_coef", 0.5, default=0.2, looked_up="kl_coef"),
    "hold_target": Setting("target", 0.5, default=6.0),
    "loosen_target": Setting("target", 1.5, default=6.0),
    **TRL_COMMON,
    **{move: Setting("the reward model", to=setting.to) for move, setting in TRL_REWARD_DATA.items()},
    "shorter": Setting("generation_kwargs max_new_tokens", 0.7),
    "room": Setting("generation_kwargs max_new_tokens", 1.5),
    "fewer_epochs": Setting("ppo_epochs", 0.5, default=4.0, whole=True),
    "narrow": Setting("cliprange", 0.5, default=0.2),
    "critic": Setting("vf_coef", 2.0, default=0.1),
    "clip_reward": Setting("score_clip", to="3.0, with use_score_scaling and use_score_norm"),
    "stop_earlier": Setting("steps", to="as many as update {stop} had seen"),
    "more_samples": Setting("batch_size", 2.0, default=128.0, whole=True),
}
TRL_GRPO = {
    **TRL_COMMON,
    **TRL_REWARD_DATA,
    "hold": Setting("beta", 2.0, to="0.04 (it was 0, GRPO's default: no KL at all)"),
    "loosen": Setting("beta", 0.5),
    "shorter": Setting(
        "reward_funcs", to="add get_soft_overlong_punishment (trl.rewards), or a small cost for each token"
    ),
    "finish": Setting("mask_truncated_completions", to="True"),
    "room": Setting("max_completion_length", 1.5, default=512.0, whole=True),
    "explore": Setting("entropy_coef", to="0.001 (0 by default); in versions without it, epsilon_high 0.28"),
    "warmer": Setting("temperature", to="1.1 (the default is 1.0)"),
    "more_samples": Setting("num_generations", 2.0, default=8.0, whole=True),
    "spread": Setting("train_dataset", to="without prompts that are always or never solved"),
    "fewer_epochs": Setting("num_iterations", to="1 (the default)", usual=True),
    "narrow": Setting("epsilon", 0.5, default=0.2),
    "stop_earlier": Setting("max_steps", to="{stop}"),
    "longer": Setting("max_steps", 1.5),
}
TRL_ONLINE_DPO = {
    **TRL_COMMON,
    **TRL_REWARD_DATA,
    "hold": Setting("beta", 2.0, default=0.1),
    "loosen": Setting("beta", 0.5, default=0.1),
    "finish": Setting("missing_eos_penalty", to="1.0 (unset by default)"),
    "shorter": Setting("max_new_tokens", 0.7, default=64.0, whole=True),
    "room": Setting("max_new_tokens", 1.5, default=64.0, whole=True),
    "warmer": Setting("temperature", to="1.0 (the default is 0.9)"),
    "stop_earlier": Setting("max_steps", to="{stop}"),
    "longer": Setting("max_steps", 1.5),
}
TRL_DPO = {
    **TRL_COMMON,
    "hold_pairs": Setting("beta", 2.0, default=0.1),
    "loosen_pairs": Setting("beta", 0.5, default=0.1),
    "likelihood": Setting(
        "loss_type", to='["sigmoid", "sft"] with loss_weights [1.0, 0.2] (rpo_alpha in older versions)'
    ),
    "smooth": Setting("label_smoothing", to='0.1 with loss_type "robust"'),
    "pass_less": Setting("num_train_epochs", to="1, with eval_strategy: steps and load_best_model_at_end"),
    "pass_more": Setting("num_train_epochs", to="one more"),
    "evaluate": Setting("eval_strategy", to="steps, with a held-out eval_dataset"),
    "clean": Setting("train_dataset", to="pairs that two raters agree on; look for swapped columns first"),
    "better_reward": Setting("train_dataset", to="twice as many pairs"),
    "judge": Setting("eval_dataset", to="held-out prompts, answers before and after compared by judges"),
    "decay": Setting("weight_decay", to="0.01"),
}
TRL_REWARD = {
    **{name: setting for name, setting in TRL_DPO.items() if name not in ("hold_pairs", "loosen_pairs", "likelihood")},
    "smooth": Setting("train_dataset", to="a margin column, so that pairs that raters disputed count less"),
    "centre": Setting("center_rewards_coefficient", to="0.01 (unset by default)"),
    "ensemble": Setting("seed", to="three runs with different seeds, and the least of their scores in RL"),
    "fresh_labels": Setting("train_dataset", to="add pairs of the current policy's own answers"),
}
TRL_SFT = {
    **TRL_COMMON,
    "pass_less": TRL_DPO["pass_less"],
    "pass_more": TRL_DPO["pass_more"],
    "evaluate": TRL_DPO["evaluate"],
    "decay": TRL_DPO["decay"],
    "clean": Setting("assistant_only_loss", to="True for chats; look whether labels are all -100"),
}

OPENRLHF_COMMON = {
    "judge": Setting("--eval.dataset", to="held-out prompts, answers judged by people", formerly="--eval_dataset"),
}
OPENRLHF_PPO = {
    **OPENRLHF_COMMON,
    "hold": Setting("--algo.kl.init_coef", 2.0, default=0.01, formerly="--init_kl_coef"),
    "loosen": Setting("--algo.kl.init_coef", 0.5, default=0.01, formerly="--init_kl_coef"),
    "slower": Setting(
        "--actor.adam.lr", 0.5, default=1e-6, looked_up="learning_rate", formerly="--actor_learning_rate"
    ),
    "faster": Setting(
        "--actor.adam.lr", 2.0, default=1e-6, looked_up="learning_rate", formerly="--actor_learning_rate"
    ),
    "shorter": Setting(
        "--reward.overlong_buffer_len",
        to="a quarter of --rollout.max_new_tokens, with --reward.overlong_penalty_factor 1",
    ),
    "finish": Setting(
        "--reward.stop_properly_penalty_coef", to="0, so that cut answers earn nothing (unset by default)"
    ),
    "room": Setting("--rollout.max_new_tokens", to="half as much again", formerly="--generate_max_len"),
    "explore": Setting("--actor.entropy_coef", to="0.001 (unset by default), or --actor.eps_clip_low_high 0.2 0.28"),
    "warmer": Setting("--rollout.temperature", to="1.1 (the default is 1.0)", formerly="--temperature"),
    "more_samples": Setting("--rollout.n_samples_per_prompt", 2.0, default=1.0),
    "spread": Setting("--algo.dynamic_filtering_enable", to="on, with --algo.dynamic_filtering_range 0 1"),
    "fewer_epochs": Setting("--train.max_epochs", to="1 (the default)", usual=True),
    "narrow": Setting("--actor.eps_clip", 0.5, default=0.2),
    "critic": Setting("--critic.freezing_steps", to="20, so that the critic learns before the policy moves"),
    "no_critic": Setting("--algo.advantage.estimator", to="rloo, with several --rollout.n_samples_per_prompt"),
    "clip_reward": Setting("--reward.clip_range", to="-3 3 (the default is -10 10)"),
    "stop_earlier": Setting(
        "--ckpt.save_steps", to="small enough to have a checkpoint near step {stop}, and take that"
    ),
    "longer": Setting("--train.num_episodes", 2.0, default=1.0),
    "fresh_labels": Setting(
        "--reward.model_name_or_path", to="a reward model trained again, with pairs of this policy"
    ),
    "better_reward": Setting("--reward.model_name_or_path", to="a reward model trained on more pairs"),
    "ensemble": Setting("--reward.remote_url", to="a reward that is the least of three models' scores"),
}
OPENRLHF_PAIRS = {
    "slower": Setting("--adam.lr", 0.5, looked_up="learning_rate", formerly="--learning_rate"),
    "faster": Setting("--adam.lr", 2.0, looked_up="learning_rate", formerly="--learning_rate"),
    "pass_less": Setting("--train.max_epochs", to="1, with --eval.steps and a held-out set"),
    "pass_more": Setting("--train.max_epochs", to="one more"),
    "evaluate": Setting("--eval.steps", to="a tenth of the run, with a held-out --eval.dataset"),
    "clean": Setting("--data.dataset", to="pairs that two raters agree on; look for swapped columns first"),
    "better_reward": Setting("--data.dataset", to="twice as many pairs"),
    "decay": Setting("--adam.weight_decay", to="0.01"),
}
OPENRLHF_DPO = {
    **OPENRLHF_COMMON,
    **OPENRLHF_PAIRS,
    "hold_pairs": Setting("--model.beta", 2.0, default=0.1, formerly="--beta"),
    "loosen_pairs": Setting("--model.beta", 0.5, default=0.1, formerly="--beta"),
    "likelihood": Setting("--model.nll_loss_coef", to="0.2 (0 by default)", formerly="--nll_loss_coef"),
    "smooth": Setting("--model.label_smoothing", to="0.1 (0 by default)", formerly="--label_smoothing"),
}
OPENRLHF_RM = {
    **OPENRLHF_PAIRS,
    "smooth": Setting("--model.margin_loss_enable", to="on, with margins that say how sure raters were"),
    "ensemble": Setting("--train.seed", to="three runs with different seeds, and the least of their scores in RL"),
    "fresh_labels": Setting("--data.dataset", to="add pairs of the current policy's own answers"),
    "centre": Setting("--reward.normalize_enable", to="on in RL, so that scores have mean 0 and spread 1"),
}

VOCABULARIES: Mapping[str, Mapping[str, Setting]] = {
    "keel-ppo": KEEL_PPO,
    "keel-reward": KEEL_REWARD,
    "keel-prefer": KEEL_PREFER,
    "keel-sft": KEEL_SFT,
    "trl-ppo": TRL_PPO,
    "trl-ppo-first": TRL_PPO_FIRST,
    "trl-grpo": TRL_GRPO,
    "trl-online-dpo": TRL_ONLINE_DPO,
    "trl-dpo": TRL_DPO,
    "trl-reward": TRL_REWARD,
    "trl-sft": TRL_SFT,
    "openrlhf-ppo": OPENRLHF_PPO,
    "openrlhf-dpo": OPENRLHF_DPO,
    "openrlhf-rm": OPENRLHF_RM,
    "openrlhf-sft": OPENRLHF_PAIRS,
}
