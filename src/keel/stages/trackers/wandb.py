"""Weights & Biases; offline in the run folder unless WANDB_MODE says otherwise."""

import os
import secrets
from collections.abc import Mapping, Sequence

import wandb

from keel.stages.trackers.base import PROJECT, Note, Place, Sample

LEVELS = {"watch": wandb.AlertLevel.WARN, "act": wandb.AlertLevel.ERROR, "stop": wandb.AlertLevel.ERROR}


class WandB:
    """One run; its project, entity and server are those of the WANDB_ variables."""

    durable = False  # W&B keeps the last 32 KiB in memory

    def __init__(self, place: Place) -> None:
        mode = os.environ.get("WANDB_MODE") or "offline"
        self.identity = place.known or secrets.token_hex(4)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or place.name,
            id=self.identity,
            resume="allow",
            mode=mode,
            dir=os.environ.get("WANDB_DIR") or str(place.directory),
            config=dict(place.config),
            settings=wandb.Settings(console="off", silent=True),
        )
        folder = self.run.settings.sync_dir
        self.where = f"{folder}; send it with: wandb sync {folder}" if mode == "offline" else str(self.run.url or mode)
        self.stages: set[str] = set()
        self.notes: list[list[str | int]] = []

    def _log(self, stage: str, step: int, values: Mapping[str, object]) -> None:
        """Each stage has steps of its own, which W&B needs to be told."""
        if stage not in self.stages:
            self.stages.add(stage)
            self.run.define_metric(f"{stage}/step", hidden=True)
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self.run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def scalars(self, stage: str, step: int, time: float, figures: Mapping[str, float]) -> None:
        self._log(stage, step, figures)

    def note(self, stage: str, step: int, time: float, note: Note) -> None:
        self.notes.append([stage, step, note.level, note.rule, note.title, note.text])
        columns = ["stage", "step", "level", "rule", "title", "text"]
        self._log(stage, step, {"alarms": wandb.Table(columns=columns, data=self.notes)})
        if note.level in LEVELS:
            self.run.alert(title=note.title, text=note.text, level=LEVELS[note.level])

    def samples(self, stage: str, step: int, time: float, samples: Sequence[Sample]) -> None:
        rows = [[sample.prompt, sample.response, sample.score] for sample in samples]
        self._log(stage, step, {"samples": wandb.Table(columns=["prompt", "response", "score"], data=rows)})

    def final(self, stage: str, time: float, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.run.summary[f"{stage}/final/{name}"] = value

    def close(self, *, succeeded: bool) -> None:
        self.run.finish(exit_code=0 if succeeded else 1)
