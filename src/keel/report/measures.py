"""The two questions asked of every policy: did its score rise, and how far did it move?"""

import math
from dataclasses import dataclass
from typing import Literal

from keel.report.records import Run
from keel.report.values import first_known

Level = Literal["ok", "watch", "act"]
FLAT_SHARE = 0.1  # of a standard deviation of scores: a smaller gain counts as none


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreChange:
    """What reinforcement learning did to the mean score, and on what it was measured."""

    before: float
    after: float
    spread: float
    """Standard deviation of single scores before training; nan when unknown."""
    where: str

    @property
    def gain(self) -> float:
        return self.after - self.before

    @property
    def rose(self) -> bool:
        threshold = FLAT_SHARE * self.spread if math.isfinite(self.spread) else 0.0
        return self.gain > threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """How far the policy ended from its reference, and what REQUIREMENTS C1 says of that."""

    nats_per_token: float
    nats_per_sequence: float
    level: Level
    phrase: str


def score_change(run: Run) -> ScoreChange | None:
    """How the mean score moved in reinforcement learning, on one scale; None when nothing was scored.

    The evaluation scores both models with the same judge. Without one: held-out prompts, of the last round where the
    reward model changed between rounds; without those, the prompts trained on.
    """
    stage = run.stages.get("ppo")
    if stage is None:
        return None
    spread = first_known(
        stage.metric("score_std_before"), stage.steps.first("score_std"), run.stage_metric("reward", "score_std")
    )
    candidates = [
        (run.stage_metric("evaluate", "score_sft"), run.stage_metric("evaluate", "score"), "the evaluation's prompts")
    ]
    evaluations, steps, which = stage.evaluations, stage.steps, ""
    if run.rescaled:
        evaluations, steps, which = evaluations.latest_round(), steps.latest_round(), " of the last round"
    else:
        candidates.append((stage.metric("score_before"), stage.metric("score_after"), "held-out prompts"))
    if len(evaluations) > 1:
        candidates.append((evaluations.first("score"), evaluations.last("score"), f"held-out prompts{which}"))
    candidates.append((steps.first("score_mean"), steps.last("score_mean"), f"the prompts trained on{which}"))
    for before, after, where in candidates:
        if math.isfinite(before) and math.isfinite(after):
            return ScoreChange(before=before, after=after, spread=spread, where=where)
    return None


def distance(run: Run) -> Distance | None:
    """How far the policy ended from its reference; None when no KL was measured."""
    stage = run.stages.get("ppo")
    if stage is None:
        return None
    per_token, per_sequence = (
        first_known(stage.metric(name), stage.evaluations.last(name), stage.steps.last(name))
        for name in ("kl_nats_per_token", "kl_nats_per_sequence")
    )
    if not (math.isfinite(per_token) or math.isfinite(per_sequence)):
        return None
    level, phrase = _judged(per_token, per_sequence, run)
    return Distance(nats_per_token=per_token, nats_per_sequence=per_sequence, level=level, phrase=phrase)


def _judged(per_token: float, per_sequence: float, run: Run) -> tuple[Level, str]:
    """What the bands say of a KL, gravest first; a figure that is nan says nothing."""
    bands = run.bands
    if per_sequence > bands.roll_back:
        return "act", f"beyond the {bands.roll_back:g}-nat line: go back to an earlier checkpoint"
    if per_token > bands.act:
        return "act", f"above {bands.act:g} nats per token: raise the KL coefficient"
    if per_token > bands.healthy:
        return "watch", f"above the healthy {bands.stalled:g} to {bands.healthy:g} nats per token"
    if per_token < bands.stalled:
        change = score_change(run)
        if change is None or not change.rose:
            return "watch", "so little that training seems stalled"
        return "ok", "a short way, and the score rose all the same"
    if math.isnan(per_token):
        return "ok", f"short of the {bands.roll_back:g}-nat line"
    return "ok", "inside the healthy band"
