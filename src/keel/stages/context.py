"""A run folder and what every stage does in it: reuse, resume, record.

RUN/recipe.yaml      the resolved recipe
RUN/events.jsonl     what happened
RUN/artifacts/       finished stages, one folder each, named by stage and hash
RUN/checkpoints/     unfinished stages
RUN/summary.json     the figures
RUN/report.html      the figures as a page
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree
from typing import Any, Literal, Protocol

import torch
from torch import nn

from keel.core.artifacts import Artifact, load_artifact, save_artifact, stage_id
from keel.core.config import Config, to_dict
from keel.core.errors import TrainingError
from keel.core.events import Event, EventLog, read_events
from keel.core.files import atomic_directory, linked
from keel.core.progress import Progress
from keel.monitor.rates import learning_rate
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Verdict
from keel.train.resume import Checkpoints
from keel.train.rollout import Judged
from keel.train.settings import OptimConfig

ATTEMPT = {"stage_started", "resumed", "records"}
"""Events that belong to one attempt at a stage rather than to its result."""


class Observer(Protocol):
    """Someone who looks on: sees every judged rollout and held-out evaluation of RL, and can change nothing."""

    def __call__(self, stage: str, step: int, kind: Literal["step", "evaluated"], judged: Judged, /) -> None: ...


def unobserved(stage: str, step: int, kind: Literal["step", "evaluated"], judged: Judged, /) -> None:
    """Nobody looks on."""


@dataclass
class Run:
    """One run folder, open for writing."""

    directory: Path
    seed: int
    events: EventLog
    progress: Progress
    checkpoint_every_seconds: float
    recipe_folder: Path
    """Relative paths of a recipe start here."""
    thresholds: Thresholds = DEFAULT
    observe: Observer = unobserved
    reuse: Sequence[Path] = ()
    """Other run folders, whose finished stages are taken over where inputs and config hash the same."""
    reused: list[str] = field(default_factory=list)
    last_checkpoint: float = field(default_factory=time.monotonic)

    def stage(
        self,
        name: str,
        config: Mapping[str, Any] | Config,
        parents: Sequence[Artifact],
        body: Callable[["StageContext"], "StageResult"],
        *,
        kind: str,
        label: str | None = None,
    ) -> Artifact:
        """The artifact of a stage: the finished one when inputs and config hash the same, else made by `body`.

        `label` is what people see; `name` and everything in `config` and `parents` is what the hash sees.
        """
        settings = to_dict(config) if isinstance(config, Config) else dict(config)
        identity = stage_id(name, settings, [parent.id for parent in parents])
        folder = f"{name}-{identity[:12]}"
        target = self.directory / "artifacts" / folder
        checkpoints = Checkpoints(self.directory / "checkpoints" / folder)
        label = label or name
        self.take_over(target)
        if target.exists():
            self.reused.append(label)
            checkpoints.clear()  # of a run that ended between saving the artifact and this
            artifact = load_artifact(target, kind)
            self.events.append("stage_finished", stage=label, seconds=0.0, reused=True, metrics=artifact.metrics)
            self.progress.say(f"{label}: finished before, reused")
            return artifact
        context = StageContext(
            run=self,
            name=label,
            checkpoints=checkpoints,
            seed=self.seed,
        )
        self.forget_interrupted(label, keep_steps=checkpoints.exist())
        self.events.append("stage_started", stage=label, config=settings)
        begun = time.monotonic()
        with naming(label):
            result = within_memory(body, context)
            metrics = {**result.metrics, "seconds": context.seconds_before + time.monotonic() - begun}
            artifact = save_artifact(
                target,
                kind=kind,
                stage_id=identity,
                parents=[parent.id for parent in parents],
                config=settings,
                metrics=metrics,
                write=result.write,
            )
        checkpoints.clear()
        self.events.append(
            "stage_finished", stage=label, seconds=metrics["seconds"], reused=False, metrics=artifact.metrics
        )
        return artifact

    def take_over(self, target: Path) -> None:
        """Put another run's artifact of this name into this run's folder, where this one has none: the same files."""
        sources = [other / "artifacts" / target.name for other in self.reuse]
        found = next((source for source in sources if source.is_dir()), None)
        if found is not None and not target.exists():
            with atomic_directory(target) as draft:
                copytree(found, draft, copy_function=linked, dirs_exist_ok=True)

    def forget_interrupted(self, label: str, *, keep_steps: bool) -> None:
        """Drop what an interrupted attempt at a stage said and the next one will say again.

        Steps are kept where a checkpoint knows how far they count: `StageContext.resumed` drops those behind it.
        """
        said = [event for event in read_events(self.events.path) if event.get("stage") == label]
        ends = [i for i, event in enumerate(said) if event["event"] == "stage_finished"]
        again = [
            event
            for event in said[ends[-1] + 1 if ends else 0 :]
            if event["event"] not in ATTEMPT and not (keep_steps and "step" in event)
        ]
        if again:
            self.events.drop(lambda event: event in again)

    def verdict(self, stage: str, verdict: Verdict, step: int | None = None) -> None:
        """Record a verdict; anything but ok is also said aloud."""
        self.events.append(
            "verdict",
            stage=stage,
            **({} if step is None else {"step": step}),
            level=verdict.level,
            rule=verdict.rule,
            message=verdict.message,
            figures=verdict.figures,
            remedy=verdict.remedy,
            cause=verdict.cause,
            confidence=verdict.confidence,
        )
        if verdict.level != "ok":
            self.progress.say(f"{stage}: {verdict.message} {verdict.remedy}".strip())


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Within it, a TrainingError says which stage it comes from."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{label}: {error}") from error


def warn_of_rate(context: "StageContext", stage: str, optim: OptimConfig, model: nn.Module, *, lora: bool) -> None:
    """Record whether adamw's rate is customary for a model of this size."""
    if optim.name != "muon":
        size = sum(p.numel() for p in model.parameters())
        context.run.verdict(context.name, learning_rate(stage, optim.learning_rate, lora=lora, num_parameters=size))


def within_memory(body: Callable[["StageContext"], "StageResult"], context: "StageContext") -> "StageResult":
    """What `body` leaves; a GPU that is too small is explained."""
    try:
        return body(context)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The GPU's memory is used up ({str(error).splitlines()[0]}). Lower micro_batch_tokens of this stage, "
            "or set model.gradient_checkpointing (both change memory and speed only, and finished work is kept); use "
            "lora, or a smaller model."
        ) from error


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage's body leaves: figures, and a function that writes the files into an empty folder."""

    metrics: dict[str, Any]
    write: Callable[[Path], None]


@dataclass
class StageContext:
    """What a stage's body works with."""

    run: Run
    name: str
    checkpoints: Checkpoints
    seed: int
    seconds_before: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    def event(self, event: str, **fields: Any) -> None:
        self.run.events.append(event, stage=self.name, **fields)

    def resumed(self, step: int, state: Mapping[str, Any]) -> None:
        """Say that the stage goes on after `step`, and forget events that will happen again."""
        self.seconds_before = float(state.get("seconds", 0.0))
        self.run.events.rewind(self.name, step)
        self.event("resumed", step=step)
        self.run.progress.say(f"{self.name}: resumed after step {step}")

    def told(self) -> list[Event]:
        """The events of this attempt at the stage and of those that it continues."""
        said = [event for event in read_events(self.run.events.path) if event.get("stage") == self.name]
        ends = [i for i, event in enumerate(said) if event["event"] == "stage_finished"]
        return said[ends[-1] + 1 if ends else 0 :]

    @property
    def seconds(self) -> float:
        """Seconds spent in this stage, interrupted attempts included up to their last checkpoint."""
        return self.seconds_before + time.monotonic() - self.begun

    def checkpoint_due(self) -> bool:
        """True when enough time has passed since the last checkpoint; asking starts the clock anew."""
        now = time.monotonic()
        if now - self.run.last_checkpoint < self.run.checkpoint_every_seconds:
            return False
        self.run.last_checkpoint = now
        return True


def peak_rss_bytes() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
