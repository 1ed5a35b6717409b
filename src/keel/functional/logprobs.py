"""Log-probabilities of tokens straight from hidden states, without the [tokens x vocabulary] table.

Logits are computed for some rows at a time in one reused buffer. What the gradient needs is saved in the cheapest of
three ways, chosen from what is trained and what fits:

    all logits fit one tile        the tile itself, softmax minus one-hot   2 more matrix products in the backward
    the output weight is frozen    d logprob / d hidden, [R, H]             0 more, 1 in the forward
    otherwise                      nothing                                  3 more, the logits are computed again

so that a step costs as much as `log_softmax` and its backward, or less, while never holding more than a tile.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_BYTES = 64 * 2**20
"""Bytes of logits held at a time when `tile` is "auto"."""


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    tile: int | Literal["auto"] = "auto",
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The log-probability of each row's target [R], and if `with_entropy` each row's entropy in nats [R].

    The distribution is softmax(cap(logit_scale * (hidden @ weight.T + bias)) / temperature), where cap(z) is
    softcap * tanh(z / softcap) (Gemma 2, arXiv 2408.00118, sec. 2) or z without one. hidden [R, H], weight [V, H],
    bias [V], targets [R] int64. `tile` is how many rows of logits are held at a time; "auto" takes as many as fit
    TILE_BYTES.

    Results are float32 (float64 for float64 inputs): half-precision logits are widened before the softmax. Gradients
    reach hidden, weight and bias, from the log-probabilities (onehot_j - p_j) and from the entropy, -p_j (log p_j + H);
    an entropy that is only reported costs no gradient.
    """
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"hidden [R, H] and weight [V, H] disagree: {list(hidden.shape)} and {list(weight.shape)}")
    if targets.shape != hidden.shape[:1]:
        raise ValueError(f"targets {list(targets.shape)} must be one for each of the {len(hidden)} rows of hidden")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, found {temperature}")
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else torch.promote_types(hidden.dtype, weight.dtype)
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    head = _Head(temperature, softcap, logit_scale)
    wide = torch.promote_types(dtype, torch.float32)
    rows = max(1, TILE_BYTES // (weight.shape[0] * wide.itemsize)) if tile == "auto" else tile
    rows = max(1, min(rows, len(hidden)))
    trained = (hidden, weight) if bias is None else (hidden, weight, bias)
    differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in trained)
    compute = _TokenLogprobs.apply if differentiable else _evaluate
    with torch.autocast(device, enabled=False):
        logprobs, entropy = compute(hidden, weight, bias, targets, head, rows, with_entropy)
    return logprobs, entropy


@dataclass(frozen=True, slots=True)
class _Head:
    """From hidden states to logits."""

    temperature: float
    softcap: float | None
    logit_scale: float

    @property
    def scale(self) -> float:
        """Derivative of the logits for hidden @ weight.T + bias, apart from the soft cap."""
        return self.logit_scale / self.temperature

    def cap_(self, z: Tensor) -> Tensor:
        """Scale, cap and heat `z` in place."""
        if self.softcap is not None:
            return z.mul_(self.logit_scale / self.softcap).tanh_().mul_(self.softcap / self.temperature)
        return z if self.scale == 1.0 else z.mul_(self.scale)

    def slope(self, z: Tensor) -> Tensor | None:
        """Derivative of the soft cap where its outcome is `z`; None without one."""
        return None if self.softcap is None else 1.0 - (z * (self.temperature / self.softcap)).square_()


class _Tiles:
    """Passes over the rows, a tile at a time, in one buffer, or two when entropies are wanted."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: _Head, rows: int, two: bool
    ) -> None:
        self.hidden, self.weight, self.bias, self.targets, self.head = hidden, weight, bias, targets, head
        self.wide = torch.promote_types(hidden.dtype, torch.float32)
        self.buffer = torch.empty(rows, weight.shape[0], dtype=self.wide, device=hidden.device)
        self.second = torch.empty_like(self.buffer) if two else self.buffer
        self.parts = [slice(start, start + rows) for start in range(0, len(hidden), rows)]

    def logits(self, part: slice) -> Tensor:
        """[rows, V] in the buffer."""
        hidden = self.hidden[part]
        z = self.buffer[: len(hidden)]
        if hidden.dtype == z.dtype:
            torch.mm(hidden, self.weight.t(), out=z)
        else:
            z.copy_(hidden @ self.weight.t())
        return self.head.cap_(z if self.bias is None else z.add_(self.bias))

    def softmax(self, z: Tensor) -> Tensor:
        """Softmax of `z` in the second buffer, or over `z` if there is but one: a row is read before it is written."""
        return torch.softmax(z, 1, out=self.second[: len(z)])

    def reduce(self, part: slice, z: Tensor, logprobs: Tensor, entropy: Tensor | None) -> Tensor:
        """Fill `logprobs` and `entropy` at `part`. Returns softmax(z); overwrites `z`.

        The greatest logit and the greatest probability together give the normaliser to full precision.
        """
        logprobs[part] = z.gather(1, self.targets[part, None]).squeeze(1)
        peak = z.amax(1)
        p = self.softmax(z)
        log_total = -p.amax(1).log()
        logprobs[part] -= peak + log_total
        if entropy is not None:
            entropy[part] = log_total - z.sub_(peak[:, None]).mul_(p).sum(1)
        return p

    def slopes_(self, part: slice, p: Tensor, slope: Tensor | None) -> Tensor:
        """-d logprob / d logits = softmax - onehot, [rows, V] in the dtype of the matrix products; overwrites `p`.

        The one-hot is taken off before rounding, so that a nearly certain token keeps its small gradient in bfloat16.
        """
        index = self.targets[part, None]
        table = p.scatter_add_(1, index, p.new_full(index.shape, -1.0))
        return (table if slope is None else table.mul_(slope)).to(self.hidden.dtype)

    def plain_slopes(self, part: slice) -> Tensor:
        """`slopes_` from logits that are computed again."""
        z = self.logits(part)
        slope = self.head.slope(z)
        return self.slopes_(part, self.softmax(z), slope)

    def mixed_slopes(self, part: slice, entropy: Tensor, grad_logprobs: Tensor, grad_entropy: Tensor) -> Tensor:
        """-d loss / d logits of a loss that uses the entropy too, from logits that are computed again."""
        z = self.logits(part)
        slope = self.head.slope(z)
        p = self.softmax(z)
        log_p = z.sub_((z.amax(1) - p.amax(1).log())[:, None])
        pull = log_p.add_(entropy[part, None]).mul_(grad_entropy[part, None]).add_(grad_logprobs[part, None])
        table = p.mul_(pull).scatter_add_(1, self.targets[part, None], -grad_logprobs[part, None])
        return (table if slope is None else table.mul_(slope)).to(self.hidden.dtype)


def _evaluate(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, head: _Head, rows: int, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities and entropies, without a gradient."""
    tiles = _Tiles(hidden, weight, bias, targets, head, rows, with_entropy)
    logprobs = torch.empty(len(hidden), dtype=tiles.wide, device=hidden.device)
    entropy = torch.empty_like(logprobs) if with_entropy else None
    for part in tiles.parts:
        tiles.reduce(part, tiles.logits(part), logprobs, entropy)
    return logprobs, entropy


class _TokenLogprobs(torch.autograd.Function):
    """`_evaluate` with its own backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        head: _Head,
        rows: int,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        tiles = _Tiles(hidden, weight, bias, targets, head, rows, with_entropy)
        logprobs = torch.empty(len(hidden), dtype=tiles.wide, device=hidden.device)
        entropy = torch.empty_like(logprobs) if with_entropy else None
        frozen = not any(ctx.needs_input_grad[1:3])
        unit = torch.empty_like(hidden) if frozen else None  # d logprob / d hidden
        kept = None  # slopes of the only tile
        for part in tiles.parts:
            z = tiles.logits(part)
            slope = head.slope(z)
            p = tiles.reduce(part, z, logprobs, entropy)
            if unit is not None:
                unit[part] = (tiles.slopes_(part, p, slope) @ weight).mul_(-head.scale)
            elif len(tiles.parts) == 1:
                kept = tiles.slopes_(part, p, slope)
        ctx.head, ctx.rows = head, rows
        ctx.save_for_backward(hidden, weight, bias, targets, entropy, unit, kept)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # pyrefly: ignore[bad-override]
        hidden, weight, bias, targets, entropy, unit, kept = ctx.saved_tensors
        grad_logprobs, grad_entropy = grad_outputs
        if grad_logprobs is None:
            grad_logprobs = targets.new_zeros(targets.shape, dtype=torch.promote_types(hidden.dtype, torch.float32))
        if grad_entropy is not None and not grad_entropy.any():
            grad_entropy = None  # a bonus with coefficient 0
        if unit is not None and grad_entropy is None:
            return (unit * grad_logprobs[:, None]).to(hidden.dtype), *[None] * 6
        for_hidden, for_weight, for_bias = ctx.needs_input_grad[:3]
        tiles = _Tiles(hidden, weight, bias, targets, ctx.head, ctx.rows, grad_entropy is not None)
        d_hidden = torch.empty_like(hidden) if for_hidden else None
        d_weight = torch.zeros_like(weight, dtype=tiles.wide) if for_weight else None
        d_bias = torch.zeros_like(bias, dtype=tiles.wide) if for_bias else None
        for part in tiles.parts:
            # d loss / d (hidden @ weight.T + bias) is diag(row) @ table; row goes into the thin factors
            if grad_entropy is None:
                table = tiles.plain_slopes(part) if kept is None else kept
                row = grad_logprobs[part, None] * -ctx.head.scale
            else:
                table = tiles.mixed_slopes(part, entropy, grad_logprobs, grad_entropy)
                row = torch.full_like(grad_logprobs[part, None], -ctx.head.scale)
            if d_hidden is not None:
                d_hidden[part] = (table @ weight) * row
            if d_weight is not None:
                pulled = (hidden[part] * row).to(hidden.dtype)
                if d_weight.dtype == pulled.dtype:
                    d_weight.addmm_(table.t(), pulled)
                else:
                    d_weight.add_(table.t() @ pulled)
            if d_bias is not None:
                d_bias.add_((table * row).sum(0))
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            *[None] * 4,
        )
