"""Ragged batches: prompts with branches, no padding anywhere.

A batch holds P prompts and S responses; the responses of a prompt are adjacent, `fanout[p]` of them. Tokens lie end to
end in flat tensors, lengths beside them. Every field lives on one of four axes, declared where the field is declared:

    per_prompt          [P]                 one value a prompt
    per_response        [S]                 one value a response
    per_prompt_token    [sum of prompt lengths]
    per_response_token  [R], R = sum of response lengths

so that `rows` can pick prompts (with all their responses) from any batch type, present or future.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

AXIS = "axis"
per_prompt: Any = partial(field, metadata={AXIS: "prompt"})
per_response: Any = partial(field, metadata={AXIS: "response"})
per_prompt_token: Any = partial(field, metadata={AXIS: "prompt_token"})
per_response_token: Any = partial(field, metadata={AXIS: "response_token"})

Wide = TypeVar("Wide", bound="TokenBatch")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Prompts and their responses as token ids."""

    prompt_lengths: Tensor = per_prompt()  # [P] int64, may be 0 (plain documents)
    fanout: Tensor = per_prompt()  # [P] int64, responses of each prompt
    prompt_tokens: Tensor = per_prompt_token()  # int64
    response_lengths: Tensor = per_response()  # [S] int64, at least 1
    response_tokens: Tensor = per_response_token()  # [R] int64
    response_mask: Tensor = per_response_token()  # [R] bool, True where a token counts as the response's own
    prompt_states: Tensor | None = per_prompt_token(default=None)  # [.., H] of the layers that a shared trunk has run
    response_states: Tensor | None = per_response_token(default=None)  # [R, H]

    def __len__(self) -> int:
        """Prompts in the batch."""
        return len(self.prompt_lengths)

    @property
    def device(self) -> torch.device:
        return self.prompt_lengths.device

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        return type(self)(**{name: tensor.to(device) for name, tensor in self._tensors()})

    def with_states(self, prompt_states: Tensor, response_states: Tensor) -> Self:
        """The same batch, with what the shared layers say of each prompt token and each response token."""
        return replace(self, prompt_states=prompt_states, response_states=response_states)

    def _tensors(self) -> list[tuple[str, Tensor]]:
        """Fields that are there, by name."""
        return [(f.name, tensor) for f in fields(self) if (tensor := getattr(self, f.name)) is not None]

    @property
    def num_responses(self) -> int:
        return len(self.response_lengths)

    @property
    def prompt_of_response(self) -> Tensor:
        """[S] which prompt each response answers."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.device), self.fanout)

    @property
    def response_of_token(self) -> Tensor:
        """[R] which response each response token belongs to."""
        return torch.repeat_interleave(torch.arange(self.num_responses, device=self.device), self.response_lengths)

    def tokens_per_prompt(self) -> Tensor:
        """[P] tokens that a forward pass over the prompt and all its responses computes (the prompt once)."""
        owned = torch.zeros_like(self.prompt_lengths)
        return owned.index_add(0, self.prompt_of_response, self.response_lengths) + self.prompt_lengths

    def rows(self, index: Tensor | slice) -> Self:
        """The same kind of batch, only these prompts (in this order) with all their responses."""
        prompts = torch.arange(len(self), device=self.device)[index]
        return self._picked(prompts, expand(prompts, self.fanout))

    def only(self, responses: Tensor) -> Self:
        """The same prompts with only these of their responses, given by their places in ascending order."""
        fanout = torch.bincount(self.prompt_of_response[responses], minlength=len(self))
        return replace(self._picked(torch.arange(len(self), device=self.device), responses), fanout=fanout)

    def _picked(self, prompts: Tensor, responses: Tensor) -> Self:
        picks = {
            "prompt": prompts,
            "response": responses,
            "prompt_token": expand(prompts, self.prompt_lengths),
            "response_token": expand(responses, self.response_lengths),
        }
        axes = {f.name: f.metadata[AXIS] for f in fields(self)}
        return type(self)(**{name: tensor[picks[axes[name]]] for name, tensor in self._tensors()})

    def sum_per_response(self, values: Tensor) -> Tensor:
        """[S] sums of per-response-token `values` [R] where `response_mask` is True."""
        kept = values.masked_fill(~self.response_mask, 0)
        return values.new_zeros(self.num_responses).index_add(0, self.response_of_token, kept)

    def padded(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """[S, T] right-padded view of per-response-token `values` [R]."""
        index, inside = self.padded_index()
        out = values.new_full(index.shape, fill)
        out[inside] = values
        return out

    def flat(self, padded: Tensor) -> Tensor:
        """[R] response tokens out of a right-padded [S, T] tensor: the inverse of `padded`."""
        return padded[self.padded_index()[1]]

    def padded_index(self) -> tuple[Tensor, Tensor]:
        """[S, T] column numbers, and [S, T] bool that is True inside each response."""
        width = int(self.response_lengths.max()) if self.num_responses else 0
        columns = torch.arange(width, device=self.device).expand(self.num_responses, width)
        return columns, columns < self.response_lengths[:, None]


def expand(index: Tensor, lengths: Tensor) -> Tensor:
    """Positions of the elements that the chosen segments own, in the order of `index`.

    Segment i owns `lengths[i]` adjacent elements; `expand([2, 0], [2, 1, 3])` is `[3, 4, 5, 0, 1]`.
    """
    starts = lengths.cumsum(0) - lengths
    chosen = lengths[index]
    offsets = torch.arange(int(chosen.sum()), device=lengths.device) - torch.repeat_interleave(
        chosen.cumsum(0) - chosen, chosen
    )
    return torch.repeat_interleave(starts[index], chosen) + offsets


@dataclass(frozen=True, kw_only=True, slots=True)
class PairBatch(TokenBatch):
    """Two responses a prompt (fanout 2), and how strongly the first is preferred."""

    preference: Tensor = per_prompt()  # [P] float in [0, 1], probability that the first response is better; tie 0.5
    weight: Tensor = per_prompt()  # [P] float, how much the pair counts
    margin: Tensor = per_prompt()  # [P] float, by how much the preferred score should lead; 0 for none


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceBatch(PairBatch):
    """Comparisons and what the reference policy says of both responses."""

    sequence_ref_logprobs: Tensor = per_response()  # [S] sums over the response's own tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class RatingBatch(TokenBatch):
    """Two responses a prompt (fanout 2): one that was rated, then one that answers another prompt."""

    desirable: Tensor = per_prompt()  # [P] float in [0, 1], probability that the rated response is a good one
    weight: Tensor = per_prompt()  # [P] float, how much the rating counts
    sequence_ref_logprobs: Tensor = per_response()  # [S] sums over the response's own tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedBatch(RatingBatch):
    """Rated responses alone (fanout 1), and what all of them are measured from."""

    reference_point: Tensor = per_prompt()  # [P] z0 in nats, the same for the whole batch
    desirable_share: Tensor = per_prompt()  # [P] mean of `desirable` over the whole batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout(TokenBatch):
    """Sampled responses and what was known about them when they were sampled."""

    logprobs: Tensor = per_response_token()  # [R] under the policy that sampled them, at the sampling temperature
    ref_logprobs: Tensor = per_response_token()  # [R] under the reference, at the same temperature
    scores: Tensor = per_response()  # [S] shaped scores, placed on the last token
    finished: Tensor = per_response()  # [S] bool, True when the response ended by itself


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticRollout(Rollout):
    """A rollout with a critic's values."""

    values: Tensor = per_response_token()  # [R] expected return before each token


@dataclass(frozen=True, kw_only=True, slots=True)
class Experience(Rollout):
    """A rollout whose advantages are known."""

    advantages: Tensor = per_response_token()  # [R]


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticExperience(CriticRollout):
    """A critic's rollout whose advantages and returns are known."""

    advantages: Tensor = per_response_token()  # [R]
    returns: Tensor = per_response_token()  # [R]


def widen(batch: TokenBatch, kind: type[Wide], **new: Tensor) -> Wide:
    """The same fields as `batch`, plus new ones, as a `kind`."""
    return kind(**{f.name: getattr(batch, f.name) for f in fields(batch)}, **new)


def joined(batches: Sequence[Wide]) -> Wide:
    """One batch of all prompts of `batches`, which are of one kind, in their order."""
    parts = [dict(batch._tensors()) for batch in batches]
    return type(batches[0])(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """One row of tokens that a model reads: each prompt followed by its responses, documents apart by attention only.

    Made by `keel.batch.pack.pack`. T tokens, S responses, R response tokens.
    """

    tokens: Tensor  # [T] int64
    positions: Tensor  # [T] int64, a response continues its prompt's positions
    layout: tuple[tuple[int, tuple[int, ...]], ...]  # (prompt length, lengths of its responses) for each prompt
    source: Tensor  # [R] index into T whose hidden state predicts the response token; -1 where nothing does
    target: Tensor  # [R] int64, the response token
    last: Tensor  # [S] index into T of each response's last token
    prompt_index: Tensor  # [sum of prompt lengths] index into T of each prompt token
    response_index: Tensor  # [R] index into T of each response token
    states: Tensor | None = None  # [T, H] of the layers that a shared trunk has run already
