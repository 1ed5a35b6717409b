"""What rules say of a finished run: at its end, since when, and what was wrong for a while and passed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keel.diagnose import offline, policy
from keel.diagnose.dialect import Kind
from keel.diagnose.log import Stage
from keel.monitor.history import History
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import LEVELS, Verdict

Rule = Callable[[History, Thresholds], Verdict]

LEAST_UPDATES = 5
"""A run shorter than this cannot be judged: nothing in it can be told from noise."""
MOST_LOOKS = 40
"""How many points of a run are looked at to find out since when something is wrong."""
ABSENT = "not measured"
"""Stands in the message of a rule whose figures the log does not have."""
DATED = {"not_finite", "overfitting", "memorised", "chosen_falls", "saturated_loss"}
"""Rules for fixed sets that say something of the course of training; the others judge the end."""
SAID_BETTER = {"pair_accuracy": {"reward_model_accuracy"}}
"""Rules that keep silent where the run itself has said the same with an interval."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule that spoke up about a stage."""

    stage: str
    verdict: Verdict
    since: int | None = None
    """The update from which on it never fell silent; None where that says nothing."""
    until: int | None = None
    """The update at which it was over; None while it lasted to the end."""

    @property
    def gravity(self) -> int:
        return LEVELS.index(self.verdict.level)


@dataclass(frozen=True, kw_only=True)
class Examined:
    """All that the rules say of one stage."""

    stage: Stage
    findings: tuple[Finding, ...]
    """Rules that are not content, gravest first."""
    passed: tuple[Verdict, ...]
    """Rules that looked and are content."""
    not_judged: tuple[Verdict, ...]
    """Rules whose figures the log does not have."""

    @property
    def too_short(self) -> bool:
        return _too_short(self.stage)


RULES: Mapping[Kind, Sequence[Rule]] = {
    "rl": (
        policy.distance,
        policy.length_growth,
        policy.unfinished,
        policy.collapse,
        policy.spread,
        policy.score_course,
        policy.update_size,
        policy.critic,
    ),
    "preference": (
        offline.pair_accuracy,
        offline.chosen_falls,
        offline.held_out_loss,
        offline.gap,
        offline.saturated,
        offline.no_learning,
    ),
    "reward": (
        offline.pair_accuracy,
        offline.held_out_loss,
        offline.gap,
        offline.score_size,
        offline.no_learning,
    ),
    "sft": (offline.held_out_loss, offline.no_learning),
}


def rules_for(kind: Kind) -> Sequence[Rule]:
    """The rules that a stage of this kind is put to."""
    return (offline.not_finite, *RULES[kind])


def examine(stage: Stage, thresholds: Thresholds) -> Examined:
    """Put a stage to its rules, and take over what rules said of it while it ran."""
    findings, passed, not_judged = [], [], []
    told = {verdict.rule for verdict in stage.told}
    for rule in rules_for(stage.kind) if not _too_short(stage) else (offline.not_finite,):
        verdict = rule(stage.history, thresholds)
        if told & SAID_BETTER.get(verdict.rule, set()):
            continue
        if ABSENT in verdict.message.lower():
            not_judged.append(verdict)
        elif verdict.level != "ok":
            findings.append(Finding(stage=stage.name, verdict=verdict, since=_since(rule, verdict, stage, thresholds)))
        elif stage.kind == "rl" and (past := _past(rule, stage, thresholds)):
            findings.append(past)
        else:
            passed.append(verdict)
    judged = {finding.verdict.rule for finding in findings} | {verdict.rule for verdict in passed}
    for verdict in stage.told:
        if verdict.rule in judged:
            continue
        if verdict.level == "ok":
            passed.append(verdict)
        else:
            findings.append(Finding(stage=stage.name, verdict=verdict))
    findings.sort(key=lambda finding: (finding.until is not None, -finding.gravity, -(finding.verdict.confidence or 0)))
    return Examined(stage=stage, findings=tuple(findings), passed=tuple(passed), not_judged=tuple(not_judged))


def _too_short(stage: Stage) -> bool:
    return max(len(stage.history.steps), len(stage.history.evaluations)) < LEAST_UPDATES


def _since(rule: Rule, final: Verdict, stage: Stage, thresholds: Thresholds) -> int | None:
    """The first step from which on the rule was not content, to the end; found between two looks by halving."""
    if stage.kind != "rl" and final.rule not in DATED:
        return None
    steps = _steps(stage.history)

    def silent(step: int) -> bool:
        return rule(stage.history.until(step), thresholds).level == "ok"

    looks = _looks(steps)
    first_wrong = len(steps) - 1
    for at in reversed(looks):
        if silent(steps[at]):
            content, wrong = at, first_wrong
            while wrong - content > 1:
                middle = (content + wrong) // 2
                content, wrong = (middle, wrong) if silent(steps[middle]) else (content, middle)
            return steps[wrong]
        first_wrong = at
    return steps[0]


def _past(rule: Rule, stage: Stage, thresholds: Thresholds) -> Finding | None:
    """What the rule would have acted on at some time, though it is content at the end."""
    steps = _steps(stage.history)
    looks = [(steps[at], rule(stage.history.until(steps[at]), thresholds)) for at in _looks(steps)]
    grave = [(step, verdict) for step, verdict in looks if verdict.level in ("act", "stop")]
    if len(grave) < 2:  # a single reading is noise
        return None
    after = [step for step, verdict in looks if step > grave[-1][0]]
    worst = max(grave, key=lambda entry: LEVELS.index(entry[1].level))[1]
    return Finding(stage=stage.name, verdict=worst, since=grave[0][0], until=after[0] if after else grave[-1][0])


def _steps(history: History) -> list[int]:
    steps = {int(row["step"]) for series in (history.steps, history.evaluations) for row in series.rows}
    return sorted(steps)


def _looks(steps: Sequence[int]) -> list[int]:
    """Positions to look at, evenly spread, the last one among them."""
    stride = max(1, -(-len(steps) // MOST_LOOKS))
    return sorted({*range(len(steps) - 1, -1, -stride)})
