"""One attention function for every decoder: transformers' registry calls it, a plan tells it who sees whom.

A model whose attention is `keel_packed` behaves like plain transformers until its forward pass is handed a `plan`
keyword. Then the plan computes the attention: `keel.models.plan` for rows of documents, `keel.models.flex` for them on
CUDA, `keel.models.generate` for one new token a row.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from keel.core.errors import ArtifactError

NAME = "keel_packed"


class Plan(Protocol):
    """What one forward pass knows about its tokens."""

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
        """Attention output [T, heads * d] of query [T, heads, d], key and value [T, kv_heads, d]."""
        ...


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    plan: Plan | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """What the registry calls in each layer; query is [1, heads, T, d], the output [1, T, heads, d]."""
    for name in ("s_aux", "position_bias"):
        if extras.get(name) is not None:
            raise ArtifactError(
                f"{type(module).__name__} uses attention with {name}, which keel does not compute. "
                "Choose a model with plain (grouped-query, sliding-window or soft-capped) attention."
            )
    if not getattr(module, "is_causal", True):
        raise ArtifactError(
            f"{type(module).__name__} looks ahead; keel trains decoders, whose tokens see the past only."
        )
    if plan is None:
        if attention_mask is None and query.shape[2] > 1:  # an empty static cache: its unwritten end is no key
            key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
        bias = None if attention_mask is None else additive(attention_mask, query.dtype)
        out = attention(query, key, value, bias, scale=scaling, dropout=dropout, softcap=softcap)
        return out.transpose(1, 2).contiguous(), None
    rows = [x.squeeze(0).transpose(0, 1) for x in (query, key, value)]
    layer = getattr(module, "layer_idx", 0)
    out = plan.attend(layer, *rows, scale=scaling, dropout=dropout, window=sliding_window, softcap=softcap)
    return out.view(1, query.shape[2], query.shape[1], -1), None


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    *,
    scale: float | None,
    dropout: float = 0.0,
    softcap: float | None = None,
) -> Tensor:
    """Grouped-query attention of [S, heads, Tq, d] over [S, kv_heads, Tk, d]; causal where `bias` is None.

    `bias` is added to the scaled and soft-capped scores; it broadcasts to [S, heads, Tq, Tk].
    """
    queries = query.shape[2]
    if softcap is None:
        grouped = query.shape[1] != key.shape[1]
        if grouped and bias is not None and query.device.type != "cpu":
            repeats = query.shape[1] // key.shape[1]  # the fused masked kernels want equal heads
            key, value, grouped = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1), False
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            dropout_p=dropout,
            is_causal=bias is None and queries > 1,
            scale=scale,
            enable_gqa=grouped,
        )
    if bias is None and queries > 1:
        bias = causal_bias(queries, key.shape[2], None, query.dtype, query.device)
    shape = (query.shape[0], key.shape[1], -1, queries, query.shape[3])
    scores = query.reshape(shape) @ key.unsqueeze(2).transpose(3, 4)
    scores = softcap * torch.tanh(scores * (scale or query.shape[3] ** -0.5) / softcap)
    if bias is not None:
        scores = scores + bias.unsqueeze(1)
    weights = F.dropout(scores.softmax(-1, dtype=torch.float32).to(value.dtype), dropout)
    return (weights @ value.unsqueeze(2)).flatten(1, 2)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a boolean mask is True, the least finite number elsewhere; other masks pass through in this dtype.

    Finite, so that a query of padding that may see nothing gets an average instead of nan.
    """
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def causal_bias(queries: int, keys: int, window: int | None, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """[1, 1, queries, keys]: 0 where a token may look, the last query standing at the last key."""
    here = torch.arange(keys - queries, keys, device=device)[:, None]
    there = torch.arange(keys, device=device)
    mask = there <= here
    if window is not None:
        mask &= there > here - window
    return additive(mask, dtype)[None, None]
