"""Optimisers with a schedule, and state that saves without pickle."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from keel.core.errors import ConfigError
from keel.models.extras import require_bitsandbytes
from keel.train.settings import OptimConfig
from keel.train.wide import WideWeight, chunks


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Named parameters that share a learning rate."""

    parameters: tuple[tuple[str, nn.Parameter], ...]
    learning_rate: float | None = None
    """None takes the config's own rates."""


class Optimizer:
    """One or two torch optimisers driven as one, with the schedule inside.

    `total_steps` fixes the schedule; `step_number` counts optimiser steps taken and is part of the saved state.
    Parameters in bfloat16 are moved in float32: `wide` holds what they lack.
    """

    def __init__(self, groups: Iterable[ParameterGroup], config: OptimConfig, total_steps: int) -> None:
        self.config = config
        self.total_steps = max(1, total_steps)
        self.step_number = 0
        self.factor = 1.0
        """Of all rates, besides the schedule; the caller's to set and to keep."""
        self.wide: list[WideWeight] = []
        adamw, muon = [], []
        for group in groups:
            hidden, rest = [], []
            for name, p in group.parameters:
                moved = hidden if config.name == "muon" and is_hidden_matrix(name, p) else rest
                moved.append(self._moved(p))
            if hidden:
                muon.append({"params": hidden, "lr": group.learning_rate or config.muon_learning_rate})
            if rest:
                adamw.append({"params": rest, "lr": group.learning_rate or config.learning_rate})
        if not adamw and not muon:
            raise ConfigError("No parameter is left to train: everything is frozen. Unfreeze a part or add LoRA.")
        self.wide_scale = torch.ones(())
        """Factor of the gradients in `wide` at the next step."""
        self.parts: list[torch.optim.Optimizer] = []
        if adamw:
            self.parts.append(_adamw(adamw, config))
        if muon:
            self.parts.append(torch.optim.Muon(muon, momentum=0.95, weight_decay=config.weight_decay))
        self.peaks = [[float(group["lr"]) for group in part.param_groups] for part in self.parts]

    def _moved(self, p: nn.Parameter) -> nn.Parameter:
        """What a torch optimiser should move for `p`."""
        if p.dtype != torch.bfloat16:
            return p
        self.wide.append(WideWeight(p))
        return self.wide[-1].weight

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is moved: parameters in float32 themselves, float32 weights behind the others."""
        return [p for part in self.parts for group in part.param_groups for p in group["params"]]

    @property
    def device(self) -> torch.device:
        return self.parameters[0].device

    @property
    def learning_rate(self) -> float:
        """The adamw rate of the coming step (muon's when there is no adamw)."""
        return self.peaks[0][0] * self.factor * self.scale()

    def scale(self) -> float:
        """Learning rate of the coming step as a share of its peak."""
        c, step = self.config, self.step_number
        warmup = round(c.warmup_share * self.total_steps)
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        shape = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[c.schedule]
        return c.final_share + (1 - c.final_share) * shape if c.schedule != "constant" else 1.0

    def divide_and_clip(self, denominator: float) -> float:
        """Divide the gradients, then scale them down to `max_grad_norm`. Returns their norm before scaling down."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        for grad in grads:
            grad /= denominator
        for wide in self.wide:
            wide.take()
        norm = get_total_norm(grads)
        if held := [wide.grad for wide in self.wide if wide.grad is not None]:
            squares = [torch.linalg.vector_norm(grad, dtype=torch.float32).square() for grad in held]
            norm = (norm.to(squares[0].device).square() + torch.stack(squares).sum() / denominator**2).sqrt()
        limit = self.config.max_grad_norm
        clip_grads_with_norm_(self.parameters, limit, norm)
        self.wide_scale = (limit / (norm + 1e-6)).clamp(max=1.0) / denominator
        return float(norm)

    def drop_gradients(self) -> None:
        """As if there had been no backward pass."""
        for p in self.parameters:
            p.grad = None
        for wide in self.wide:
            wide.parameter.grad = wide.grad = None

    def step(self) -> None:
        """One step at the scheduled rate; gradients are dropped afterwards."""
        scale = self.factor * self.scale()
        for part, peaks in zip(self.parts, self.peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * scale
        if len(self.wide) < len(self.parameters):
            self._step_parts()
        for wide in self.wide:
            wide.take()
        for run in chunks(self.wide):
            for wide in run:
                wide.open(self.wide_scale)
            self._step_parts()
            for wide in run:
                wide.close()
        self.wide_scale = torch.ones(())
        self.step_number += 1

    def _step_parts(self) -> None:
        """Move every parameter that has a gradient."""
        for part in self.parts:
            part.step()
            part.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state as named tensors, for safetensors."""
        out = {"step_number": torch.tensor(self.step_number)}
        out |= {f"lower.{index}": wide.lower for index, wide in enumerate(self.wide)}
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
            if name.startswith("lower."):
                wide = self.wide[int(name.removeprefix("lower."))]
                wide.lower = value.to(wide.lower.device)
                continue
            part, index, key = name.split(".", 2)
            states[int(part)].setdefault(int(index), {})[key] = value
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})


def _adamw(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW with states in 32 or 8 bits."""
    settings = {"betas": (config.beta1, config.beta2), "eps": config.eps, "weight_decay": config.weight_decay}
    if config.name != "adamw8bit":
        return torch.optim.AdamW(groups, **settings, fused=True)
    require_bitsandbytes("optim.name: adamw8bit")
    from keel.train.adam8bit import SavedAdamW8bit

    return SavedAdamW8bit(groups, **settings)


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """True for the matrices between embedding and head, which is where Muon applies (Jordan et al. 2024)."""
    return parameter.ndim == 2 and not any(part in name for part in ("embed", "lm_head", "score", "value_head"))


def trainable(module: nn.Module, prefix: str = "") -> tuple[tuple[str, nn.Parameter], ...]:
    """The parameters of `module` that ask for a gradient, with their names."""
    return tuple((prefix + name, p) for name, p in module.named_parameters() if p.requires_grad)
