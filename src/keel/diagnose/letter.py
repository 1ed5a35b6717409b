"""The doctor's letter about a finished run, as plain records; keel.diagnose.paper puts them on paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from keel.core.config import load_config
from keel.diagnose.figures import FIGURES, shown, words
from keel.diagnose.findings import LEAST_UPDATES, Examined, Finding, examine
from keel.diagnose.log import Log, Stage
from keel.diagnose.moves import CAUSES, NAMES
from keel.diagnose.offline import start_and_end
from keel.diagnose.prescription import Advice, prescribe
from keel.diagnose.read import read_log
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import Level, Verdict

MOST_EVIDENCE = 8
ALWAYS = {
    "rl": ("score_mean", "kl_nats_per_token", "kl_nats_per_sequence", "response_tokens_mean", "finished_share"),
    "preference": ("accuracy", "reward_margin", "loss"),
    "reward": ("accuracy", "loss"),
    "sft": ("loss", "perplexity"),
}
"""Figures that every letter shows where the log has them."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """A figure at the start and at the end of a stage."""

    stage: str
    figure: str
    start: float
    end: float
    held_out: bool = False
    changed_at: int | None = None
    """The update by which it had gone half of the way, where it changed by more than its noise."""

    def cells(self) -> tuple[str, str, str]:
        """Name with unit, value at the start, value at the end."""
        known = words(self.figure)
        unit = f", {known.unit}" if known.unit else ""
        place = " on held-out data" if self.held_out else ""
        return f"{known.name}{place}{unit}", shown(self.figure, self.start), shown(self.figure, self.end)


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What a doctor would write about a run."""

    log: Log
    examined: tuple[Examined, ...]
    status: str
    """healthy, unwell, or unclear where the log says too little to tell."""
    level: Level
    """The gravest level of what still stood at the end of the last stages."""
    headline: str
    cause: str
    evidence: tuple[Evidence, ...]
    advice: tuple[Advice, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all stages, what stood at the end first, then by gravity."""
        found = [finding for one in self.examined for finding in one.findings]
        over = {one.stage.name for one in self.examined if one.stage.over}
        found.sort(key=lambda f: (f.stage in over, f.until is not None, -f.gravity, -(f.verdict.confidence or 0)))
        return tuple(found)

    @property
    def went_well(self) -> tuple[Verdict, ...]:
        """Rules that are content. A score that rose is no good news while the run is unwell: so it does in a hack."""
        told = [verdict for one in self.examined if not one.stage.over for verdict in one.passed if verdict.figures]
        return tuple(verdict for verdict in told if self.status != "unwell" or verdict.rule != "score_course")

    @property
    def not_judged(self) -> tuple[Verdict, ...]:
        return tuple(verdict for one in self.examined if not one.stage.over for verdict in one.not_judged)


def write_letter(path: Path, overrides: Sequence[str] = ()) -> Letter:
    """Read the log at `path` and say how the run did; `overrides` are `threshold=value` as for a recipe."""
    log = read_log(path)
    drawn = {name: value for name, value in log.thresholds.items() if name in Thresholds.model_fields}
    thresholds = load_config(Thresholds, None, overrides, base=drawn)
    examined = tuple(examine(stage, thresholds) for stage in log.stages)
    current = [one for one in examined if not one.stage.over]
    standing = [finding for one in current for finding in one.findings if finding.until is None]
    standing.sort(key=lambda finding: (-finding.gravity, -(finding.verdict.confidence or 0)))
    passed = [finding for one in current for finding in one.findings if finding.until is not None]
    gravest = standing[0] if standing else None
    status, headline = _headline(current, gravest, passed)
    return Letter(
        log=log,
        examined=examined,
        status=status,
        level=gravest.verdict.level if gravest else "ok",
        headline=headline,
        cause=_cause(gravest or (passed[0] if passed else None)),
        evidence=tuple(_evidence(current, [*standing, *passed])),
        advice=prescribe(examined),
    )


def _headline(current: Sequence[Examined], gravest: Finding | None, passed: Sequence[Finding]) -> tuple[str, str]:
    """The status, and the line above everything else."""
    if gravest and gravest.verdict.level in ("act", "stop"):
        since = f" since update {gravest.since}" if gravest.since is not None else ""
        return "unwell", f"Unwell: {illness(gravest.verdict)}{since}{_in(gravest, current)}."
    if all(one.too_short for one in current):
        updates = max(len(one.stage.history.steps) for one in current)
        return "unclear", f"Too early to tell: {updates} updates were logged, and it takes {LEAST_UPDATES}."
    if not any(_judged(one) for one in current):
        return "unclear", "Nobody can tell: the log has none of the figures that health is judged by."
    if gravest:
        return "healthy", f"Healthy, with one thing to watch: {illness(gravest.verdict)}{_in(gravest, current)}."
    if passed:
        first = passed[0]
        return "healthy", f"Recovered: {illness(first.verdict)} from update {first.since} to {first.until}."
    return "healthy", "Healthy."


def illness(verdict: Verdict) -> str:
    """What a rule finds, as a doctor would call it."""
    if verdict.rule == "reward_model_accuracy" and verdict.figures.get("verdict") in ("check leakage", "suspicious"):
        return "held-out pairs that are ranked too well to be true"
    return NAMES.get(verdict.rule, verdict.rule.replace("_", " "))


def _in(finding: Finding, current: Sequence[Examined]) -> str:
    return f" ({finding.stage})" if len(current) > 1 else ""


def _judged(one: Examined) -> bool:
    """Whether any rule but the one on broken numbers had figures to look at."""
    return bool(one.findings) or any(verdict.rule != "not_finite" for verdict in one.passed)


def _cause(finding: Finding | None) -> str:
    if finding is None:
        return ""
    verdict = finding.verdict
    sure = f" (confidence {verdict.confidence:.0%})" if verdict.confidence is not None else ""
    return f"{verdict.cause or CAUSES.get(verdict.rule) or verdict.message}{sure}"


def _evidence(current: Sequence[Examined], findings: Sequence[Finding]) -> list[Evidence]:
    """Figures that the findings speak of, then those that every letter shows."""
    found: dict[tuple[str, str], Evidence] = {}
    stages = {one.stage.name: one.stage for one in current}
    wanted = [(stages[f.stage], name) for f in findings for name in _named_in(f.verdict)]
    wanted += [(one.stage, name) for one in reversed(current) for name in ALWAYS[one.stage.kind]]
    for stage, name in wanted:
        if len(found) < MOST_EVIDENCE and (stage.name, name) not in found and (entry := _trend(stage, name)):
            found[stage.name, name] = entry
    return list(found.values())


def _named_in(verdict: Verdict) -> list[str]:
    """Figures of the log that a verdict's own are made of: response_tokens_ratio speaks of response_tokens_mean."""
    names = []
    for key in verdict.figures:
        names += [figure for figure in FIGURES if key == figure or key.startswith(f"{figure}_")]
    return names


def _trend(stage: Stage, name: str) -> Evidence | None:
    """Start and end of a figure, of the held-out measurements where training has none."""
    for series, held_out in ((stage.history.steps, False), (stage.history.evaluations, True)):
        known = np.isfinite(values := series.values(name))
        if not known.any():
            continue
        start, end = start_and_end(values)
        return Evidence(
            stage=stage.name,
            figure=name,
            start=start,
            end=end,
            held_out=held_out,
            changed_at=_half_way([int(row["step"]) for row in series.rows], values, start, end),
        )
    return None


def _half_way(steps: Sequence[int], values: np.ndarray, start: float, end: float) -> int | None:
    """The update from which on a figure was nearer to its end than to its start; None where it only wandered."""
    known = np.isfinite(values)
    kept, at = values[known], [step for step, ok in zip(steps, known, strict=True) if ok]
    if len(kept) < LEAST_UPDATES or not isfinite(end - start):
        return None
    noise = float(np.diff(kept).std()) / 2**0.5
    if abs(end - start) <= max(2 * noise, 1e-12):
        return None
    nearer = np.abs(kept - end) < np.abs(kept - start)
    far = np.flatnonzero(~nearer)
    first = int(far[-1]) + 1 if len(far) else 0
    return at[first] if 0 < first < len(at) else None
