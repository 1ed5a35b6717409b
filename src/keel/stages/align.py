"""A policy, prompts and a judge in; a policy that the judge likes better out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from keel.algorithms.grpo import GRPO
from keel.algorithms.ppo import PPO, KLPenalty
from keel.algorithms.rloo import RLOO
from keel.core.artifacts import Artifact
from keel.core.seed import derive
from keel.data.chat import decode_response
from keel.models.adapters import add_lora, reference_mode
from keel.models.critic import Critic
from keel.models.generate import InProcessSampler
from keel.models.heads import ValueHead
from keel.models.layers import share_layers
from keel.models.load import eos_ids, hidden_size
from keel.models.packed import transformer
from keel.models.roles import set_role
from keel.monitor.bands import is_flat, kl_ladder
from keel.monitor.verdict import Verdict
from keel.stages.context import StageContext, StageResult
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer, write_policy
from keel.stages.recipe import RLConfig
from keel.stages.roles import read_role, write_role
from keel.train.judge import Judge
from keel.train.loop import LoopConfig, fit
from keel.train.one_trunk import OneTrunk
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import BestWeights, load_tensors, restore_module, save_module
from keel.train.rollout import EncodedPrompt, Judged, Reference, RolloutConfig, RolloutSource
from keel.train.signals import signals
from keel.train.step import Metrics

CRITIC = "critic.safetensors"
SAMPLES_SHOWN = 12
CLIPPED_WATCH = 0.2
"""Share of clipped scores that is worth a word."""


@dataclass(frozen=True, kw_only=True)
class AlignTask:
    """What one RL stage works on."""

    start: PolicyFiles
    """The policy to improve: the SFT policy, or the policy of the round before."""
    reference: PolicyFiles
    """The policy that the KL is measured against."""
    prompts: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]
    round: int = 0
    step_offset: int = 0
    """Updates of earlier rounds, so that steps count through."""
    earlier: Artifact | None = None
    """The round before: its critic and KL coefficient are carried on."""


class Aligner:
    """One RL stage: networks, source, algorithm, evaluation, and how they are saved."""

    def __init__(
        self, context: StageContext, config: RLConfig, task: AlignTask, judge_for: Callable[[OneTrunk | None], Judge]
    ) -> None:
        """`judge_for` makes the judge; a reward model may take its place on the trunk that it is given."""
        self.context, self.config, self.task = context, config, task
        seed = derive(context.seed, "ppo", task.round)
        torch.manual_seed(seed)
        self.tokenizer = read_tokenizer(task.start)
        self.policy = self._policy().eval()  # dropout off: the ratio of the first step must be 1
        self.trunk: OneTrunk | None = None
        if config.layout == "one_trunk" and isinstance(self.policy, PeftModel):
            self.trunk = OneTrunk(self.policy)
        self.judge = judge_for(self.trunk)
        if self.trunk is not None:
            share_layers(transformer(self.policy).base_model)
        self.reference = self._reference()
        coefficient = config.kl.initial if task.earlier is None else task.earlier.metrics["kl_coef"]
        self.kl = KLPenalty(config.kl, coefficient)
        self.critic = self._critic() if config.algorithm == "ppo" else None
        self.method = {"ppo": config.ppo, "rloo": config.rloo, "grpo": config.grpo}[config.algorithm]
        self.optimizer = Optimizer(self._groups(), config.optim, config.updates * self._steps_per_update())
        self.source = RolloutSource(
            policy=self.policy,
            sampler=InProcessSampler(
                self.policy,
                eos_ids(self.policy, self.tokenizer),
                value_head=self.critic.value_head if self.critic is not None and self.critic.trunk is None else None,
            ),
            reference=self.reference,
            judge=self.judge,
            prompts=task.prompts,
            decode=self._decode,
            trunk=self.trunk,
            config=RolloutConfig(
                prompts=config.prompts,
                samples=config.samples,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                micro_batch_tokens=config.micro_batch_tokens,
                seed=seed,
            ),
        )
        self.seed = seed
        self.clock = time.perf_counter()
        self.told_of_clipping = False
        self.rewards: list[float] = []  # of every update, for the rule that tells a stalled run
        self.best = BestWeights(context.checkpoints.folder)

    def _decode(self, tokens: Sequence[int]) -> str:
        return decode_response(self.tokenizer, tokens)

    def _policy(self) -> nn.Module:
        lora, earlier = self.config.lora, self.task.earlier
        if lora is None:
            return load_policy(self.task.start)
        if self.config.layout == "separate":
            return add_lora(load_policy(self.task.start), lora)
        policy = add_lora(load_policy(self.task.reference), lora)
        if earlier is not None:
            set_role(policy, read_role(earlier, self.task.reference.identity).tensors)
        return policy

    def _reference(self) -> Reference:
        own = self.config.layout == "one_trunk" or self.task.start.identity == self.task.reference.identity
        if self.config.lora is not None and own:
            return Reference(model=self.policy, mode=lambda: reference_mode(self.policy))
        return Reference(model=frozen(load_policy(self.task.reference)))

    def _critic(self) -> Critic:
        head = ValueHead(hidden_size(self.policy)).to(next(self.policy.parameters()).device)
        if self.config.critic_on_trunk:
            critic = Critic(head, None)
        else:
            trunk = load_policy(self.task.reference)  # in every round, for adapters that are carried on belong to it
            critic = Critic(head, add_lora(trunk, self.config.lora) if self.config.lora else trunk)
            for parameter in output_only_parameters(critic):
                parameter.requires_grad_(False)
        carried = self.task.earlier.path / CRITIC if self.task.earlier else None
        if carried is not None and carried.is_file():
            restore_module(critic, load_tensors(carried))
        return critic.eval()

    def updates(self, start: int) -> Iterator[Metrics]:
        """The metrics of each update from `start` on."""
        config = self.config
        loop = LoopConfig(
            epochs=self.method.epochs,
            minibatches=self.method.minibatches,
            micro_batch_tokens=config.micro_batch_tokens,
            seed=self.seed,
        )
        if self.critic is not None:
            ppo = PPO(self.policy, self.critic, config.ppo, self.kl, config.temperature)
            source = self.source.critic_batches(self.critic, start, config.updates)
            return fit(source, ppo, self.optimizer, loop, start=start, enough=ppo.enough)
        grouped = (
            RLOO(self.policy, config.rloo, self.kl, config.temperature)
            if config.algorithm == "rloo"
            else GRPO(self.policy, config.grpo, self.kl, config.max_new_tokens, config.temperature)
        )
        rollouts = self.source.batches(start, config.updates)
        return fit(rollouts, grouped, self.optimizer, loop, start=start, enough=grouped.enough)

    def _groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup(parameters=trainable(self.policy))]
        if self.critic is not None:
            rate = self.config.ppo.critic_learning_rate
            groups.append(ParameterGroup(parameters=trainable(self.critic), learning_rate=rate))
        return groups

    def _steps_per_update(self) -> int:
        return self.method.epochs * min(self.method.minibatches, self.config.prompts)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"policy": self.policy} | ({"critic": self.critic} if self.critic is not None else {})

    def evaluate(self, step: int, *, show: bool = False) -> dict[str, float]:
        """Held-out figures of the policy as it is, from the same prompts and random numbers every time."""
        judged = self.source.rollout(
            self.task.held_out, derive(self.context.seed, "held out"), samples=1, observe=False
        )
        figures = {**judged.figures(), **signals(judged, self.judge.coverage)}
        # At the first coefficient, so that a coefficient that moves does not change what counts as better.
        figures["objective"] = figures["reward_mean"] - self.config.kl.initial * figures["kl_nats_per_sequence"]
        kept = {k: v for k, v in figures.items() if not k.startswith("seconds")}
        self.context.event("evaluated", step=step, round=self.task.round, score=kept["score_mean"], **kept)
        self.context.run.observe(self.context.name, step, "evaluated", judged)
        if show:
            self.context.event("samples", step=step, round=self.task.round, samples=shown(judged))
        return figures

    def run(self) -> StageResult:
        """Update, record, evaluate, keep the best, stop when it no longer rises."""
        config, context, progress = self.config, self.context, self.context.run.progress
        offset = self.task.step_offset
        state: dict[str, Any] = {"before": None, "last": None, "best": None, "best_update": 0, "worse": 0}
        start = 0
        if checkpoint := context.checkpoints.latest():
            checkpoint.restore(self.modules, self.optimizer)
            start, state = checkpoint.step, checkpoint.state["stage"]
            self.kl.coefficient = checkpoint.state["kl_coef"]
            self.judge.load_state(checkpoint.state["judge"])
            self.rewards = checkpoint.state["rewards"]
            self.told_of_clipping = checkpoint.state["told_of_clipping"]
            context.resumed(offset + start, checkpoint.state)
        else:
            state["before"] = self.evaluate(offset, show=True)
            state["best"] = state["before"]
            self.best.keep(self.policy)
        if config.kl.warning:
            context.run.verdict(context.name, Verdict("watch", "kl_placement", config.kl.warning))
        progress.start(context.name, config.updates, "updates")
        self.clock = time.perf_counter()
        progress.advance(start)
        done = start
        for done, metrics in enumerate(self.updates(start), start + 1):
            figures = self.record(offset + done, metrics)
            progress.advance(1, score=figures["score_mean"], kl=figures["kl_nats_per_sequence"])
            if done % config.evaluate_every == 0 or done == config.updates:
                held_out = self.evaluate(offset + done, show=done == config.updates)
                state = {**state, "last": held_out}
                if held_out["objective"] > state["best"]["objective"]:
                    self.best.keep(self.policy)
                    state = {**state, "best": held_out, "best_update": done, "worse": 0}
                else:
                    state = {**state, "worse": state["worse"] + 1}
                self.clock = time.perf_counter()  # evaluations are no part of an update
                if config.patience is not None and state["worse"] >= config.patience:
                    progress.say(
                        f"{context.name}: held-out reward stopped rising; update {state['best_update']} is kept"
                    )
                    break
            if context.checkpoint_due():
                context.checkpoints.save(
                    done,
                    modules=self.modules,
                    optimizer=self.optimizer,
                    state={
                        "stage": state,
                        "kl_coef": self.kl.coefficient,
                        "judge": self.judge.state(),
                        "rewards": self.rewards,
                        "told_of_clipping": self.told_of_clipping,
                        "seconds": context.seconds,
                    },
                )
        return self.result(state, done)

    def record(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Write down one update, steer the KL coefficient, and say when the KL leaves its bands."""
        judged = self.source.last
        if judged is None:
            raise RuntimeError("an update was reported before any rollout")
        begun = time.perf_counter()
        figures = {**judged.figures(), **signals(judged, self.judge.coverage), **metrics}
        figures |= {"kl_coef": self.kl.coefficient, "seconds_signals": time.perf_counter() - begun}
        clipped = figures["clipped_score_share"] = self.judge.clipped_share
        now = time.perf_counter()
        spent, self.clock = now - self.clock, now
        figures["seconds_update"] = max(0.0, spent - judged.seconds_rollout - judged.seconds_score)
        figures["tokens_per_second"] = float(judged.rollout.response_lengths.sum()) / spent
        if "return_squared" in figures:
            variance = figures.pop("return_squared") - figures.pop("return") ** 2
            figures["explained_variance"] = 1 - figures.pop("value_error") / max(variance, 1e-8)
        self.context.event(
            "step", step=step, of=self.task.step_offset + self.config.updates, round=self.task.round, **figures
        )
        self.context.run.observe(self.context.name, step, "step", judged)
        self.rewards.append(figures["reward_mean"])
        verdict = kl_ladder(
            figures["kl_nats_per_token"],
            figures["kl_nats_per_sequence"],
            reward_flat=is_flat(self.rewards),
            thresholds=self.context.run.thresholds,
        )
        if verdict.level in ("act", "stop"):
            self.context.run.verdict(self.context.name, verdict, step=step)
        if clipped > CLIPPED_WATCH and not self.told_of_clipping:
            self.told_of_clipping = True
            self.context.run.verdict(self.context.name, clipping_verdict(clipped), step=step)
        self.kl.observe(figures["kl_nats_per_sequence"], self.config.prompts * self.config.samples)
        return figures

    def result(self, state: dict[str, Any], updates: int) -> StageResult:
        """The kept policy with its figures before and after."""
        if self.config.keep == "best":
            self.best.put_back(self.policy)
            after = state["best"]
        else:
            after = state["last"]
        before = state["before"]
        self.context.run.progress.finish(
            f"held-out score {before['score_mean']:.3f} → {after['score_mean']:.3f} "
            f"at {after['kl_nats_per_sequence']:.2f} nats per sequence"
        )
        metrics = {
            "score_before": before["score_mean"],
            "score_after": after["score_mean"],
            "score_std_before": before["score_std"],
            **{
                name: after[name]
                for name in (
                    "kl_nats_per_token",
                    "kl_nats_per_sequence",
                    "distinct_2",
                    "unique_share",
                    "response_tokens_mean",
                    "finished_share",
                )
            },
            "distinct_2_before": before["distinct_2"],
            "response_tokens_before": before["response_tokens_mean"],
            "entropy": after["entropy_nats_sampled"],
            "entropy_before": before["entropy_nats_sampled"],
            "updates": updates,
            "kept_update": state["best_update"] if self.config.keep == "best" else updates,
            "kl_coef": self.kl.coefficient,
            "algorithm": self.config.algorithm,
        }
        return StageResult(metrics=metrics, write=self.write)

    def write(self, folder: Path) -> None:
        write_policy(folder, self.policy, self.tokenizer)
        if self.config.lora is not None and self.config.layout == "one_trunk":
            write_role(folder, self.policy, self.config.lora, self.task.reference.identity)
        if self.critic is not None:
            save_module(self.critic, folder / CRITIC)


def clipping_verdict(share: float) -> Verdict:
    """What to say of a rollout whose scores were mostly too large for the clip."""
    return Verdict(
        "watch",
        "clipped_scores",
        f"{share:.0%} of a rollout's scores were cut off by shaping.clip: among those the policy sees no difference.",
        {"clipped_score_share": share},
        "Python functions and foreign reward models bring no mean and spread: set ppo.shaping.normalise to running, or "
        "raise ppo.shaping.clip.",
    )


def shown(judged: Judged) -> list[dict[str, Any]]:
    """A few samples, one a prompt, for people."""
    responses = judged.responses
    per_prompt = judged.rollout.num_responses // max(1, len(judged.rollout))
    return [
        {
            "prompt": responses.prompt_texts[i],
            "response": responses.response_texts[i],
            "score": float(judged.scores.raw[i]),
            "finished": bool(judged.rollout.finished[i]),
        }
        for i in range(0, judged.rollout.num_responses, per_prompt)[:SAMPLES_SHOWN]
    ]


def output_only_parameters(critic: Critic) -> list[nn.Parameter]:
    """Parameters of the critic's trunk that only the language-model head uses: they never get a gradient."""
    if critic.trunk is None:
        return []
    used = {id(p) for p in transformer(critic.trunk).base_model.parameters()}
    return [p for p in critic.trunk.parameters() if id(p) not in used]
