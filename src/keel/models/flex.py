"""Attention of a packed row in one kernel, for CUDA: PyTorch's flex_attention, told who sees whom.

What a token sees is one or two stretches of the row: what was said before it in its own segment, and, when another
response stands between, its prompt. So a mask is three numbers a token, a window only moves them, and which blocks of
the score matrix hold anything follows from them without making that matrix. Shared prompts are neither repeated nor
padded, and one compiled kernel serves all layouts.

`plan_for` chooses between this and the buckets of `keel.models.plan`.
"""

import os
import warnings
from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from keel.core.errors import ArtifactError, ConfigError
from keel.models.attention import Plan
from keel.models.plan import Layout, PackedPlan

Kind = Literal["flex", "buckets"]
KINDS: tuple[Kind, ...] = ("flex", "buckets")
VARIABLE = "KEEL_ATTENTION"
"""Environment variable that overrides the choice of `plan_for`."""

BLOCK = 128  # tokens of a block on both sides of the score matrix, as the kernel has it
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # what the kernel multiplies
LEAST_HEAD = 16  # the narrowest head that it multiplies on CUDA
VARIANTS = 64  # compiled kernels a process may hold: one for each head shape, dtype, scale, cap, with gradient or not


def plan_for(layout: Layout, device: torch.device | str, kind: Kind | None = None) -> Plan:
    """How attention of this row is computed on `device`: "flex" on CUDA where Triton works, "buckets" elsewhere.

    `kind` decides it, else the environment variable KEEL_ATTENTION.
    """
    chosen = kind or os.environ.get(VARIABLE) or _default(torch.device(device).type)
    if chosen not in KINDS:
        raise ConfigError(f"{VARIABLE}={chosen} is unknown; expected one of {', '.join(KINDS)}, or leave it unset.")
    return FlexPlan(layout, device) if chosen == "flex" else PackedPlan(layout, device)


@cache
def _default(device_type: str) -> Kind:
    from torch.utils._triton import has_triton

    return "flex" if device_type == "cuda" and has_triton() else "buckets"


class Blocks(NamedTuple):
    """Which blocks of the score matrix are computed; n blocks a side, all int32.

    Seen from the queries, [1, 1, n] counts and [1, 1, n, n] indices of key blocks, then the same from the keys; those
    that the mask cuts, and those that are seen whole.
    """

    partial_counts: Tensor
    partial: Tensor
    full_counts: Tensor
    full: Tensor
    partial_query_counts: Tensor
    partial_queries: Tensor
    full_query_counts: Tensor
    full_queries: Tensor


class Sight(NamedTuple):
    """What each of N tokens sees, all [N] int32: from `own` up to itself, and from `prompt` up to `prompt_end`."""

    own: Tensor
    prompt: Tensor
    prompt_end: Tensor


class FlexPlan:
    """Attention of a packed row, in which each prompt with each of its responses is a document.

    flex_attention knows no dropout, float64, or (on CUDA) heads narrower than 16: `PackedPlan` computes those.
    """

    def __init__(self, layout: Layout, device: torch.device | str = "cpu") -> None:
        self.layout, self.device = layout, torch.device(device)
        self.segments = Sight(*(x.to(self.device) for x in _segments(layout)))
        self.masks: dict[int | None, tuple[Sight, Blocks]] = {}
        self.kernel: Callable[..., Tensor] = _compiled() if self.device.type == "cuda" else _attend
        self.buckets: PackedPlan | None = None

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float | None,
        dropout: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """Attention output [T, heads * d]: each token over what its document said before it."""
        narrow = query.is_cuda and min(query.shape[2], value.shape[2]) < LEAST_HEAD
        if dropout or narrow or query.dtype not in DTYPES:
            self.buckets = self.buckets or PackedPlan(self.layout, self.device)
            return self.buckets.attend(
                layer, query, key, value, scale=scale, dropout=dropout, window=window, softcap=softcap
            )
        if window not in self.masks:
            self.masks[window] = _mask(self.segments, window)
        sight, blocks = self.masks[window]
        tokens = len(query)
        fill = (0, 0, 0, 0, 0, len(sight.own) - tokens)
        q, k, v = (F.pad(x, fill).transpose(0, 1)[None] for x in (query, key, value))
        for x in (q, k, v):
            torch._dynamo.maybe_mark_dynamic(x, 2)
        scale = query.shape[2] ** -0.5 if scale is None else scale
        try:
            with torch._dynamo.config.patch(specialize_float=True, recompile_limit=VARIANTS):
                out = self.kernel(q, k, v, sight, blocks, scale, softcap)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ArtifactError(
                f"attention of {query.shape[1]} heads of {query.shape[2]} in {query.dtype} could not be compiled for "
                f"this GPU: {error}. Set the environment variable {VARIABLE}=buckets to compute it without a kernel "
                "of its own."
            ) from error
        return out[0].transpose(0, 1)[:tokens].flatten(1)


@cache
def _compiled() -> Callable[..., Tensor]:
    """The kernel, compiled when it is first called; an error where it cannot be, never the whole score matrix."""
    # It asks every input for its gradient, which torch warns of where that is not kept.
    warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor", module=r"torch\._dynamo")
    return torch.compile(_attend, fullgraph=True)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, sight: Sight, blocks: Blocks, scale: float, softcap: float | None
) -> Tensor:
    """[1, heads, N, d] attention of as many tokens as there are in all blocks."""
    tokens = query.shape[2]
    torch._check(tokens % BLOCK == 0)  # the kernel need not check its bounds then
    own, prompt, prompt_end = sight
    limit = 1.0 if softcap is None else softcap

    def seen(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ((k >= own[q]) & (k <= q)) | ((k >= prompt[q]) & (k < prompt_end[q]))

    def capped(score: Tensor, batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return limit * torch.tanh(score / limit)

    mask = BlockMask((tokens, tokens), *blocks, BLOCK_SIZE=(BLOCK, BLOCK), mask_mod=seen)
    out: Any = flex_attention(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out


def _segments(layout: Layout) -> Sight:
    """What each token sees without a window, on the CPU. A prompt with its first response is one segment.

    N is T padded to at least two blocks, so that one kernel serves all lengths; a token of padding is a segment of its
    own, so that no row of the score matrix is empty.
    """
    rows: list[tuple[int, int, int, int]] = []  # tokens, start, prompt start, prompt end
    at = 0
    for prompt_length, response_lengths in layout:
        start = at
        first, *further = response_lengths or (0,)
        rows.append((prompt_length + first, start, 0, 0))
        at += prompt_length + first
        for length in further:
            rows.append((length, at, start, start + prompt_length))
            at += length
    whole = max(2, -(-at // BLOCK)) * BLOCK
    rows.extend((1, place, 0, 0) for place in range(at, whole))
    tokens, *columns = torch.tensor(rows).unbind(1)
    return Sight(*(column.repeat_interleave(tokens).to(torch.int32) for column in columns))


def _mask(segments: Sight, window: int | None) -> tuple[Sight, Blocks]:
    """What each token sees of the nearest `window` positions, its own among them, and in which blocks that lies."""
    sight = segments
    if window is not None:
        own, prompt, prompt_end = segments
        nearest = torch.arange(1 - window, len(own) + 1 - window, dtype=torch.int32, device=own.device)
        between = own - prompt_end  # tokens of its siblings, which no window counts
        sight = Sight(torch.maximum(own, nearest), torch.maximum(prompt, nearest - between), prompt_end)
    blocks = _blocks(sight)
    for x in sight:
        torch._dynamo.maybe_mark_dynamic(x, 0)
    for x in blocks:
        torch._dynamo.maybe_mark_dynamic(x, tuple(range(2, x.dim())))
    return sight, blocks


def _blocks(sight: Sight) -> Blocks:
    """What the kernel computes: blocks in which some query sees some key, and those where all see all."""
    own, prompt, prompt_end = (x[:, None] for x in sight)
    here = torch.arange(len(own), dtype=torch.int32, device=own.device)[:, None]
    first = here[::BLOCK].T  # [1, n] the first key of each block
    last = first + BLOCK - 1
    some = (torch.maximum(own, first) <= torch.minimum(here, last)) | (
        torch.maximum(prompt, first) <= torch.minimum(prompt_end - 1, last)
    )
    every = ((own <= first) & (here >= last)) | ((prompt <= first) & (prompt_end > last))
    touched, whole = (x.view(-1, BLOCK, x.shape[1]) for x in (some, every))
    full = whole.all(1)
    partial = touched.any(1) & ~full
    return Blocks(*chain(_ordered(partial), _ordered(full), _ordered(partial.T), _ordered(full.T)))


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """From [n, n] booleans how many each row holds, [1, 1, n], and which, in front, [1, 1, n, n]; both int32."""
    order = blocks.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return blocks.sum(1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None].contiguous()
