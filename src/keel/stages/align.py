"""A policy, prompts and a judge in; a policy that the judge likes better out."""

from collections.abc import Callable, Iterator
from typing import Any

from keel.core.errors import NotFiniteError
from keel.monitor.guardian import Decision, Steering, corrected
from keel.monitor.settings import CheckConfig, GuardianConfig
from keel.monitor.verdict import Verdict
from keel.stages.cast import AlignTask
from keel.stages.checks import PairCheck
from keel.stages.context import StageContext, StageResult
from keel.stages.guardian import Guardian
from keel.stages.labels import Labeller
from keel.stages.learner import Learner
from keel.stages.live_check import LiveCheck
from keel.stages.sections.rl import RLConfig
from keel.store.queue import FILE as QUEUE
from keel.store.queue import Queue
from keel.train.judge import Judge
from keel.train.one_trunk import OneTrunk
from keel.train.resume import BestWeights, Checkpoint
from keel.train.step import Metrics


class Aligner:
    """The course of one RL stage: update, evaluate, keep the best, let the guardian act, stop."""

    def __init__(
        self,
        context: StageContext,
        config: RLConfig,
        task: AlignTask,
        judge_for: Callable[[OneTrunk | None], Judge],
        guardian: GuardianConfig,
        live_judge: Labeller | None,
    ) -> None:
        """`judge_for` is what a Learner asks for.

        `live_judge` compares the running policy's answers with SFT's where `guardian` has checks.
        """
        self.context, self.config, self.task = context, config, task
        self.learner = Learner(context, config, task, judge_for)
        self.best = BestWeights(context.checkpoints.folder)
        self.guardian = Guardian(context, guardian, context.run.thresholds)
        self.live_check = self._live_check(guardian.checks, live_judge)

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
        return LiveCheck(self.context, config, pairs, self.learner.source, self.task.held_out)

    def attempts(self, start: int) -> Iterator[Metrics | NotFiniteError]:
        """Each update's metrics from `start` on, or what broke it off; the next one then begins with fresh samples."""
        done = start
        while done < self.config.updates:
            try:
                for metrics in self.learner.updates(done):
                    done += 1
                    yield metrics
            except NotFiniteError as error:
                done += 1
                yield error

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
            if self.live_check is not None:
                self.live_check.described = dict(checkpoint.state.get("described", {}))
        else:
            state["before"] = self.learner.evaluate(offset, show=True)
            state["best"] = state["last"] = state["before"]
            self.guardian.evaluated(offset, state["before"])
            self.best.keep(self.learner.policy)
        if config.kl.warning:
            context.run.verdict(context.name, Verdict("watch", "kl_placement", config.kl.warning))
        progress.start(context.name, config.updates, "updates")
        self.learner.start_clock()
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
                figures = self.learner.record(step, metrics)
                progress.advance(1, score=figures["score_mean"], kl=figures["kl_nats_per_sequence"])
                if done % config.evaluate_every == 0 or done == config.updates:
                    state = self.compare(step, state, done)
                decision = self.watched(step, figures)
                if decision is not None and decision.taken and decision.action == "correct_reward":
                    state = self.measured_anew(step, state, done)
            if decision is not None and decision.taken and decision.action in ("roll_back", "stop"):
                state = self.roll_back(step, decision)
                if decision.action == "stop":
                    break
            elif config.patience is not None and state["worse"] >= config.patience:
                progress.say(f"{context.name}: held-out reward stopped rising; update {state['best_update']} is kept")
                break
            elif self.guardian.snapshot_due(step):
                self.snapshot(step, state)
            self.learner.start_clock()  # evaluations, checks and snapshots are no part of an update
            if done == config.updates and self.guardian.in_doubt:
                break  # what follows belongs to this step: were it resumed from here, it would be said twice
            if context.checkpoint_due():
                context.checkpoints.save(done, **self.everything(state))
                self.guardian.snapshots.checkpointed()
        if self.guardian.in_doubt:  # the last policy that was not in doubt is the one to keep
            state = self.roll_back(offset + done, self.guardian.last_word())
        return self.result(state, done)

    def compare(self, step: int, state: dict[str, Any], done: int) -> dict[str, Any]:
        """Evaluate on the held-out prompts, and keep the weights where they are the best so far."""
        held_out = self.learner.evaluate(step, show=done == self.config.updates)
        self.guardian.evaluated(step, held_out)
        if held_out["objective"] > state["best"]["objective"]:
            self.best.keep(self.learner.policy)
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
        before = self.learner.steering()
        after = self.corrected(before, decision)
        if decision.taken:
            self.learner.steer(after)
        guardian.acted(step, decision, before, after)
        return decision

    def corrected(self, before: Steering, decision: Decision) -> Steering:
        """The settings to go on with after a decision."""
        kl, actions, memory = self.config.kl, self.guardian.config.actions, self.guardian.memory
        high = max(kl.low, min(kl.high, max(actions.kl_most * kl.initial, actions.kl_least)))
        return corrected(
            before,
            decision,
            actions,
            kl.low,
            high,
            raised_by=memory.raised_by,
            correction=self.guardian.correction,
            initial=kl.initial,
        )

    def ask(self, check: LiveCheck, step: int) -> None:
        """Put pairs before the judges and take in what they have said so far."""
        failed = check.ask(step)
        evidence = check.read(step)
        rows = check.rows(evidence, self.guardian.memory.abandoned)
        self.guardian.checked(rows, check.correction(evidence))
        for verdict in (failed, evidence.verdict):
            if verdict is not None:
                self.guardian.say(verdict, step)

    def roll_back(self, step: int, decision: Decision) -> dict[str, Any]:
        """Return to the last healthy policy, and go on from there with what the decision changes."""
        if "not_finite" not in decision.rules:  # weights that broke an update may say nothing at all
            self.learner.show_alarm(step)
        before = self.learner.steering()
        snapshot = self.guardian.healthy_before(step, decision)
        state = self.restore(snapshot)
        after = self.corrected(before, decision)
        self.learner.steer(after)
        self.guardian.acted(step, decision, before, after, to_step=snapshot.step)
        self.guardian.went_back(step, snapshot.step)
        return self.measured_anew(step, state, snapshot.step - self.task.step_offset, show=True)

    def measured_anew(self, step: int, state: dict[str, Any], update: int, *, show: bool = False) -> dict[str, Any]:
        """Evaluate the policy of `update` as the one to beat: what a changed setting takes off the reward must not make
        all that follows look worse.
        """
        held_out = self.learner.evaluate(step, show=show)
        self.guardian.evaluated(step, held_out)
        self.best.keep(self.learner.policy)
        return {**state, "last": held_out, "best": held_out, "best_update": update, "worse": 0}

    def snapshot(self, step: int, state: dict[str, Any]) -> None:
        """Keep this moment as one to go back to."""
        self.guardian.snapshots.save(step, **self.everything(state))

    def everything(self, state: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "modules": self.learner.cast.modules,
            "optimizer": self.learner.optimizer,
            "state": {
                "stage": state,
                **self.learner.state(),
                "guardian": self.guardian.state(),
                "described": {} if self.live_check is None else self.live_check.described,
                "seconds": self.context.seconds,
            },
        }

    def restore(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The stage's state of then; all goes back but the guardian's own memory, which outlives a rollback."""
        self.learner.restore(checkpoint)
        return checkpoint.state["stage"]

    def result(self, state: dict[str, Any], updates: int) -> StageResult:
        """The kept policy with its figures before and after."""
        if self.config.keep == "best":
            self.best.put_back(self.learner.policy)
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
            "kl_coef": self.learner.kl.coefficient,
            "algorithm": self.config.algorithm,
        }
        return StageResult(metrics=metrics, write=self.learner.write)
