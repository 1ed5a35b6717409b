"""A policy, prompts and a judge in; a policy that the judge likes better out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from keel.algorithms.grpo import GRPO
from keel.algorithms.ppo import PPO, KLPenalty
from keel.algorithms.rloo import RLOO
from keel.algorithms.settings import GRPOConfig, PPOConfig, RLOOConfig
from keel.core.errors import NotFiniteError
from keel.core.seed import derive
from keel.data.chat import decode_response
from keel.monitor.guardian import Decision, Steering, corrected
from keel.monitor.settings import CheckConfig, GuardianConfig
from keel.monitor.verdict import Verdict
from keel.stages.cast import CRITIC, AlignTask, Cast
from keel.stages.checks import PairCheck
from keel.stages.context import StageContext, StageResult
from keel.stages.guardian import Guardian
from keel.stages.labels import Labeller
from keel.stages.live_check import LiveCheck
from keel.stages.policy import write_policy
from keel.stages.roles import write_role
from keel.stages.sections.rl import RLConfig
from keel.stages.telling import CLIPPED_WATCH, SAMPLES_SHOWN, clipping_verdict, shown
from keel.store.queue import FILE as QUEUE
from keel.store.queue import Queue
from keel.train.judge import Judge
from keel.train.loop import LoopConfig, fit
from keel.train.one_trunk import OneTrunk
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import BestWeights, Checkpoint, save_module
from keel.train.rollout import RolloutConfig, RolloutSource
from keel.train.signals import signals
from keel.train.step import Metrics


class Aligner:
    """One RL stage: networks, source, algorithm, evaluation, and how they are saved."""

    def __init__(
        self,
        context: StageContext,
        config: RLConfig,
        task: AlignTask,
        judge_for: Callable[[OneTrunk | None], Judge],
        guardian: GuardianConfig,
        live_judge: Labeller | None,
    ) -> None:
        """`judge_for` makes the judge; a reward model may take its place on the trunk that it is given.

        `live_judge` compares the running policy's answers with SFT's where `guardian` has checks.
        """
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
            ),
        )
        self.seed = seed
        self.clock = time.perf_counter()
        self.told_of_clipping = False
        self.best = BestWeights(context.checkpoints.folder)
        self.guardian = Guardian(context, guardian, context.run.thresholds)
        self.live_check = self._live_check(guardian.checks, live_judge)

    def _decode(self, tokens: Sequence[int]) -> str:
        return decode_response(self.cast.tokenizer, tokens)

    def _live_check(self, config: CheckConfig, judge: Labeller | None) -> LiveCheck | None:
        if not config.every or self.guardian.config.mode == "silent":
            return None
        pairs = PairCheck(
            queue=Queue(self.context.run.directory / QUEUE),
            run=self.context.checkpoints.folder.name,
            stage=self.context.name,
            seed=self.context.seed,
            judge=judge,
        )
        return LiveCheck(self.context, config, pairs, self.source, self.task.held_out)

    def updates(self, start: int) -> Iterator[Metrics]:
        """The metrics of each update from `start` on."""
        config = self.config
        loop = LoopConfig(
            epochs=self.method.epochs,
            minibatches=self.method.minibatches,
            micro_batch_tokens=config.micro_batch_tokens,
            seed=self.seed,
        )
        algorithm = self.algorithm
        if isinstance(algorithm, PPO):
            source = self.source.critic_batches(algorithm.critic, start, config.updates)
            return fit(source, algorithm, self.optimizer, loop, start=start, enough=algorithm.enough)
        rollouts = self.source.batches(start, config.updates)
        return fit(rollouts, algorithm, self.optimizer, loop, start=start, enough=algorithm.enough)

    def attempts(self, start: int) -> Iterator[Metrics | NotFiniteError]:
        """Each update's metrics from `start` on, or what broke it off; the next one then begins with fresh samples."""
        done = start
        while done < self.config.updates:
            try:
                for metrics in self.updates(done):
                    done += 1
                    yield metrics
            except NotFiniteError as error:
                done += 1
                yield error

    def _algorithm(self) -> PPO | RLOO | GRPO:
        config = self.config
        if self.critic is not None:
            return PPO(self.policy, self.critic, config.ppo, self.kl, config.temperature)
        if config.algorithm == "rloo":
            return RLOO(self.policy, config.rloo, self.kl, config.temperature)
        return GRPO(self.policy, config.grpo, self.kl, config.max_new_tokens, config.temperature)

    @property
    def method(self) -> PPOConfig | RLOOConfig | GRPOConfig:
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

    def run(self) -> StageResult:
        """Update, record, evaluate, keep the best, let the guardian act, stop when it no longer rises."""
        config, context, progress = self.config, self.context, self.context.run.progress
        offset = self.task.step_offset
        state: dict[str, Any] = {
            "before": None,
            "last": None,
            "best": None,
            "best_update": 0,
            "worse": 0,
        }
        start = 0
        if checkpoint := context.checkpoints.latest():
            start, state = checkpoint.step, self.restore(checkpoint)
            context.resumed(offset + start, checkpoint.state)
            self.guardian.load_state(checkpoint.state["guardian"], context.told())
        else:
            state["before"] = self.evaluate(offset, show=True)
            state["best"] = state["last"] = state["before"]
            self.guardian.evaluated(offset, state["before"])
            self.best.keep(self.policy)
        if config.kl.warning:
            context.run.verdict(context.name, Verdict("watch", "kl_placement", config.kl.warning))
        progress.start(context.name, config.updates, "updates")
        self.clock = time.perf_counter()
        progress.advance(start)
        if self.guardian.snapshot_due(offset):
            self.snapshot(offset, state)
        done = start
        for done, metrics in enumerate(self.attempts(start), start + 1):
            step = offset + done
            if isinstance(metrics, NotFiniteError):
                progress.advance(1)
                decision: Decision | None = self.guardian.broken(step, metrics, last=done == config.updates)
            else:
                figures = self.record(step, metrics)
                progress.advance(1, score=figures["score_mean"], kl=figures["kl_nats_per_sequence"])
                if done % config.evaluate_every == 0 or done == config.updates:
                    state = self.compare(step, state, done)
                decision = self.watched(step, figures)
            if decision is not None and decision.taken and decision.action in ("roll_back", "stop"):
                state = self.roll_back(step, decision)
                if decision.action == "stop":
                    break
            elif config.patience is not None and state["worse"] >= config.patience:
                progress.say(f"{context.name}: held-out reward stopped rising; update {state['best_update']} is kept")
                break
            elif self.guardian.snapshot_due(step):
                self.snapshot(step, state)
            self.clock = time.perf_counter()  # evaluations, checks and snapshots are no part of an update
            if done == config.updates and self.guardian.in_doubt:
                break  # what follows belongs to this step: were it resumed from here, it would be said twice
            if context.checkpoint_due():
                context.checkpoints.save(
                    done, modules=self.cast.modules, optimizer=self.optimizer, state=self.state(state)
                )
                self.guardian.snapshots.checkpointed()
        if self.guardian.in_doubt:  # the last policy that was not in doubt is the one to keep
            state = self.roll_back(offset + done, self.guardian.last_word())
        return self.result(state, done)

    def compare(self, step: int, state: dict[str, Any], done: int) -> dict[str, Any]:
        """Evaluate on the held-out prompts, and keep the weights where they are the best so far."""
        held_out = self.evaluate(step, show=done == self.config.updates)
        self.guardian.evaluated(step, held_out)
        if held_out["objective"] > state["best"]["objective"]:
            self.best.keep(self.policy)
            return {**state, "last": held_out, "best": held_out, "best_update": done, "worse": 0}
        return {**state, "last": held_out, "worse": state["worse"] + 1}

    def watched(self, step: int, figures: dict[str, float]) -> Decision | None:
        """Ask judges when it is time, let the guardian read the update, and do what needs no way back."""
        guardian, check = self.guardian, self.live_check
        if check is not None and check.due(step) and check.affordable(step):
            self.ask(check, step)
        guardian.note(step, figures)
        decision = guardian.decide(step)
        if decision is None:
            return None
        if decision.action == "ask_humans":
            if check is None or check.due(step) or not check.affordable(step):
                return None
            if decision.taken:
                self.ask(check, step)
                decision = guardian.reconsider(step) or decision
        if decision.action in ("roll_back", "stop") and decision.taken:
            return decision
        before = self.steering()
        after = self.corrected(before, decision)
        if decision.taken:
            self.steer(after)
        guardian.acted(step, decision, asdict(before), asdict(after))
        return decision

    def corrected(self, before: Steering, decision: Decision) -> Steering:
        """The settings to go on with after a decision."""
        kl, actions, memory = self.config.kl, self.guardian.config.actions, self.guardian.memory
        high = max(kl.low, min(kl.high, max(actions.kl_most * kl.initial, actions.kl_least)))
        return corrected(before, decision, actions, kl.low, high, raised_by=memory.raised_by)

    def ask(self, check: LiveCheck, step: int) -> None:
        """Put pairs before the judges and take in what they have said so far."""
        failed = check.ask(step)
        evidence = check.read(step)
        self.guardian.checked(check.rows(evidence, self.guardian.memory.abandoned))
        for verdict in (failed, evidence.verdict):
            if verdict is not None:
                self.guardian.say(verdict, step)

    def roll_back(self, step: int, decision: Decision) -> dict[str, Any]:
        """Return to the last healthy policy, and go on from there with what the decision changes."""
        if "not_finite" not in decision.rules:  # weights that broke an update may say nothing at all
            self.show_alarm(step)
        before = self.steering()
        snapshot = self.guardian.healthy_before(step, decision)
        state = self.restore(snapshot)
        after = self.corrected(before, decision)
        self.steer(after)
        self.guardian.acted(step, decision, asdict(before), asdict(after), to_step=snapshot.step)
        self.guardian.went_back(step, snapshot.step)
        # Measured anew: what a changed setting takes off the reward must not make all that follows look worse.
        held_out = self.evaluate(step, show=True)
        self.guardian.evaluated(step, held_out)
        self.best.keep(self.policy)
        update = snapshot.step - self.task.step_offset
        return {**state, "last": held_out, "best": held_out, "best_update": update, "worse": 0}

    def steering(self) -> Steering:
        """The settings that the guardian may change, as they are now."""
        shaping, method = self.judge.shaping, self.method
        return Steering(
            kl_coef=self.kl.coefficient,
            length_penalty=shaping.length_penalty,
            missing_eos_ceiling=shaping.missing_eos_ceiling,
            entropy_coef=method.entropy_coef,
            learning_rate_factor=self.optimizer.factor,
        )

    def steer(self, settings: Steering) -> None:
        """Go on with these settings."""
        self.kl.coefficient = settings.kl_coef
        self.optimizer.factor = settings.learning_rate_factor
        self.judge.shaping = self.judge.shaping.model_copy(
            update={
                "length_penalty": settings.length_penalty,
                "missing_eos_ceiling": settings.missing_eos_ceiling,
            }
        )
        algorithm: Any = self.algorithm  # each has settings of its own kind, all with this field
        algorithm.config = algorithm.config.model_copy(update={"entropy_coef": settings.entropy_coef})

    def snapshot(self, step: int, state: dict[str, Any]) -> None:
        """Keep this moment as one to go back to."""
        self.guardian.snapshots.save(step, modules=self.cast.modules, optimizer=self.optimizer, state=self.state(state))

    def state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Everything besides weights and optimiser that the stage needs to go on to the same bits."""
        return {
            "stage": state,
            "steering": asdict(self.steering()),
            "judge": self.judge.state(),
            "told_of_clipping": self.told_of_clipping,
            "guardian": self.guardian.state(),
            "seconds": self.context.seconds,
        }

    def restore(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Take back weights, optimiser and all but the guardian's own memory, which outlives a rollback."""
        checkpoint.restore(self.cast.modules, self.optimizer)
        saved = checkpoint.state
        self.steer(Steering(**saved["steering"]))
        self.judge.load_state(saved["judge"])
        self.told_of_clipping = saved["told_of_clipping"]
        return saved["stage"]

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
        write_policy(folder, self.policy, self.cast.tokenizer)
        if self.config.lora is not None and self.config.layout == "one_trunk":
            write_role(folder, self.policy, self.config.lora, self.task.reference.identity)
        if self.critic is not None:
            save_module(self.critic, folder / CRITIC)
