"""A judge held against people's golden votes: kappa, pull to a side, the temperature that makes its numbers honest."""

from collections.abc import Sequence
from dataclasses import asdict
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from keel.core.artifacts import Artifact
from keel.core.errors import GateError
from keel.core.seed import derive
from keel.data.records import Comparison, prompt_key
from keel.monitor.judges import judge_calibration, judge_kappa, judge_side
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.feedback.judging import AILabeller, JudgedPair, log_odds
from keel.stages.inputs import RecordSet
from keel.stages.labels import Pair
from keel.stages.sections.feedback import FeedbackConfig
from keel.stats.agreement import MISSING
from keel.stats.arrays import Floats, Ints, sigmoid
from keel.stats.calibration import expected_calibration_error, fit_temperature, reliability_bins
from keel.stats.intervals import Estimate
from keel.stats.judges import TIE, A, B, judge_report


def calibrate(run: Run, labeller: AILabeller, golden: RecordSet) -> Artifact:
    """What the judge is worth on golden comparisons, as a report with every verdict."""
    settings = {name: value for name, value in labeller.settings.items() if name not in ("temperature", "labels")}

    def body(context: StageContext) -> StageResult:
        judged = labeller.judged([as_pair(record, number) for number, record in enumerate(golden.held_out)])
        metrics = {**measured(judged, golden.held_out, run.seed), **labeller.account()}
        return StageResult(metrics=metrics, write=lambda folder: write(folder, labeller, judged, golden.held_out))

    return run.stage("judge", settings, [golden.artifact], body, kind="report", label="judge")


def write(folder: Path, labeller: AILabeller, judged: Sequence[JudgedPair], records: Sequence[Comparison]) -> None:
    labeller.last = list(judged)
    labeller.write(folder)


def as_pair(record: Comparison, number: int = 0) -> Pair:
    """A comparison as something to judge, its preference left out."""
    return Pair(
        prompt=record.prompt,
        a=record.a,
        b=record.b,
        a_finished=True,
        b_finished=True,
        key=derive(0, "pair", prompt_key(record.prompt), number),
    )


def measured(judged: Sequence[JudgedPair], records: Sequence[Comparison], seed: int = 0) -> dict[str, Any]:
    """Accuracy, kappa, consistency and pull of the single verdicts; accuracy, kappa and calibration of the labels.

    Preferences of the records are what people said. Calibration is measured out of fold: each half of the golden set,
    by the hash of its prompts, with the temperature of the other.
    """
    gold = np.array([code(record.preference) for record in records], dtype=np.int64)
    forward, backward = (_codes(judged, order) for order in ("forward", "backward"))
    single = judge_report(gold, forward, backward, seed=seed)
    labels = np.array([nan if j.probability is None else j.probability for j in judged])
    resolved = np.array([MISSING if np.isnan(p) else code(p) for p in labels], dtype=np.int64)
    label = judge_report(gold, resolved, seed=seed)
    pulls = [opinion.pull for one in judged for opinion in one.opinions if opinion.pull is not None]
    known = ~np.isnan(labels)
    people = np.array([record.preference for record in records])[known]
    folds = np.array([int(prompt_key(record.prompt)[:8], 16) % 2 for record in records])[known]
    return {
        "golden": int(known.sum()),
        **spread("accuracy", single.accuracy),
        **spread("kappa", single.kappa),
        **spread("same_in_both_orders", single.consistency),
        "position_bias": float(np.mean(pulls)) if pulls else None,
        "position_p_value": single.position_p_value,
        **spread("label_accuracy", label.accuracy),
        **spread("label_kappa", label.kappa),
        **calibration(labels[known], people, folds),
        "flags": list(single.flags),
    }


def spread(name: str, estimate: Estimate) -> dict[str, float | None]:
    """A figure with its interval; None where there is none."""
    values = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {key: None if np.isnan(value) else float(value) for key, value in values.items()}


def calibration(probabilities: Floats, people: Floats, folds: Ints) -> dict[str, Any]:
    """The temperature of all golden comparisons, the error without one, and out of fold with it; bins for a plot."""
    if not len(probabilities):
        return {"temperature": 1.0, "ece_before": None, "ece": None, "bins": []}
    logits = np.array([log_odds(p) for p in probabilities])
    out_of_fold = probabilities.copy()
    for fold in (0, 1):
        here, there = folds == fold, folds != fold
        if here.any() and there.any():
            out_of_fold[here] = sigmoid(logits[here] / temperature_of(logits[there], people[there]))
    return {
        "temperature": temperature_of(logits, people),
        "ece_before": expected_calibration_error(probabilities, people),
        "ece": expected_calibration_error(out_of_fold, people),
        "bins": [asdict(entry) for entry in reliability_bins(out_of_fold, people)],
    }


def temperature_of(logits: Floats, people: Floats) -> float:
    """The temperature of a judge; 1 where it says nothing either way.

    What people said counts as (N y + 1) / (N + 2) (Platt 1999), so that a judge that was right ten times out of ten is
    not taken to be right always.
    """
    if not logits.any():
        return 1.0
    return fit_temperature(logits, (len(people) * people + 1) / (len(people) + 2))


def code(preference: float) -> int:
    """A preference as a choice."""
    return TIE if preference == 0.5 else A if preference > 0.5 else B


def _codes(judged: Sequence[JudgedPair], order: str) -> Ints:
    """What the judge said in one order, about a and b; of several opinions on a pair their mean."""
    found = []
    for one in judged:
        said = [getattr(opinion, order) for opinion in one.opinions]
        first = [said_once.first for said_once in said if said_once is not None and said_once.first is not None]
        if not first or len(first) < len(said):
            found.append(MISSING)
        else:
            p = sum(first) / len(first)
            found.append(code(p if order == "forward" else 1 - p))
    return np.array(found, dtype=np.int64)


def admitted(run: Run, config: FeedbackConfig, report: Artifact | None) -> float:
    """The temperature of a judge that may be used. Its verdicts are told; GateError for one that people refute."""
    figures = report.metrics if report else {}

    def known(name: str) -> float:
        value = figures.get(name)
        return nan if value is None else float(value)

    kappa = judge_kappa(
        known("label_kappa"),
        known("label_kappa_low"),
        known("label_kappa_high"),
        int(figures.get("golden", 0)),
        least=config.min_kappa,
        override=config.override_kappa,
    )
    fitted = float(figures.get("temperature", 1.0))
    temperature = fitted if config.temperature == "auto" else config.temperature
    run.verdict("judge", kappa)
    if report is not None:
        run.verdict("judge", judge_side(known("position_bias")))
        if config.temperature == "auto":
            run.verdict("judge", judge_calibration(known("ece"), temperature, int(figures["golden"])))
    if kappa.level == "stop":
        raise GateError(f"{kappa.message} {kappa.remedy}")
    if config.temperature == "auto":
        run.progress.say(f"feedback.temperature: auto is {temperature:.3g}")
    return temperature
