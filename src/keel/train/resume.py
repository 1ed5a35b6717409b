"""Checkpoints that are complete or do not exist: weights, optimiser, controllers, cursor."""

import json
import shutil
from collections.abc import Mapping
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
        if not found:
            return None
        newest = found[-1]
        try:
            meta = json.loads((newest / "checkpoint.json").read_text())
            step, state, files = meta["step"], meta["state"], meta["files"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise damaged(newest, f"checkpoint.json cannot be read ({error})") from error
        for name, digest in files.items():
            if not (newest / name).is_file() or file_sha256(newest / name) != digest:
                raise damaged(newest, f"{name} is missing or has changed")
        return Checkpoint(step=step, state=state, folder=newest)

    def save(
        self, step: int, *, modules: Mapping[str, nn.Module], optimizer: Optimizer, state: Mapping[str, Any]
    ) -> None:
        """Write a whole checkpoint beside the old one, then drop the old one."""
        target = self.folder / f"{PREFIX}{step:09d}"
        for leaving in self.folder.glob(f".{PREFIX}*.partial-*"):  # of a run that was killed while it wrote
            recover_directory(leaving.with_name(leaving.name[1:].partition(".")[0]))
        with atomic_directory(target) as draft:
            for name, module in modules.items():
                save_module(module, draft / f"{name}.safetensors")
            save_file({k: v.contiguous() for k, v in optimizer.tensors().items()}, draft / "optimizer.safetensors")
            save_file(random_states(), draft / "random.safetensors")
            files = {path.name: file_sha256(path) for path in sorted(draft.glob("*.safetensors"))}
            (draft / "checkpoint.json").write_text(json.dumps({"step": step, "state": dict(state), "files": files}))
        for old in self.folder.glob(f"{PREFIX}*"):
            if old != target:
                shutil.rmtree(old)

    def clear(self) -> None:
        """The stage is done: nothing of it needs to be resumed."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


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
