"""What one RL stage trains, and how: networks, source, algorithm, figures; all that a checkpoint holds."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from keel.algorithms.grpo import GRPO
from keel.algorithms.online_dpo import OnlineDPO
from keel.algorithms.ppo import PPO, KLPenalty
from keel.algorithms.reinforce_pp import ReinforcePP
from keel.algorithms.rloo import RLOO
from keel.algorithms.settings import CriticFreeConfig, PPOConfig
from keel.core.seed import derive
from keel.data.chat import decode_response
from keel.monitor.guardian import Steering
from keel.monitor.verdict import Verdict
from keel.stages.cast import CRITIC, AlignTask, Cast
from keel.stages.context import StageContext
from keel.stages.policy import write_policy
from keel.stages.roles import write_role
from keel.stages.sections.rl import RLConfig
from keel.stages.telling import CLIPPED_WATCH, SAMPLES_SHOWN, clipping_verdict, shown, silence_verdict
from keel.train.judge import Judge
from keel.train.loop import LoopConfig, fit, moved_past
from keel.train.one_trunk import OneTrunk
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resample import compared_batches
from keel.train.resume import Checkpoint, save_module
from keel.train.rollout import RolloutConfig, RolloutSource
from keel.train.signals import signals
from keel.train.step import Metrics


class Learner:
    """The policy of one RL stage and what teaches it; when to evaluate, stop or go back is not decided here."""

    def __init__(
        self,
        context: StageContext,
        config: RLConfig,
        task: AlignTask,
        judge_for: Callable[[OneTrunk | None], Judge],
    ) -> None:
        """`judge_for` makes the judge; a reward model may take its place on the trunk that it is given."""
        self.context, self.config, self.task = context, config, task
        seed = derive(context.seed, "ppo", task.round)
        torch.manual_seed(seed)
        cast = self.cast = Cast(config, task, judge_for)
        self.policy, self.critic, self.judge = cast.policy, cast.critic, cast.judge
        coefficient = config.kl.initial if task.earlier is None else task.earlier.metrics["kl_coef"]
        self.kl = KLPenalty(config.kl, coefficient)
        self.algorithm = self._algorithm()
        self.optimizer = Optimizer(self._groups(), config.optim, config.updates * self._steps_per_update())
        self.source = RolloutSource(
            policy=self.policy,
            sampler=cast.sampler(),
            reference=cast.reference,
            judge=self.judge,
            prompts=task.prompts,
            decode=self._decode,
            trunk=cast.trunk,
            reference_sampler=cast.reference_sampler(),
            config=RolloutConfig(
                prompts=config.prompts,
                samples=config.samples,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                micro_batch_tokens=config.micro_batch_tokens,
                seed=seed,
                resample_tries=config.resample_tries,
            ),
        )
        self.seed = seed
        self.told: set[str] = set()
        """Rules that have had their word in this stage."""
        self.start_clock()

    def _decode(self, tokens: Sequence[int]) -> str:
        return decode_response(self.cast.tokenizer, tokens)

    def updates(self, start: int) -> Iterator[Metrics]:
        """The metrics of each update from `start` on."""
        config = self.config
        loop = LoopConfig(
            epochs=self.method.epochs,
            minibatches=self.method.minibatches,
            micro_batch_tokens=config.micro_batch_tokens,
            seed=self.seed,
        )
        algorithm: Any = self.algorithm  # each takes and prepares batches of its own kind
        batches: Any = partial(compared_batches, self.source) if config.compares_samples else self.source.batches
        if self.critic is not None:
            batches = partial(self.source.critic_batches, self.critic)
        rollouts = batches(start, config.updates)
        enough = moved_past(self.method.stop_at_kl)
        return fit(rollouts, algorithm, self.optimizer, loop, start=start, enough=enough)

    def _algorithm(self) -> PPO | RLOO | GRPO | ReinforcePP | OnlineDPO:
        config = self.config
        if self.critic is not None:
            return PPO(self.policy, self.critic, config.ppo, self.kl, config.temperature)
        if config.algorithm == "rloo":
            return RLOO(self.policy, config.rloo, self.kl, config.temperature)
        if config.algorithm == "reinforce_pp":
            return ReinforcePP(self.policy, config.reinforce_pp, self.kl, config.temperature)
        if config.algorithm == "online_dpo":
            return OnlineDPO(self.policy, config.online_dpo, self.kl, config.temperature)
        return GRPO(self.policy, config.grpo, self.kl, config.max_new_tokens, config.temperature)

    @property
    def method(self) -> PPOConfig | CriticFreeConfig:
        """The algorithm's settings, as they are now."""
        return self.algorithm.config

    def _groups(self) -> list[ParameterGroup]:
        groups = [ParameterGroup(parameters=trainable(self.policy))]
        if self.critic is not None:
            rate = self.config.ppo.critic_learning_rate
            groups.append(ParameterGroup(parameters=trainable(self.critic), learning_rate=rate))
        return groups

    def _steps_per_update(self) -> int:
        return self.method.epochs * min(self.method.minibatches, self.config.prompts)

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

    def show_alarm(self, step: int) -> None:
        """What the policy that raised an alarm says on the first held-out prompts, for people to see beside the policy
        that is gone back to.
        """
        few = self.task.held_out[:SAMPLES_SHOWN]
        judged = self.source.rollout(few, derive(self.context.seed, "held out"), samples=1, observe=False)
        self.context.event("samples", step=step, round=self.task.round, moment="alarm", samples=shown(judged))

    def steering(self) -> Steering:
        """The settings that the guardian may change, as they are now."""
        shaping, method = self.judge.shaping, self.method
        return Steering(
            kl_coef=self.kl.coefficient,
            length_penalty=shaping.length_penalty,
            missing_eos_ceiling=shaping.missing_eos_ceiling,
            entropy_coef=method.entropy_coef,
            learning_rate_factor=self.optimizer.factor,
            correction=self.judge.correction,
        )

    def steer(self, settings: Steering) -> None:
        """Go on with these settings."""
        self.kl.coefficient = settings.kl_coef
        self.optimizer.factor = settings.learning_rate_factor
        self.judge.correction = settings.correction
        self.judge.shaping = self.judge.shaping.model_copy(
            update={
                "length_penalty": settings.length_penalty,
                "missing_eos_ceiling": settings.missing_eos_ceiling,
            }
        )
        algorithm: Any = self.algorithm  # each has settings of its own kind, all with this field
        algorithm.config = algorithm.config.model_copy(update={"entropy_coef": settings.entropy_coef})

    def start_clock(self) -> None:
        """An update begins: what was done since the last one is no part of it."""
        self.clock = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """All that is needed to go on to the same bits, besides weights, optimiser and what the stage remembers."""
        return {
            "steering": self.steering().record(),
            "judge": self.judge.state(),
            "told": sorted(self.told),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take back weights, optimiser and what `state` gave."""
        checkpoint.restore(self.cast.modules, self.optimizer)
        saved = checkpoint.state
        self.steer(Steering.of(saved["steering"]))
        self.judge.load_state(saved["judge"])
        self.told = set(saved["told"])

    def record(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Write down one update and steer the KL coefficient."""
        judged = self.source.last
        if judged is None:
            raise RuntimeError("an update was reported before any rollout")
        begun = time.perf_counter()
        figures = {**judged.figures(), **signals(judged, self.judge.coverage), **metrics}
        figures |= {
            "kl_coef": self.kl.coefficient,
            "prompt_epochs": (step - self.task.step_offset) * self.config.prompts / len(self.task.prompts),
            "seconds_signals": time.perf_counter() - begun,
        }
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
        if clipped > CLIPPED_WATCH:
            self.tell_once(clipping_verdict(clipped), step)
        if self.config.compares_samples:
            self.tell_once(silence_verdict(figures, self.config.prompts, self.config.resample_tries), step)
        self.kl.observe(figures["kl_nats_per_sequence"], self.config.prompts * self.config.samples)
        return figures

    def tell_once(self, verdict: Verdict | None, step: int) -> None:
        """Write down a verdict if its rule has not had its word in this stage."""
        if verdict is not None and verdict.rule not in self.told:
            self.told.add(verdict.rule)
            self.context.run.verdict(self.context.name, verdict, step=step)

    def write(self, folder: Path) -> None:
        write_policy(folder, self.policy, self.cast.tokenizer)
        if self.config.lora is not None and self.config.layout == "one_trunk":
            write_role(folder, self.policy, self.config.lora, self.task.reference.identity)
        if self.critic is not None:
            save_module(self.critic, folder / CRITIC)
