"""What a report knows of a run: plain records, made by keel.report.read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from keel.report.curves import Curves
from keel.report.values import number

State = Literal["finished", "running", "stopped"]

STAGE_TITLES = {
    "data": "reading data",
    "sft": "supervised fine-tuning",
    "judge": "holding the AI judge against people",
    "revisions": "critique and revision",
    "constitution": "learning the revisions",
    "labels": "labelling",
    "reward": "reward model",
    "best": "best-of-n check",
    "reference": "asking the reference",
    "selection": "choosing the best responses",
    "rejection": "learning the best responses",
    "prefer": "training on preferences",
    "ppo": "reinforcement learning",
    "evaluate": "evaluation",
}
GRAVITY = {"ok": 0, "watch": 1, "act": 2, "stop": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class KLBands:
    """Where a KL is healthy (REQUIREMENTS C1). The first three are nats per token, the last nats per sequence."""

    stalled: float = 0.1
    healthy: float = 0.5
    act: float = 2.0
    roll_back: float = 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One kind of stage, all its rounds together: how it was set, what it logged, what it ended with."""

    name: str
    config: Mapping[str, Any]
    finished: bool
    reused: bool
    seconds: float
    """Its own time, without stages that ran inside it; nan when unknown."""
    metrics: Mapping[str, Any]
    steps: Curves
    evaluations: Curves
    checks: Curves
    """What judges said of policy against SFT, check by check."""
    resumed_at: tuple[float, ...]

    @property
    def title(self) -> str:
        return STAGE_TITLES.get(self.name, self.name)

    def metric(self, name: str) -> float:
        """A final figure; nan when it was not measured."""
        return number(self.metrics.get(name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A figure with its 95 % interval; nan where not measured."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far raters agree."""

    items: float
    raters: float
    votes: float
    share: Measure
    """Share of pairs of votes on the same item that are equal."""
    kappa: Measure
    kappa_name: str
    alpha: Measure
    """Krippendorff's alpha."""
    override: str = ""
    """Why training went on although the gate said stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """One bin of a reliability diagram; shares in [0, 1]."""

    low: float
    high: float
    count: int
    predicted: float
    observed: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardCard:
    """How well a reward agrees with held-out preferences; shares in [0, 1], nan where not measured."""

    accuracy: float
    low: float
    high: float
    baseline_longer: float
    baseline_bag_of_words: float
    ece: float
    score_mean: float
    score_std: float
    verdict: str
    reliability: tuple[Bin, ...]
    best_of: int
    best_of_gain: float
    golden_accuracy: float
    implied: bool = False
    """Whether it is the reward that a policy trained on preferences implies, instead of a reward model's."""

    @property
    def who(self) -> str:
        """Whose reward it is."""
        return "trained policy" if self.implied else "reward model"

    @property
    def best_baseline(self) -> float:
        known = [x for x in (self.baseline_longer, self.baseline_bag_of_words) if math.isfinite(x)]
        return max(known, default=math.nan)


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplePair:
    """One prompt answered before and after reinforcement learning; None where that side was not sampled."""

    prompt: str
    before: str | None
    after: str | None
    score_before: float
    score_after: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """One rule that spoke up in one stage, however often it did."""

    stage: str
    level: str
    rule: str
    message: str
    remedy: str
    count: int
    first_step: float
    last_step: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """Something that the guardian did, or would have done, and why."""

    stage: str
    step: float
    since: float
    """Step from which the trouble dates; nan where the evidence carries none."""
    taken: bool
    """False where the recipe lets it advise only."""
    name: str
    text: str
    """What was done and which settings changed, as one sentence without a full stop."""
    rules: tuple[str, ...]
    evidence: tuple[str, ...]
    """A sentence of each rule."""
    causes: tuple[str, ...]
    remedies: tuple[str, ...]
    confidence: float
    answer: str
    """What the judges said, where they were asked and have answered."""
    to_step: float
    """The update that a rollback went back to; nan for other actions."""
    samples: tuple[SamplePair, ...]
    """Answers of the policy that was gone back to ("before") and of the one that raised the alarm ("after")."""

    @property
    def when(self) -> str:
        return f"update {self.step:.0f}" if math.isfinite(self.step) else self.stage

    @property
    def rolled_back(self) -> bool:
        return self.taken and math.isfinite(self.to_step)


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """One round of fresh labels and what they taught; nan where not measured."""

    round: int
    labels: float
    agreement: float
    krippendorff_alpha: float
    on_policy_accuracy_before: float
    held_out_accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WinRate:
    """Share of comparisons with the SFT model that the trained policy won, with its interval."""

    share: float
    low: float
    high: float
    n: int
    by: str

    @property
    def outside_opinion(self) -> bool:
        """False when the judge is the reward model that the policy was trained on."""
        return "reward model" not in self.by


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run folder, read."""

    path: Path
    name: str
    state: State
    started: float
    """Unix seconds of the first event; nan without events."""
    summary: Mapping[str, Any]
    """RUN/summary.json; empty when there is none or it is older than the last event."""
    recipe: str
    """Text of RUN/recipe.yaml; empty when there is none."""
    stages: Mapping[str, Stage]
    samples: tuple[SamplePair, ...]
    alarms: tuple[Alarm, ...]
    actions: tuple[Action, ...]
    """Of the guardian, oldest first."""
    in_doubt: bool
    """Whether a grave alarm still stands: not taken back by its rule, nor undone by a rollback."""
    rounds: tuple[Round, ...]
    win: WinRate | None
    reward: RewardCard | None
    agreement: Agreement | None
    artifacts: tuple[Mapping[str, Any], ...]
    bands: KLBands = field(default_factory=KLBands)

    @property
    def seconds(self) -> float:
        """Seconds of work in all stages and attempts; nan when unknown.

        The summary counts what lies between stages too, but only since the last start of the run.
        """
        known = [stage.seconds for stage in self.stages.values() if math.isfinite(stage.seconds)]
        figures = [math.fsum(known)] if known else []
        figures += [number(self.summary["seconds"])] if math.isfinite(number(self.summary.get("seconds"))) else []
        return max(figures, default=math.nan)

    @property
    def current(self) -> Stage | None:
        """The stage that a running or stopped run is in."""
        if self.state == "finished":
            return None
        return next((stage for stage in reversed(list(self.stages.values())) if not stage.finished), None)

    @property
    def gravest(self) -> Alarm | None:
        """The worst alarm, the first of equals; None when nothing spoke up."""
        return max(self.alarms, key=lambda alarm: GRAVITY.get(alarm.level, 1), default=None)

    @property
    def rescaled(self) -> bool:
        """Whether the reward model was refreshed on the way, so that early and late scores differ in scale."""
        stage = self.stages.get("ppo")
        return stage is not None and (stage.metrics.get("score_scale_changed") is True or bool(stage.steps.boundaries))

    def stage_metric(self, stage: str, name: str) -> float:
        return self.stages[stage].metric(name) if stage in self.stages else math.nan
