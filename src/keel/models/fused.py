"""Norms and gated feed-forward parts in a few passes over memory, in place of transformers' many.

Which modules they are is not read off their names: a module is replaced when it has the parts, and answers a random
input as the replacement does.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

TOLERANCE = 1e-5  # in float32, of answers of order 1
PROBE_TOKENS = 3


def fuse(trunk: nn.Module) -> None:
    """Replace what can be replaced in a transformers trunk; weights, names and answers stay."""
    for module in trunk.modules():
        if isinstance(module, FusedNorm | FusedMLP):
            continue
        for kind in (FusedNorm, FusedMLP):
            if kind.fits(module):
                module.__class__ = _fused(kind, type(module))
                break


@cache
def _fused(kind: type, own: type) -> type:
    return type(f"Fused{own.__name__}", (kind, own), {})


class FusedNorm:
    """y = x / sqrt(mean(x²) + eps) · (offset + weight) over the last dimension (Zhang & Sennrich 2019)."""

    weight: nn.Parameter
    keel_eps: float
    keel_offset: float

    @staticmethod
    def fits(module: Any) -> bool:
        eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not isinstance(eps, float) or [name for name, _ in module.named_parameters()] != ["weight"]:
            return False
        if module.weight.dim() != 1 or list(module.children()):
            return False
        x = _probe(module.weight)
        expected = module(x)
        for offset in (0.0, 1.0):
            if _same(_RMSNorm.apply(x, module.weight, eps, offset), expected):
                module.keel_eps, module.keel_offset = eps, offset
                return True
        return False

    def forward(self, hidden_states: Tensor) -> Tensor:
        return _RMSNorm.apply(hidden_states, self.weight, self.keel_eps, self.keel_offset)


class FusedMLP:
    """y = W_down (silu(W_gate x) · W_up x) (SwiGLU, Shazeer 2020)."""

    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    @staticmethod
    def fits(module: Any) -> bool:
        parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        linear = [part for part in parts if isinstance(part, nn.Linear)]
        if len(linear) < len(parts):
            return False
        gate, up, down = linear
        x = _probe(next(gate.parameters()), gate.in_features)
        with torch.no_grad():
            return _same(down(F.silu(gate(x)) * up(x)), module(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(_SiLUProduct.apply(self.gate_proj(x), self.up_proj(x)))


def _probe(like: Tensor, size: int | None = None) -> Tensor:
    """[1, tokens, size] of order 1, the same every time; no random stream of the run is touched."""
    size = like.shape[-1] if size is None else size
    made = torch.randn(1, PROBE_TOKENS, size, generator=torch.Generator().manual_seed(0))
    return made.to(like.device, like.dtype if like.is_floating_point() else torch.float32)


def _same(found: Tensor, expected: Any) -> bool:
    if not isinstance(expected, Tensor) or found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    rounding = TOLERANCE if found.dtype == torch.float32 else 2.0**-6
    return bool(((found - expected).abs() <= rounding * (1 + expected.abs())).all())


class _RMSNorm(torch.autograd.Function):
    """In float32 whatever the input; keeps the input and one number a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        wide = x.float()
        inverse = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        ctx.offset = offset
        return (wide * inverse).mul_(_scale(weight, offset)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        x, weight, inverse = ctx.saved_tensors
        wide, grad, scale = x.float(), grads[0].float(), _scale(weight, ctx.offset)
        product = grad * wide
        rows, inverses = product.reshape(-1, product.shape[-1]), inverse.reshape(-1, 1)
        d_weight = (inverses.t() @ rows)[0].to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, d_weight, None, None
        pull = (rows @ scale).view_as(inverse).mul_(inverse.pow(3)).div_(-x.shape[-1])
        d_x = torch.mul(grad, scale, out=product).mul_(inverse).addcmul_(wide, pull)
        return d_x.to(x.dtype), d_weight, None, None


def _scale(weight: Tensor, offset: float) -> Tensor:
    return weight.float() + offset if offset else weight.float()


class _SiLUProduct(torch.autograd.Function):
    """silu(gate) · up; keeps the two inputs only."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:  # pyrefly: ignore[bad-override]
        gate, up = ctx.saved_tensors
        (grad,) = grads
        return torch.ops.aten.silu_backward(grad * up, gate), F.silu(gate).mul_(grad)
