"""Checkpoints that are complete or do not exist: weights, optimiser, controllers, cursor."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from keel.core.errors import ArtifactError
from keel.core.files import atomic_directory, explained_when_full, file_sha256, recover_directory
from keel.train.optim import Optimizer

PREFIX = "step-"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a stage needs to go on to the same bits."""

    step: int
    state: dict[str, Any]
    """Plain JSON values: coefficients, best figures, running statistics."""
    folder: Path

    def restore(self, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """Put the saved weights, optimiser state and random states back."""
        for name, module in modules.items():
            restore_module(module, load_tensors(self.folder / f"{name}.safetensors"))
        optimizer.load_tensors(load_tensors(self.folder / "optimizer.safetensors"))
        restore_random_states(load_tensors(self.folder / "random.safetensors"))


def save_checkpoint(
    target: Path,
    step: int,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: Optimizer,
    state: Mapping[str, Any],
) -> None:
    """Write a whole checkpoint, or none; one that stands at `target` is replaced."""
    with atomic_directory(target) as draft:
        for name, module in modules.items():
            save_module(module, draft / f"{name}.safetensors")
        save_file({k: v.contiguous() for k, v in optimizer.tensors().items()}, draft / "optimizer.safetensors")
        save_file(random_states(), draft / "random.safetensors")
        files = {path.name: file_sha256(path) for path in sorted(draft.glob("*.safetensors"))}
        (draft / "checkpoint.json").write_text(json.dumps({"step": step, "state": dict(state), "files": files}))


def load_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint whose files are all as they were written. A damaged one raises ArtifactError with a way on."""
    try:
        meta = json.loads((folder / "checkpoint.json").read_text())
        step, state, files = meta["step"], meta["state"], meta["files"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise damaged(folder, f"checkpoint.json cannot be read ({error})") from error
    for name, digest in files.items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise damaged(folder, f"{name} is missing or has changed")
    return Checkpoint(step=step, state=state, folder=folder)


class Checkpoints:
    """The checkpoints of one stage of one run; only the newest is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exist(self) -> bool:
        """True when there is one to resume from."""
        return any(self.folder.glob(f"{PREFIX}*"))

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint, or None. A damaged one raises ArtifactError that says what to delete."""
        found = sorted(self.folder.glob(f"{PREFIX}*"))
        return load_checkpoint(found[-1]) if found else None

    def save(
        self, step: int, *, modules: Mapping[str, nn.Module], optimizer: Optimizer, state: Mapping[str, Any]
    ) -> None:
        """Write a whole checkpoint beside the old one, then drop the old one."""
        target = self.folder / f"{PREFIX}{step:09d}"
        drop_unfinished(self.folder)
        save_checkpoint(target, step, modules=modules, optimizer=optimizer, state=state)
        for old in self.folder.glob(f"{PREFIX}*"):
            if old != target:
                shutil.rmtree(old)

    def clear(self) -> None:
        """The stage is done: nothing of it needs to be resumed."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


class Snapshots:
    """Checkpoints of earlier moments that a run may go back to, beside the one that it resumes from.

    A snapshot that no longer counts stays on disk while the newest checkpoint counts on it, for a run that is killed
    resumes from there. So at most twice `most` lie on disk.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder / "snapshots", most
        self.steps: list[int] = []
        """Of the snapshots that count, oldest first."""
        self.resumable: list[int] = []
        """Of the snapshots that counted when the newest checkpoint was written."""

    def save(
        self, step: int, *, modules: Mapping[str, nn.Module], optimizer: Optimizer, state: Mapping[str, Any]
    ) -> None:
        """Keep this moment. Where there are too many, the beginning and the newest stay, and of those between the one
        is given up whose neighbours lie closest for its age: so they lie denser towards the present.
        """
        drop_unfinished(self.folder)
        save_checkpoint(self._path(step), step, modules=modules, optimizer=optimizer, state=state)
        self.steps = [*(kept for kept in self.steps if kept < step), step]
        while len(self.steps) > self.most:
            self.steps.pop(self._spare())
        self._prune()

    def _spare(self) -> int:
        """Place of the snapshot that is missed least."""
        if len(self.steps) < 3:
            return 0
        crowded = [
            (after - before) / (self.steps[-1] - step)
            for before, step, after in zip(self.steps, self.steps[1:-1], self.steps[2:], strict=False)
        ]
        return 1 + crowded.index(min(crowded))

    def load(self, step: int) -> Checkpoint:
        return load_checkpoint(self._path(step))

    def forget_after(self, step: int) -> None:
        """What came after `step` no longer counts."""
        self.steps = [kept for kept in self.steps if kept <= step]

    def checkpointed(self) -> None:
        """A checkpoint has been written: what does not count now will never again."""
        self.resumable = list(self.steps)
        self._prune()

    def resume(self, steps: Sequence[int]) -> None:
        """Go on from a checkpoint for which the snapshots of `steps` counted."""
        self.steps, self.resumable = list(steps), list(steps)

    def _prune(self) -> None:
        wanted = {self._path(step) for step in (*self.steps, *self.resumable)}
        for path in self.folder.glob(f"{PREFIX}*"):
            if path not in wanted:
                shutil.rmtree(path)

    def _path(self, step: int) -> Path:
        return self.folder / f"{PREFIX}{step:09d}"


def drop_unfinished(folder: Path) -> None:
    """Remove what a run left there that was killed while it wrote."""
    for leaving in folder.glob(f".{PREFIX}*.partial-*"):
        recover_directory(leaving.with_name(leaving.name[1:].partition(".")[0]))


class BestWeights:
    """The trainable weights of the best evaluation so far, on disk beside the checkpoints.

    A resumed run replays every evaluation after its checkpoint, so the file is always right again before it is used.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "best.safetensors"

    def keep(self, module: nn.Module) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".partial")
        try:
            with explained_when_full(self.path):
                save_module(module, draft)
                draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)

    def put_back(self, module: nn.Module) -> None:
        restore_module(module, load_tensors(self.path))


def damaged(folder: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"Checkpoint {folder} is damaged: {what}. Delete that folder and run the same command again; "
        "the stage then starts over, and finished stages are kept."
    )


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise damaged(path.parent, f"{path.name} cannot be read ({error})") from error


def random_states() -> dict[str, Tensor]:
    """The states of torch's own generators, which dropout draws from; keel's streams are derived from seeds."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda."):
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda.")))


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes: trainable parameters, each once where they are shared.

    What is frozen comes back from the stage's own inputs, so it need not be in every checkpoint.
    """
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}


def save_module(module: nn.Module, path: Path) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in own_tensors(module).items()}, path)


@torch.no_grad()
def restore_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved tensors into the module's trainable parameters."""
    own = own_tensors(module)
    if own.keys() != tensors.keys():
        raise ArtifactError(
            f"A checkpoint holds {len(tensors)} tensors where the model trains {len(own)}: it belongs to another model "
            "or setting. Give the run another folder with --out."
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
