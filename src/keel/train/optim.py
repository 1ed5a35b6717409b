"""Optimisers with a schedule, and state that saves without pickle."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keel.core.errors import ConfigError
from keel.train.settings import OptimConfig


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Named parameters that share a learning rate."""

    parameters: tuple[tuple[str, nn.Parameter], ...]
    learning_rate: float | None = None
    """None takes the config's own rates."""


class Optimizer:
    """One or two torch optimisers driven as one, with the schedule inside.

    `total_steps` fixes the schedule; `step_number` counts optimiser steps taken and is part of the saved state.
    """

    def __init__(self, groups: Iterable[ParameterGroup], config: OptimConfig, total_steps: int) -> None:
        self.config = config
        self.total_steps = max(1, total_steps)
        self.step_number = 0
        adamw, muon = [], []
        for group in groups:
            hidden = [p for name, p in group.parameters if config.name == "muon" and is_hidden_matrix(name, p)]
            own = {id(p) for p in hidden}
            rest = [p for _, p in group.parameters if id(p) not in own]
            if hidden:
                muon.append({"params": hidden, "lr": group.learning_rate or config.muon_learning_rate})
            if rest:
                adamw.append({"params": rest, "lr": group.learning_rate or config.learning_rate})
        if not adamw and not muon:
            raise ConfigError("No parameter is left to train: everything is frozen. Unfreeze a part or add LoRA.")
        self.parts: list[torch.optim.Optimizer] = []
        if adamw:
            self.parts.append(
                torch.optim.AdamW(
                    adamw,
                    betas=(config.beta1, config.beta2),
                    eps=config.eps,
                    weight_decay=config.weight_decay,
                    fused=True,
                )
            )
        if muon:
            self.parts.append(torch.optim.Muon(muon, momentum=0.95, weight_decay=config.weight_decay))
        self.peaks = [[float(group["lr"]) for group in part.param_groups] for part in self.parts]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for part in self.parts for group in part.param_groups for p in group["params"]]

    @property
    def learning_rate(self) -> float:
        """The adamw rate of the coming step (muon's when there is no adamw)."""
        return self.peaks[0][0] * self.scale()

    def scale(self) -> float:
        """Learning rate of the coming step as a share of its peak."""
        c, step = self.config, self.step_number
        warmup = round(c.warmup_share * self.total_steps)
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        shape = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[c.schedule]
        return c.final_share + (1 - c.final_share) * shape if c.schedule != "constant" else 1.0

    def step(self) -> None:
        """One step at the scheduled rate; gradients are dropped afterwards."""
        scale = self.scale()
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * scale
            part.step()
            part.zero_grad(set_to_none=True)
        self.step_number += 1

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors, for safetensors."""
        out = {"step_number": torch.tensor(self.step_number)}
        for i, part in enumerate(self.parts):
            for index, state in part.state_dict()["state"].items():
                out |= {f"{i}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        return out

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        self.step_number = int(tensors["step_number"])
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.parts]
        for name, value in tensors.items():
            if name == "step_number":
                continue
            part, index, key = name.split(".", 2)
            states[int(part)].setdefault(int(index), {})[key] = value
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """True for the matrices between embedding and head, which is where Muon applies (Jordan et al. 2024)."""
    return parameter.ndim == 2 and not any(part in name for part in ("embed", "lm_head", "score", "value_head"))


def trainable(module: nn.Module, prefix: str = "") -> tuple[tuple[str, nn.Parameter], ...]:
    """The parameters of `module` that ask for a gradient, with their names."""
    return tuple((prefix + name, p) for name, p in module.named_parameters() if p.requires_grad)
