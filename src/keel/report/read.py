"""A run folder read back as typed records: RUN/events.jsonl and RUN/summary.json, whole or in part.

Nothing is required to be there: a run that only fine-tuned, one that died half-way and one still going all read back.
A figure that is missing is nan.
"""

import fcntl
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from keel.core.errors import ArtifactError
from keel.core.events import read_events
from keel.report.alarms import in_doubt, read_actions, read_alarms, side_by_side
from keel.report.records import (
    Agreement,
    Bin,
    KLBands,
    Measure,
    RewardCard,
    Round,
    Run,
    SamplePair,
    Stage,
    State,
    WinRate,
)
from keel.report.stage_log import Event, family, read_stages
from keel.report.values import number, prompt_as_text, whole

CLOCK_SLACK = 2.0  # seconds by which a file's time may lag behind the time written in the last event


def read_run(run_dir: Path) -> Run:
    """Everything known about the run in `run_dir`, finished or not."""
    if not run_dir.is_dir():
        raise ArtifactError(f"{run_dir} is not a folder. Give the folder that keel run wrote into.")
    events = read_events(run_dir / "events.jsonl")
    times = [number(event["time"]) for event in events if whole(event.get("time"))]
    summary = _read_summary(run_dir / "summary.json", times[-1] if times else -math.inf)
    if not events and not summary:
        raise ArtifactError(
            f"{run_dir} holds neither events.jsonl nor summary.json, so no run has written there. "
            f"Start one with keel run recipe.yaml, or give another folder."
        )
    stages = read_stages(events, summary["stages"] if isinstance(summary.get("stages"), dict) else {})
    recipe = run_dir / "recipe.yaml"
    text = recipe.read_text(encoding="utf-8", errors="replace") if recipe.is_file() else ""
    return Run(
        path=run_dir,
        name=str(summary.get("name") or run_dir.resolve().name),
        state=_state(run_dir, stages, summary),
        started=times[0] if times else math.nan,
        summary=summary,
        recipe=text,
        stages=stages,
        samples=_samples(events),
        alarms=read_alarms(events),
        actions=read_actions(events),
        in_doubt=in_doubt(events),
        rounds=_rounds(events),
        win=_win_rate(stages.get("evaluate")),
        reward=_reward_card(stages),
        agreement=_agreement(events, summary),
        artifacts=_artifacts(run_dir),
        bands=kl_bands(text),
    )


def kl_bands(recipe: str) -> KLBands:
    """The lines in force: those of the recipe where it draws its own."""
    try:
        document = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return KLBands()
    drawn = document.get("thresholds") if isinstance(document, dict) else None
    if not isinstance(drawn, dict):
        return KLBands()
    default = KLBands()
    return KLBands(
        stalled=float(drawn.get("kl_stalled_per_token", default.stalled)),
        healthy=float(drawn.get("kl_watch_per_token", default.healthy)),
        act=float(drawn.get("kl_act_per_token", default.act)),
        roll_back=float(drawn.get("kl_stop_per_sequence", default.roll_back)),
    )


def _read_summary(path: Path, last_event: float) -> dict[str, Any]:
    """The summary; empty when there is none, or when events came after it and it speaks of an earlier run."""
    if not path.is_file() or path.stat().st_mtime + CLOCK_SLACK < last_event:
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except json.JSONDecodeError as error:
        raise ArtifactError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}). Remove the file; the next keel run writes it anew."
        ) from error
    return summary if isinstance(summary, dict) else {}


def _state(run_dir: Path, stages: Mapping[str, Stage], summary: Mapping[str, Any]) -> State:
    if summary and all(stage.finished for stage in stages.values()):
        return "finished"
    return "running" if is_locked(run_dir / ".lock") else "stopped"


def is_locked(lock: Path) -> bool:
    """Whether a process holds the lock that keel.core.files.RunLock takes on a run folder."""
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _samples(events: Sequence[Event]) -> tuple[SamplePair, ...]:
    """Answers to the same prompts before and after, from the first and last samples of reinforcement learning.

    The n-th time a prompt occurs meets the n-th time it occurs on the other side. A run that only evaluated shows the
    pairs that it compared.
    """
    logged = [event for event in events if event.get("event") == "samples" and isinstance(event.get("samples"), list)]
    own = [e["samples"] for e in logged if family(e.get("stage")) == "ppo" and e.get("moment") != "alarm"]
    if not own:
        return tuple(_compared(sample) for event in logged[-1:] for sample in event["samples"])
    return side_by_side(own[0], own[-1] if len(own) > 1 else [])


def _compared(sample: Mapping[str, Any]) -> SamplePair:
    return SamplePair(
        prompt=prompt_as_text(sample.get("prompt")),
        before=str(sample["before"]) if "before" in sample else None,
        after=str(sample.get("response", "")),
        score_before=math.nan,
        score_after=number(sample.get("score")),
    )


def _rounds(events: Sequence[Event]) -> tuple[Round, ...]:
    """Rounds in order; of a round that was repeated, the last account."""
    rounds = {int(number(e["round"])): e for e in events if e.get("event") == "round" and whole(e.get("round"))}
    return tuple(
        Round(
            round=index,
            labels=number(event.get("labels")),
            agreement=number(event.get("agreement")),
            krippendorff_alpha=number(event.get("krippendorff_alpha")),
            on_policy_accuracy_before=number(event.get("on_policy_accuracy_before")),
            held_out_accuracy=number(event.get("held_out_accuracy")),
        )
        for index, event in sorted(rounds.items())
    )


def _win_rate(stage: Stage | None) -> WinRate | None:
    """The win rate by the true preference where there is one, else by the reward model."""
    if stage is None:
        return None
    for name, by in (("true_win_rate", "true preference"), ("reward_win_rate", "reward model")):
        share = stage.metric(name)
        if math.isfinite(share):
            n = stage.metric("n")
            return WinRate(
                share=share,
                low=stage.metric(f"{name}_low"),
                high=stage.metric(f"{name}_high"),
                n=int(n) if math.isfinite(n) else 0,
                by=str(stage.metrics.get("win_rate_by") or by) if name == "true_win_rate" else by,
            )
    return None


def _reward_card(stages: Mapping[str, Stage]) -> RewardCard | None:
    """Of the reward model or, without one, of the policy that learned from the comparisons itself."""
    stage = stages.get("reward") or stages.get("prefer")
    if stage is None or not math.isfinite(stage.metric("accuracy")):
        return None
    best = stage.metrics.get("best_of_n")
    best = best if isinstance(best, dict) else {}
    bins = stage.metrics.get("reliability")
    verdict = stage.metrics.get("verdict")
    return RewardCard(
        accuracy=stage.metric("accuracy"),
        low=stage.metric("accuracy_low"),
        high=stage.metric("accuracy_high"),
        baseline_longer=stage.metric("baseline_longer"),
        baseline_bag_of_words=stage.metric("baseline_bag_of_words"),
        ece=stage.metric("ece"),
        score_mean=stage.metric("score_mean"),
        score_std=stage.metric("score_std"),
        verdict=str(verdict) if verdict else "",
        reliability=tuple(_bin(entry) for entry in bins if isinstance(entry, dict)) if isinstance(bins, list) else (),
        best_of=int(number(best["n"])) if whole(best.get("n")) else 0,
        best_of_gain=number(best.get("gain")),
        golden_accuracy=stage.metric("golden_accuracy"),
        implied=stage.name == "prefer",
    )


def _bin(entry: Mapping[str, Any]) -> Bin:
    return Bin(
        low=number(entry.get("low")),
        high=number(entry.get("high")),
        count=int(number(entry["count"])) if whole(entry.get("count")) else 0,
        predicted=number(entry.get("predicted")),
        observed=number(entry.get("observed")),
    )


def _agreement(events: Sequence[Event], summary: Mapping[str, Any]) -> Agreement | None:
    """Agreement from the summary or, before there is one, from its event (keel.stats.agreement.AgreementReport)."""
    logged = [event for event in events if event.get("event") == "agreement" and event.get("stage") != "rounds"]
    figures = summary.get("agreement") or (logged[-1] if logged else None)
    if not isinstance(figures, dict):
        return None
    kappa = "cohen_kappa" if "cohen_kappa" in figures else "fleiss_kappa"
    return Agreement(
        items=number(figures.get("num_shared_items")),
        raters=number(figures.get("num_raters")),
        votes=number(figures.get("num_votes")),
        share=_measure(figures, "pairwise_agreement"),
        kappa=_measure(figures, kappa),
        kappa_name="Cohen's kappa" if kappa == "cohen_kappa" else "Fleiss' kappa",
        alpha=_measure(figures, "krippendorff_alpha"),
        override=str(figures.get("override") or ""),
    )


def _measure(figures: Mapping[str, Any], name: str) -> Measure:
    """The figure `name` with its interval."""
    return Measure(
        value=number(figures.get(name)),
        low=number(figures.get(f"{name}_low")),
        high=number(figures.get(f"{name}_high")),
    )


def _artifacts(run_dir: Path) -> tuple[Mapping[str, Any], ...]:
    """What each finished artifact says of itself, oldest first."""
    found: list[dict[str, Any]] = []
    for path in run_dir.glob("artifacts/[!.]*/artifact.json"):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # damaged: loading the artifact says so; a report lists what it can
        if isinstance(entry, dict):
            found.append({**entry, "folder": path.parent.name})
    return tuple(sorted(found, key=lambda entry: (str(entry.get("created", "")), entry["folder"])))
