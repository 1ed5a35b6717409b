"""Token lists in, typed batches out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from keel.batch.types import PairBatch, RatingBatch, TokenBatch, widen


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedResponse:
    """A response as token ids, and which of them count as its own."""

    tokens: Sequence[int]
    mask: Sequence[bool] | None = None
    """None counts every token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPair:
    """A comparison as token ids."""

    prompt: Sequence[int]
    a: Sequence[int]
    b: Sequence[int]
    preference: float
    weight: float = 1.0
    margin: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedRating:
    """A rated response as token ids, and an `unrelated` one, the response to another prompt."""

    prompt: Sequence[int]
    response: Sequence[int]
    unrelated: Sequence[int]
    desirable: float
    weight: float = 1.0


def token_batch(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[EncodedResponse]]) -> TokenBatch:
    """Each prompt with its responses."""
    return TokenBatch(**token_fields(prompts, responses))


def pair_batch(pairs: Sequence[EncodedPair]) -> PairBatch:
    """Each prompt with its two responses, a first."""
    responses = [(EncodedResponse(tokens=p.a), EncodedResponse(tokens=p.b)) for p in pairs]
    return PairBatch(
        **token_fields([p.prompt for p in pairs], responses),
        preference=torch.tensor([p.preference for p in pairs], dtype=torch.float32),
        weight=torch.tensor([p.weight for p in pairs], dtype=torch.float32),
        margin=torch.tensor([p.margin for p in pairs], dtype=torch.float32),
    )


def rating_batch(ratings: Sequence[EncodedRating], ref_logprobs: Tensor) -> RatingBatch:
    """Each prompt with its rated response and the unrelated one; `ref_logprobs` [2P] are of both, in this order."""
    responses = [(EncodedResponse(tokens=r.response), EncodedResponse(tokens=r.unrelated)) for r in ratings]
    return widen(
        token_batch([r.prompt for r in ratings], responses),
        RatingBatch,
        desirable=torch.tensor([r.desirable for r in ratings], dtype=torch.float32),
        weight=torch.tensor([r.weight for r in ratings], dtype=torch.float32),
        sequence_ref_logprobs=ref_logprobs,
    )


def token_fields(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[EncodedResponse]]) -> dict[str, Tensor]:
    """The fields of a TokenBatch."""
    flat = [response for group in responses for response in group]
    masks = [r.mask if r.mask is not None else [True] * len(r.tokens) for r in flat]
    return {
        "prompt_lengths": torch.tensor([len(p) for p in prompts], dtype=torch.int64),
        "fanout": torch.tensor([len(group) for group in responses], dtype=torch.int64),
        "prompt_tokens": torch.tensor([t for p in prompts for t in p], dtype=torch.int64),
        "response_lengths": torch.tensor([len(r.tokens) for r in flat], dtype=torch.int64),
        "response_tokens": torch.tensor([t for r in flat for t in r.tokens], dtype=torch.int64),
        "response_mask": torch.tensor([m for mask in masks for m in mask], dtype=torch.bool),
    }
