"""What rules say of a finished run: at its end, since when, and what was wrong for a while and passed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from keel.diagnose import offline
from keel.diagnose.log import Stage, Told
from keel.diagnose.moves import NAMES
from keel.diagnose.rulebook import Rule, judged, measured, trouble
from keel.monitor.guardian import SURE_ENOUGH
from keel.monitor.history import History, Series
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import LEVELS, Verdict

LEAST_UPDATES = 5
"""A run shorter than this cannot be judged: nothing in it can be told from noise."""
MOST_ROWS = 240
"""A longer history is averaged in groups of consecutive rows before it is judged: the tests take time with the square
of it, and nothing that decides is shorter than such a group."""
MOST_LOOKS = 30
"""How many points of a run are looked at to find out since when something is wrong."""
DATED = {"not_finite", "overfitting", "memorised", "chosen_falls", "saturated_loss"}
"""Rules for fixed sets that say something of the course of training; the others judge the end."""
SAID_ONCE = {"clipped_scores", "no_signal"}
"""Rules that speak up once a run, so that silence says nothing."""
SAID_AGAIN = {"kl_per_sequence": "distance", "kl_per_token": "distance"}
"""Rules of the time of the run that another one looks at the whole run for."""
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
    """Rules whose figures the log does not have, and that said nothing while it ran."""

    @property
    def too_short(self) -> bool:
        return _too_short(self.stage)


def examine(stage: Stage, thresholds: Thresholds) -> Examined:
    """Put a stage to its rules, and take over what rules said of it while it ran."""
    findings, passed, not_judged = [], [], []
    said = {told.verdict.rule for told in stage.told}
    whole, stage = stage, replace(stage, history=thinned(stage.history))
    finite = offline.not_finite(whole.history, thresholds)
    verdicts: list[tuple[Rule, Verdict]] = [(offline.not_finite, finite)]
    verdicts += [] if _too_short(stage) else judged(stage, thresholds)
    proven = _proven(stage, thresholds)
    for rule, found in verdicts:
        verdict = _weighed(found, proven)
        looked_at = whole if rule is offline.not_finite else stage
        if said & SAID_BETTER.get(verdict.rule, set()):
            continue
        if not measured(verdict):
            not_judged.append(verdict)
        elif verdict.level != "ok":
            findings.append(
                Finding(stage=stage.name, verdict=verdict, since=_since(rule, found, looked_at, thresholds))
            )
        elif proven is None and stage.kind == "rl" and (past := _past(rule, looked_at, thresholds)):
            findings.append(past)
        else:
            passed.append(verdict)
    if proven is False and (past := _past_trouble(stage, thresholds)):
        findings.append(past)
    spoken = {finding.verdict.rule for finding in findings} | {verdict.rule for verdict in passed}
    for told in stage.told:
        if told.verdict.rule in spoken or SAID_AGAIN.get(told.verdict.rule) in spoken:
            continue
        if told.verdict.level == "ok":
            passed.append(told.verdict)
        else:
            at_the_time = _from_told(told, whole)
            if at_the_time.until is None or told.verdict.level != "watch":  # a look that passed is no news
                findings.append(at_the_time)
    heard = {SAID_AGAIN.get(rule, rule) for rule in said}
    heard |= {NAMES.get(rule, rule) for rule in heard}
    not_judged = [verdict for verdict in not_judged if not {verdict.rule, NAMES.get(verdict.rule)} & heard]
    findings.sort(key=lambda finding: (finding.until is not None, -finding.gravity, -(finding.verdict.confidence or 0)))
    return Examined(stage=whole, findings=tuple(findings), passed=tuple(passed), not_judged=tuple(not_judged))


def _proven(stage: Stage, thresholds: Thresholds) -> bool | None:
    """Whether keel's rules together say that something went wrong by the end; None where they were not asked."""
    if not (stage.by_keel and stage.kind == "rl"):
        return None
    return trouble(stage.history, thresholds).probability >= SURE_ENOUGH


def _weighed(verdict: Verdict, proven: bool | None) -> Verdict:
    """One sign alone is looked into: an act of one rule that the others do not bear out is no more than a watch."""
    return replace(verdict, level="watch") if proven is False and verdict.level == "act" else verdict


def _past_trouble(stage: Stage, thresholds: Thresholds) -> Finding | None:
    """What keel's rules together would have acted on at some time, though they are content at the end."""
    steps = _steps(stage.history)
    looks = [(steps[at], trouble(stage.history.until(steps[at]), thresholds)) for at in _looks(steps)]
    grave = [(step, found) for step, found in looks if found.probability >= SURE_ENOUGH]
    if not grave:
        return None
    after = [step for step, _ in looks if step > grave[-1][0]]
    worst = max((found for _, found in grave), key=lambda found: found.probability)
    return Finding(
        stage=stage.name, verdict=worst.signs[0], since=grave[0][0], until=after[0] if after else grave[-1][0]
    )


def _from_told(told: Told, stage: Stage) -> Finding:
    """A verdict of the time of the run: over, where its rule kept silent from then to the end."""
    steps = _steps(stage.history)
    later = sum(at > told.last for at in steps) if told.last is not None else 0
    over = told.verdict.rule not in SAID_ONCE and later > max(5, len(steps) // 10)
    return Finding(stage=stage.name, verdict=told.verdict, since=told.since, until=told.last if over else None)


def thinned(history: History) -> History:
    """The history with at most MOST_ROWS rows of each sort; judges' checks stay as they are."""
    return History(_grouped(history.steps), _grouped(history.evaluations), history.checks)


def _grouped(series: Series) -> Series:
    """Means of consecutive rows, each with the last step of its group; a figure nobody knows stays away."""
    size = -(-len(series) // MOST_ROWS)
    if size <= 1:
        return series
    names = {name for row in series.rows for name in row}
    ends = range(size, len(series) + size, size)
    columns = {name: values for name in names if np.isfinite(values := series.values(name)).any()}
    grouped = Series()
    for end in ends:
        part = {name: values[end - size : end] for name, values in columns.items()}
        means = {name: float(known.mean()) for name, v in part.items() if len(known := v[np.isfinite(v)])}
        grouped.add(int(series.rows[min(end, len(series)) - 1]["step"]), means)
    return grouped


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
