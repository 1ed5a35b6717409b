"""Which document each token of a packed row belongs to, as index tensors made once and used by every layer.

A prompt with its first response is a document of its own: right-padded among documents of like length, it needs no
mask but causality. Each further response asks with its own tokens only and sees its prompt's keys beside its own, so
nothing of a prompt is asked twice. Documents of like size share a bucket, one attention call each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from keel.models.attention import additive, attention, causal_bias

Layout = Sequence[tuple[int, Sequence[int]]]  # (prompt length, lengths of its responses) for each prompt

WASTE = 0.05  # padding that a bucket may add, as a share of the query-key pairs it needs
FREE_PAIRS = 4096  # query-key pairs per head that cost less than one more attention call


class Document(NamedTuple):
    """Where a prompt and one of its responses lie in the row."""

    prompt_start: int
    prompt_length: int
    response_start: int
    response_length: int

    @property
    def length(self) -> int:
        return self.prompt_length + self.response_length


@dataclass(slots=True)
class Bucket:
    """Documents padded to one size: `rows` of `queries` tokens that see up to `keys` tokens."""

    rows: int
    queries: int
    keys: int
    shift: Tensor | None  # [rows] position of the first query within its document; None where all are 0
    device: torch.device | str
    biases: dict[tuple[int | None, bool], Tensor | None] = field(default_factory=dict)

    def bias(self, window: int | None, explicit: bool, dtype: torch.dtype) -> Tensor | None:
        """What to add to the scores, [rows or 1, 1, queries, keys]; None where causality alone says it.

        A row has one dtype and a model few windows, so each bias is made once per forward pass.
        """
        made = (window if window is not None and window < self.keys else None, explicit)
        if made not in self.biases:
            self.biases[made] = self._bias(*made, dtype)
        return self.biases[made]

    def _bias(self, window: int | None, explicit: bool, dtype: torch.dtype) -> Tensor | None:
        if self.shift is None:
            return causal_bias(self.queries, self.keys, window, dtype, self.device) if window or explicit else None
        here = self.shift[:, None, None] + torch.arange(self.queries, device=self.device)[:, None]
        there = torch.arange(self.keys, device=self.device)
        mask = there <= here
        if window is not None:
            mask &= there > here - window
        return additive(mask, dtype)[:, None]


@dataclass(slots=True)
class Lookup:
    """Rows of a [T, F] tensor repeated or padded into a longer [N, F] one, and the way back."""

    take: Tensor  # [N] token of each row; padding takes token 0
    home: Tensor  # [T] the row that is each token's own
    again: Tensor  # [D] further rows that repeat a token
    again_token: Tensor  # [D] which token they repeat


class PackedPlan:
    """Attention of a packed row, where each prompt with each of its responses is a document."""

    def __init__(self, layout: Layout, device: torch.device | str = "cpu") -> None:
        own, further, total = _documents(layout)
        self.buckets: list[Bucket] = []
        queries: list[tuple[Tensor, Tensor, Tensor]] = []
        keys: list[tuple[Tensor, Tensor, Tensor]] = []
        for group in _groups(own, prompts=True):
            index, inside = _places(group, prompts=True)
            self.buckets.append(Bucket(len(group), index.shape[1], index.shape[1], None, device))
            queries.append((index, inside, inside))
            keys.append((index, inside, inside))
        for group in _groups(further, prompts=False):
            asked, inside_asked = _places(group, prompts=False)
            seen, inside_seen = _places(group, prompts=True)
            prompt_length = torch.tensor([document.prompt_length for document in group])
            shift = prompt_length.to(device)
            self.buckets.append(Bucket(len(group), asked.shape[1], seen.shape[1], shift, device))
            queries.append((asked, inside_asked, inside_asked))
            keys.append((seen, inside_seen, inside_seen & (torch.arange(seen.shape[1]) >= prompt_length[:, None])))
        self.queries = _lookup(queries, total, device)
        self.keys = _lookup(keys, total, device) if further else self.queries
        self.plain = len(self.buckets) == 1 and self.buckets[0].rows * self.buckets[0].queries == total

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
        outputs = []
        padded = (
            self._pad(query, self.queries, [b.queries for b in self.buckets]),
            self._pad(key, self.keys, [b.keys for b in self.buckets]),
            self._pad(value, self.keys, [b.keys for b in self.buckets]),
        )
        for bucket, q, k, v in zip(self.buckets, *padded, strict=True):
            bias = bucket.bias(window, softcap is not None, query.dtype)
            out = attention(q, k, v, bias, scale=scale, dropout=dropout, softcap=softcap)
            outputs.append(out.transpose(1, 2).reshape(bucket.rows * bucket.queries, -1))
        joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return joined if self.plain else _Return.apply(joined, self.queries)

    def _pad(self, x: Tensor, lookup: Lookup, widths: list[int]) -> list[Tensor]:
        """[T, heads, d] as one [rows, heads, width, d] for each bucket."""
        heads = x.shape[1:]
        flat = x.reshape(len(x), -1)
        taken = flat if self.plain else _Take.apply(flat, lookup)
        sizes = [b.rows * width for b, width in zip(self.buckets, widths, strict=True)]
        pieces = zip(self.buckets, widths, taken.split(sizes), strict=True)
        return [piece.view(b.rows, width, *heads).transpose(1, 2) for b, width, piece in pieces]


class _Take(torch.autograd.Function):
    """Rows by index; the gradient comes back by index too, which is several times faster than adding row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lookup: Lookup) -> Tensor:
        ctx.lookup = lookup
        return x.index_select(0, lookup.take)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        lookup: Lookup = ctx.lookup
        (grad,) = grads
        out = grad.index_select(0, lookup.home)
        if len(lookup.again):
            out.index_add_(0, lookup.again_token, grad.index_select(0, lookup.again))
        return out, None


class _Return(torch.autograd.Function):
    """Each token's own row; the gradient of padding and repeats is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, lookup: Lookup) -> Tensor:
        ctx.lookup = lookup
        return x.index_select(0, lookup.home)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        lookup: Lookup = ctx.lookup
        (grad,) = grads
        return grad.new_zeros(len(lookup.take), grad.shape[1]).index_copy_(0, lookup.home, grad), None


def _documents(layout: Layout) -> tuple[list[Document], list[Document], int]:
    """Documents that ask for their prompt, documents that only see it, and the tokens of the row."""
    own: list[Document] = []
    further: list[Document] = []
    at = 0
    for prompt_length, response_lengths in layout:
        prompt, at = at, at + prompt_length
        if not response_lengths:
            own.append(Document(prompt, prompt_length, at, 0))
        for number, length in enumerate(response_lengths):
            shares = number > 0 and prompt_length > 0
            (further if shares else own).append(Document(prompt, prompt_length, at, length))
            at += length
    return own, further, at


def _groups(documents: list[Document], *, prompts: bool) -> list[list[Document]]:
    """Documents of like size together, largest first; documents of one size keep their order."""
    groups: list[list[Document]] = []
    queries = keys = needed = 0
    for document in sorted(documents, key=lambda d: (d.length, d.response_length), reverse=True):
        asked = document.length if prompts else document.response_length
        queries, keys, needed = max(queries, asked), max(keys, document.length), needed + asked * document.length
        wasted = (len(groups[-1]) + 1) * queries * keys - needed if groups else 0
        if not groups or wasted > max(FREE_PAIRS, WASTE * needed):
            groups.append([])
            queries, keys, needed = asked, document.length, asked * document.length
        groups[-1].append(document)
    return groups


def _places(documents: list[Document], *, prompts: bool) -> tuple[Tensor, Tensor]:
    """Tokens of each document, [rows, longest] right-padded with token 0, and True where they are its own."""
    place = torch.tensor(documents)[:, :, None]
    prompt_start, prompt_length, response_start, response_length = place.unbind(1)
    if not prompts:
        prompt_length = torch.zeros_like(prompt_length)
    length = prompt_length + response_length
    column = torch.arange(int(length.max()))
    token = torch.where(column < prompt_length, prompt_start + column, response_start + column - prompt_length)
    inside = column < length
    return torch.where(inside, token, 0), inside


def _lookup(places: list[tuple[Tensor, Tensor, Tensor]], total: int, device: torch.device | str) -> Lookup:
    """From (tokens, real, own) of each bucket: where every one of the row's `total` tokens went."""
    take, real, own = (torch.cat([part.flatten() for part in parts]) for parts in zip(*places, strict=True))
    home = torch.empty(total, dtype=torch.int64)
    homes = own.nonzero().squeeze(1)
    home[take[homes]] = homes
    again = (real & ~own).nonzero().squeeze(1)
    return Lookup(*(part.to(device) for part in (take, home, again, take[again])))
