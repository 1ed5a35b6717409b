"""Ragged batches laid out as the one row of tokens that a model reads."""

from dataclasses import replace

import torch
from torch import Tensor

from keel.batch.types import Packed, TokenBatch


def pack(batch: TokenBatch) -> Packed:
    """The batch as a single row: each prompt once, its responses behind it, nothing padded.

    A response continues its prompt's positions. Its first token is predicted by the prompt's last token; with an empty
    prompt nothing predicts it, and its `source` is -1.
    """
    prompt_lengths, response_lengths = batch.prompt_lengths, batch.response_lengths
    owner = batch.prompt_of_response
    behind_prompts = batch.tokens_per_prompt().cumsum(0)
    prompt_starts = behind_prompts - batch.tokens_per_prompt()
    response_starts = response_lengths.cumsum(0) - response_lengths + prompt_lengths.cumsum(0)[owner]

    prompt_index, prompt_offsets = _spread(prompt_starts, prompt_lengths)
    response_index, response_offsets = _spread(response_starts, response_lengths)
    tokens = batch.prompt_tokens.new_empty(len(prompt_index) + len(response_index))
    positions, states = torch.empty_like(tokens), None
    tokens[prompt_index] = batch.prompt_tokens
    tokens[response_index] = batch.response_tokens
    positions[prompt_index] = prompt_offsets
    positions[response_index] = response_offsets + torch.repeat_interleave(prompt_lengths[owner], response_lengths)

    if batch.prompt_states is not None and batch.response_states is not None:
        states = batch.prompt_states.new_empty((len(tokens), batch.prompt_states.shape[1]))
        states[prompt_index], states[response_index] = batch.prompt_states, batch.response_states

    source = response_index - 1
    before = torch.where(prompt_lengths > 0, prompt_starts + prompt_lengths - 1, -1)
    source[response_lengths.cumsum(0) - response_lengths] = before[owner]
    return Packed(
        tokens=tokens,
        positions=positions,
        layout=_layout(batch),
        source=source,
        target=batch.response_tokens,
        last=response_starts + response_lengths - 1,
        prompt_index=prompt_index,
        response_index=response_index,
        states=states,
    )


def repeated(packed: Packed, times: int) -> Packed:
    """The row `times` over, each copy behind the one before; only what the forward pass reads counts through."""
    return replace(
        packed,
        tokens=packed.tokens.repeat(times),
        positions=packed.positions.repeat(times),
        layout=packed.layout * times,
        states=None if packed.states is None else packed.states.repeat(times, 1),
    )


def _spread(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of all elements of the segments [start, start + length), and each element's offset in its segment."""
    before = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    offsets = torch.arange(len(before), device=before.device) - before
    return torch.repeat_interleave(starts, lengths) + offsets, offsets


def _layout(batch: TokenBatch) -> tuple[tuple[int, tuple[int, ...]], ...]:
    lengths: list[int] = batch.response_lengths.tolist()
    layout, at = [], 0
    for prompt_length, fanout in zip(batch.prompt_lengths.tolist(), batch.fanout.tolist(), strict=True):
        layout.append((prompt_length, tuple(lengths[at : at + fanout])))
        at += fanout
    return tuple(layout)
