"""The guardian of one RL stage: reads every update, keeps what it may go back to, asks judges, decides."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from keel.core.errors import NotFiniteError
from keel.core.events import Event, plain
from keel.monitor.guardian import (
    CALM,
    LIKELY,
    SURE_ENOUGH,
    Assessment,
    Decision,
    Memory,
    Steering,
    Trial,
    assess,
    because,
    decide,
    mode_of,
    trial,
)
from keel.monitor.history import History, Series
from keel.monitor.reading import RECENT
from keel.monitor.rules import judged
from keel.monitor.settings import GuardianConfig
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import Level, Verdict, plainly
from keel.stages.context import StageContext
from keel.stats.correction import Correction
from keel.train.resume import Checkpoint, Snapshots


class Guardian:
    """Its history follows from the run's events, so a resumed run reads the same and decides the same."""

    def __init__(self, context: StageContext, config: GuardianConfig, thresholds: Thresholds) -> None:
        self.context, self.config, self.thresholds = context, config, thresholds
        self.history = History()
        self.memory = Memory()
        self.levels: dict[str, Level] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.assessment = Assessment(probability=0.0)
        self.found: Correction | None = None
        """The newest correction of the reward that verdicts suggest."""
        self.doubted: int | None = None
        """Step from which the policy has been in doubt without a break."""
        self.snapshots = Snapshots(context.checkpoints.folder, config.snapshots)

    def evaluated(self, step: int, figures: Mapping[str, Any]) -> None:
        """Note an evaluation on the held-out prompts."""
        self.history.evaluations.add(step, plain(dict(figures)))

    def checked(self, rows: Iterable[Mapping[str, Any]], found: Correction | None = None) -> None:
        """Take what judges have said so far, a row for each policy they judged, and what that makes of the score."""
        told = [plain(dict(row)) for row in rows]
        self.found = found
        if found is not None and told and not self.memory.corrected:
            told[-1] |= {"bias_nats": found.gain, "bias_verdicts": found.verdicts, "bias_words": found.words}
        self.history.checks = Series(told)

    def note(self, step: int, figures: Mapping[str, Any]) -> None:
        """Read an update, and say what has changed in the verdicts on the run."""
        self.history.steps.add(step, plain(dict(figures)))
        self._read(step)
        heard = {name: v for name, v in self.verdicts.items() if mode_of(name, self.config) != "silent"}
        likely = assess(heard, self.memory.rollbacks).probability >= LIKELY
        self.memory.likely_updates = self.memory.likely_updates + 1 if likely else 0

    def _read(self, step: int) -> None:
        self.verdicts = judged(self.history, self.thresholds)
        for name, verdict in self.verdicts.items():
            if mode_of(name, self.config) == "silent" and name in self.config.rules:
                continue
            if verdict.level != self.levels.get(name, "ok"):
                self.levels[name] = verdict.level
                self.context.run.verdict(self.context.name, verdict, step=step)
        self.assessment = self._assessed(self.verdicts)
        if self.assessment.probability < CALM:
            self.memory.tightened = False
        if not self.in_doubt:
            self.doubted = None
        elif self.doubted is None:
            self.doubted = step

    def _assessed(self, verdicts: Mapping[str, Verdict]) -> Assessment:
        """What the rules that may act say together."""
        acting = {name: verdict for name, verdict in verdicts.items() if mode_of(name, self.config) == "act"}
        return assess(acting, self.memory.rollbacks)

    def decide(self, step: int) -> Decision | None:
        """What to do after the update of `step`."""
        decision = decide(self.verdicts, self.config, self.memory, step) or self._refitted()
        if self.memory.trial is None or (decision is not None and decision.action in ("roll_back", "stop")):
            return decision
        return self._tried(Trial(**self.memory.trial), step) or decision

    def _refitted(self) -> Decision | None:
        """The correction anew, where there is one and judges have said more since."""
        if not self.memory.corrected or self.found is None or self.found.verdicts <= self.memory.corrected:
            return None
        return Decision(
            action="correct_reward",
            rules=("reward_bias",),
            evidence=(),
            reason=f"{self.found.verdicts} verdicts of judges by now: {self.found.words}.",
            confidence=SURE_ENOUGH,
            relax=self.assessment.probability < CALM,
        )

    @property
    def correction(self) -> Correction | None:
        """What to put in the score's place with the next action: in doubt verdicts count for more than the score."""
        return self.found if self.config.actions.correct_reward else None

    def _tried(self, trial: Trial, step: int) -> Decision | None:
        """The way back, where tightened settings had their time, what was wrong has not gone back, and judges like the
        policy less than they should. Without judges nobody can tell a fast learner from a cheat: no way back then.
        """
        if step < trial.until:
            return None
        self.memory.trial = None
        now = float(self.history.steps.known(trial.figure)[-RECENT:].mean())
        told = self.history.checks.since(trial.began - 1).known("win_rate")
        liked = float(told.mean()) if told.size else 1.0
        if trial.helped(now) or liked >= self.thresholds.human_least_gain:
            return None
        spent = self.memory.rollbacks >= self.config.actions.max_rollbacks
        return Decision(
            action="stop" if spent else "roll_back",
            rules=tuple(trial.rules),
            evidence=tuple(self.verdicts[rule] for rule in trial.rules),
            reason=f"Dearer settings have not helped: {trial.figure} is {plainly(now)}; it was {plainly(trial.before)} "
            f"before the trouble and {plainly(trial.at)} when the settings were tightened, and judges like the policy "
            f"better than SFT in {liked:.0%} of the pairs since.",
            confidence=SURE_ENOUGH,
            since=trial.since,
        )

    def reconsider(self, step: int) -> Decision | None:
        """The same update once more, now that judges have been asked: nothing but what their answers lead to."""
        self._read(step)
        decision = self.decide(step)
        return None if decision is None or decision.action == "ask_humans" else decision

    def broken(self, step: int, error: NotFiniteError, *, last: bool) -> Decision:
        """What to do about an update that ended in no number; the error itself, where nothing may or can be done.

        Nor where it was the stage's `last` and no update has ended well: that would pass the start off as a result.
        """
        spent = self.memory.rollbacks >= self.config.actions.max_rollbacks
        if mode_of("not_finite", self.config) != "act" or spent or (last and not self.history.steps.rows):
            raise error
        verdict = Verdict(
            "stop",
            "not_finite",
            f"The loss or its gradient became no finite number in update {step}.",
            {"since": step},
            "Lower optim.learning_rate.",
            "Numbers overflowed.",
            0.99,
        )
        self.context.run.verdict(self.context.name, verdict, step=step)
        return Decision(
            action="roll_back",
            rules=("not_finite",),
            evidence=(verdict,),
            reason=verdict.message,
            confidence=0.99,
            since=step,
        )

    def last_word(self) -> Decision:
        """Why the newest policy of a stage that is over is not the one to keep."""
        found = self.assessment
        return Decision(
            action="stop",
            rules=found.names,
            evidence=found.signs,
            reason=f"The stage ends in doubt ({found.probability:.0%}). {because(found)}",
            confidence=found.probability,
        )

    def acted(
        self,
        step: int,
        decision: Decision,
        before: Steering,
        after: Steering,
        to_step: int | None = None,
    ) -> None:
        """Write down what was done, or would have been, with its evidence and what changed."""
        was = before.told()
        changed = {name: value for name, value in after.told().items() if value != was[name]}
        self.context.event(
            "action",
            step=step,
            **decision.record(),
            **({} if to_step is None else {"to_step": to_step}),
            before={name: was[name] for name in changed},
            after=changed,
            **({} if after.correction is None else {"correction": after.correction.record()}),
            remedy=next((v.remedy for v in decision.evidence if v.remedy), ""),
        )
        until = step + self.config.quiet_updates
        if decision.taken and after.correction is not None:
            self.memory.corrected = after.correction.verdicts
            rows = self.history.checks.rows  # the bias is dealt with: it is no sign any longer
            self.history.checks = Series([{k: v for k, v in row.items() if k != "bias_nats"} for row in rows])
        if not decision.taken:
            self.memory.advised_until = until
        elif decision.action == "correct_reward":
            self.memory.raised_by = max(1.0, self.memory.raised_by * risen(before, after))
        elif decision.action == "ask_humans":
            self.memory.asked_until = until
        elif decision.action == "tighten":  # no quiet: what this does not stop must be undone at once
            self.memory.tightened = True
            tried = trial(decision, step, until)
            self.memory.trial = None if tried is None else asdict(tried)
            self.memory.raised_by *= risen(before, after)
        else:
            self.memory.quiet_until = until
        self.context.run.progress.say(card(self.context.name, step, decision, was, changed, to_step))

    def say(self, verdict: Verdict, step: int) -> None:
        """Write down a verdict on the judges themselves, once."""
        if self.levels.get(verdict.rule) != verdict.level:
            self.levels[verdict.rule] = verdict.level
            self.context.run.verdict(self.context.name, verdict, step=step)

    @property
    def in_doubt(self) -> bool:
        """Whether the newest policy is one that should not be kept."""
        return self.assessment.doubtful

    def snapshot_due(self, step: int) -> bool:
        """Whether this moment should be kept to go back to: from time to time, while nothing looks wrong."""
        last = self.snapshots.steps[-1] if self.snapshots.steps else None
        if last is None:
            return self.config.mode == "act"
        return self.config.mode == "act" and step - last >= self.config.snapshot_every and not self.in_doubt

    def healthy_before(self, step: int, decision: Decision) -> Checkpoint:
        """The newest snapshot from before the trouble; the oldest there is, if it began earlier.

        The figures of step s are of the policy after step s - 1, which is the first that is in trouble.
        """
        since = min(s for s in (decision.since, self.doubted, step) if s is not None)
        steps = self.snapshots.steps
        before = [kept for kept in steps if kept <= since - 2]
        return self.snapshots.load(before[-1] if before else steps[0])

    def went_back(self, step: int, to_step: int) -> None:
        """Forget what was after `to_step`; nothing new is decided until there are figures of the new course."""
        self.memory.rollbacks += 1
        self.memory.likely_updates, self.memory.raised_by = 0, 1.0
        self.memory.tightened, self.memory.trial = False, None
        self.memory.abandoned.append([to_step, step])
        self.history = self.history.until(to_step)
        self.snapshots.forget_after(to_step)
        self.levels = {}
        self.assessment = Assessment(probability=0.0)
        self.doubted = None

    def state(self) -> dict[str, Any]:
        """Plain JSON values, for checkpoints."""
        return {
            "memory": asdict(self.memory),
            "levels": dict(self.levels),
            "doubted": self.doubted,
            "snapshots": list(self.snapshots.steps),
            "checks": list(self.history.checks.rows),
            "found": None if self.found is None else self.found.record(),
        }

    def load_state(self, state: Mapping[str, Any], events: Iterable[Event]) -> None:
        """Take back what `state` gave; figures come from the events of this stage up to its checkpoint."""
        self.memory = Memory(**state["memory"])
        self.levels = dict(state["levels"])
        self.doubted = state["doubted"]
        self.snapshots.resume(state["snapshots"])
        self.history = told(events)
        self.history.checks = Series(list(state["checks"]))
        found = state.get("found")
        self.found = None if found is None else Correction.of(found)
        if self.history.steps.step > max((until for _, until in self.memory.abandoned), default=0):
            self.assessment = self._assessed(judged(self.history, self.thresholds))


def risen(before: Steering, after: Steering) -> float:
    """Factor from one KL coefficient to the other."""
    return after.kl_coef / before.kl_coef if before.kl_coef else 1.0


def told(events: Iterable[Event]) -> History:
    """What the events of one stage tell; steps that were rolled back are left out."""
    history = History()
    for event in events:
        step = event.get("step")
        if event["event"] == "step":
            history.steps.add(int(step or 0), event)
        elif event["event"] == "evaluated":
            history.evaluations.add(int(step or 0), event)
        elif event["event"] == "action" and event.get("taken") and event.get("to_step") is not None:
            history = history.until(int(event["to_step"]))
    return history


def card(
    stage: str,
    step: int,
    decision: Decision,
    before: Mapping[str, Any],
    changed: Mapping[str, Any],
    to_step: int | None,
) -> str:
    """An action in plain words: what, why, and what is different from now on."""
    done = {
        "roll_back": f"went back to step {to_step}",
        "stop": f"stopped, keeping the policy of step {to_step}",
        "tighten": "tightened the settings",
        "lower_kl": "lowered the KL coefficient",
        "ask_humans": "asked the judges",
        "correct_reward": "corrected the reward",
    }[decision.action]
    if not decision.taken:
        done = f"advises ({decision.action.replace('_', ' ')}), and the recipe lets it do no more"
    settings = "; ".join(f"{name} {plainly(before[name])} → {plainly(value)}" for name, value in changed.items())
    text = f"{stage}, step {step}: the guardian {done} ({decision.confidence:.0%} sure). {decision.reason}"
    return f"{text} {settings}".strip()
