"""Norms and gated feed-forward parts in a few passes over memory, in place of transformers' many.

Which modules they are is not read off their names: a module is replaced when it has the parts, and a copy of it in
float32 answers as the replacement does, far from zero and near it.
"""

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

TOLERANCE = 1e-5  # relative to the largest answer
PROBE_TOKENS, PROBE_SIZE = 5, 8
CANNOT = (TypeError, ValueError, RuntimeError, AttributeError, IndexError)  # what another kind of module raises


@torch.no_grad()
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
        trial = copy.deepcopy(module).float()
        # With a mean, which tells it from a layer norm, and so small that it matters where eps stands.
        probes = [_probe(trial.weight.shape[0], trial.weight.device, scale) for scale in (1.0, max(eps, 1e-12) ** 0.5)]
        for offset in (0.0, 1.0):
            if all(_same(trial, x, _RMSNorm.apply(x, trial.weight, eps, offset)) for x in probes):
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
        names = ("gate_proj", "up_proj", "down_proj")
        if not all(isinstance(getattr(module, name, None), nn.Linear) for name in names):
            return False
        if {name for name, _ in module.named_parameters()} - {
            f"{n}.{kind}" for n in names for kind in ("weight", "bias")
        }:
            return False
        trial = copy.copy(module)  # the same forward over small layers, whatever the size and dtype of its own
        trial._modules = dict(module._modules)
        device = next(module.parameters()).device
        for seed, name in enumerate(names):
            layer: Any = nn.utils.skip_init(nn.Linear, PROBE_SIZE, PROBE_SIZE, bias=False, device=device)
            layer.weight.copy_(_probe(PROBE_SIZE, device, 1.0, seed + 1, PROBE_SIZE)[0])
            trial._modules[name] = layer
        gate, up, down = (trial._modules[name] for name in names)
        for scale in (0.1, 1.0, 4.0):  # where activations differ
            x = _probe(PROBE_SIZE, device, scale)
            if not _same(trial, x, down(F.silu(gate(x)) * up(x))):
                return False
        return True

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(_SiLUProduct.apply(self.gate_proj(x), self.up_proj(x)))


def _probe(size: int, device: torch.device, scale: float, seed: int = 0, tokens: int = PROBE_TOKENS) -> Tensor:
    """[1, tokens, size], the same every time; no random stream of the run is touched."""
    drawn = torch.randn(1, tokens, size, generator=torch.Generator().manual_seed(seed))
    return ((drawn + 0.5) * scale).to(device)


def _same(module: Any, x: Tensor, found: Tensor) -> bool:
    """Whether `module` answers `x` with `found`."""
    try:
        expected = module(x)
    except CANNOT:
        return False
    if not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


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
