"""One set of frozen weights in several roles: each has an adapter of its own, and the reference has none.

A role is chosen for a stretch of code (`role`), not for the model, so that nothing about what is trained changes with
it. The layers compute y = x W^T + scale · (x A^T) B^T in two small products added in place, whatever holds W.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from keel.models.packed import transformer

POLICY = "default"  # peft's name for the first adapter
ROLES = "keel_roles"


class Roles:
    """Which adapter acts now, for all tokens or for stretches of them; one for all layers of a model."""

    def __init__(self) -> None:
        self.acting: tuple[str | None, ...] = (POLICY,)
        self.stretches: tuple[tuple[int, ...], ...] = ()

    def lengths(self, tokens: int) -> tuple[int, ...]:
        """How many of `tokens` tokens each role that acts has."""
        return next(lengths for lengths in self.stretches if sum(lengths) == tokens)


@contextmanager
def role(model: nn.Module, *names: str | None, stretches: Sequence[Sequence[int]] = ()) -> Iterator[None]:
    """Within it `model` acts with the adapter of that name, or with None as it was before any was added.

    Several names share a forward pass: the first tokens of the row meet the first adapter, the next ones the second.
    `stretches` says how many: of the whole row, and of the tokens that the last layer computes where those are fewer.
    With gradient checkpointing the backward pass belongs inside too.
    """
    roles = getattr(model, ROLES, None)
    if roles is None:
        raise TypeError(f"{type(model).__name__} has no adapters, so it has one role only")
    before = roles.acting, roles.stretches
    roles.acting, roles.stretches = names, tuple(map(tuple, stretches))
    try:
        yield
    finally:
        roles.acting, roles.stretches = before


def give_roles(model: Any) -> None:
    """Make the adapted layers of a peft model follow `role`. To be called again after adapters were added."""
    roles = getattr(model, ROLES, None)
    if roles is None:
        roles = Roles()
        setattr(model, ROLES, roles)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            if not isinstance(layer, RoleLayer):
                layer.__class__ = _in_roles(type(layer))
            layer.roles = roles  # type: ignore[attr-defined]


@cache
def _in_roles(kind: type) -> type:
    return type(f"{kind.__name__}InRoles", (RoleLayer, kind), {})


class RoleLayer:
    """Before one of peft's layers: the low-rank part of the role that acts."""

    roles: Roles
    base_layer: nn.Module
    lora_A: nn.ModuleDict  # noqa: N815 (the name in peft)
    lora_B: nn.ModuleDict  # noqa: N815
    lora_dropout: nn.ModuleDict
    scaling: dict[str, float]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = super()
        acting = self.roles.acting
        if kwargs or args or getattr(self, "lora_variant", None) or getattr(self, "merged", False):
            if acting != (POLICY,):
                raise ValueError(f"a layer that peft computes itself has one role only, and {acting} was asked of it")
            return base.forward(x, *args, **kwargs)
        out = self.base_layer(x)
        if getattr(self, "disable_adapters", False):
            return out
        if len(acting) == 1:
            return self.add(out, x, acting[0])
        lengths = self.roles.lengths(x.shape[1])
        stretches = zip(out.split(lengths, 1), x.split(lengths, 1), acting, strict=True)
        if torch.is_grad_enabled():
            return torch.cat([self.add(part.clone(), given, name) for part, given, name in stretches], 1)
        for part, given, name in stretches:
            self.add(part, given, name)
        return out

    def add(self, out: Tensor, x: Tensor, name: str | None) -> Tensor:
        """`out` with the low-rank part of one role, in place."""
        if name is None or name not in self.lora_A:
            return out
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        return _AddLowRank.apply(out, self.lora_dropout[name](x), a, b, self.scaling[name])


class _AddLowRank(torch.autograd.Function):
    """out + scale · (x A^T) B^T, in place; out [.., F], x [.., I], A [r, I], B [F, r].

    Adapters wider than the activations are rounded to them first, as everything else that meets them is.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.mark_dirty(out)
        rows, narrow_a, narrow_b = x.flatten(0, -2), a.to(x.dtype), b.to(x.dtype)
        inner = F.linear(rows, narrow_a).mul_(scale)
        out.flatten(0, -2).addmm_(inner, narrow_b.t())
        ctx.save_for_backward(rows, a, b, inner)
        ctx.scale, ctx.shape = scale, x.shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, a, b, inner = ctx.saved_tensors
        (grad,) = grads
        flat = grad.reshape(-1, grad.shape[-1])
        back = (flat @ b.to(flat.dtype)).mul_(ctx.scale)
        for_x, for_a, for_b = ctx.needs_input_grad[1:4]
        return (
            grad,
            (back @ a.to(flat.dtype)).view(ctx.shape) if for_x else None,
            (back.t() @ rows).to(a.dtype) if for_a else None,
            (flat.t() @ inner).to(b.dtype) if for_b else None,
            None,
        )


def role_tensors(model: nn.Module, name: str = POLICY) -> dict[str, Tensor]:
    """The adapter of a role: `<layer>.A` and `<layer>.B`, layers named as they are in the trunk."""
    found = {}
    for path, layer in _layers(model):
        if name in layer.lora_A:
            found[f"{path}.A"] = layer.lora_A[name].weight.detach()
            found[f"{path}.B"] = layer.lora_B[name].weight.detach()
    return found


@torch.no_grad()
def set_role(model: nn.Module, tensors: dict[str, Tensor], name: str = POLICY) -> None:
    """Give the role's adapter the values of `role_tensors`. ValueError when they are of another model or settings."""
    own = role_tensors(model, name)
    if own.keys() != tensors.keys() or any(own[key].shape != tensors[key].shape for key in own):
        raise ValueError(
            f"the adapter has {len(tensors)} tensors that differ in name or shape from the {len(own)} here"
        )
    for key, tensor in tensors.items():
        own[key].copy_(tensor)


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, layer in transformer(model).base_model.named_modules():
        if isinstance(layer, LoraLayer):
            yield path, layer
