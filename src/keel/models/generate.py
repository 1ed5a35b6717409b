"""Sampling in process: prompts prefilled once a group, a cache of our own, rows that end leave the batch.

Every row draws from a stream of its own, named by (seed, key of its prompt, sample index, position), and turns one
uniform number into one token by the inverse CDF. What a row draws therefore does not depend on its company.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from keel.core.errors import ConfigError, DataError, TrainingError
from keel.models.attention import additive
from keel.models.draw import draw, uniform_numbers
from keel.models.layers import only_below, shared_layers, watched
from keel.models.load import context_length
from keel.models.packed import device_of, output_head, run, transformer
from keel.models.plan import PackedPlan

COMPACT_SHARE = 0.125  # finished rows are moved out of the cache once they are this share of it
COUNT_EVERY = 8  # steps on a GPU from one count of the rows that go on to the next, since the CPU waits for a count


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Sampled responses end to end; those of one prompt are adjacent. All tensors on the CPU."""

    tokens: Tensor  # [R] int64, with the end-of-sequence token where there was one
    lengths: Tensor  # [S] int64, tokens of each response, at least 1
    logprobs: Tensor  # [R] float32, of the token drawn, at the sampling temperature (at 1 for greedy sampling)
    finished: Tensor  # [S] bool, True when the response ended by itself
    values: Tensor | None = None  # [R] float32, what a value head said before each token; None without one
    prompt_states: Tensor | None = None  # [sum of prompt lengths, H] of the layers that the model shares; else None
    response_states: Tensor | None = None  # [R, H] likewise


class Sampler(Protocol):
    """Whatever can continue prompts: this process, another one, a server."""

    def sample(
        self,
        prompts: Sequence[Tensor],
        *,
        samples: int,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        keys: Sequence[int],
    ) -> Samples:
        """`samples` responses to each prompt (int64 token ids); `keys` name the prompts' random streams."""
        ...


@dataclass
class InProcessSampler:
    """Samples from a model in this process, peft or not, from its whole distribution (no top-k, no top-p)."""

    model: nn.Module
    eos_ids: set[int]
    max_rows: int = 256
    """Rows decoded side by side; more prompts than that go in turns."""
    value_head: nn.Module | None = None
    """Reads values [N, 1] off the hidden states [N, H] that tokens are drawn from, at no further pass."""

    def sample(
        self,
        prompts: Sequence[Tensor],
        *,
        samples: int,
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
        keys: Sequence[int] | None = None,
    ) -> Samples:
        """As the protocol says; `temperature` 0 takes the likeliest token. `keys` None numbers the prompts."""
        keys = range(len(prompts)) if keys is None else keys
        self._check(prompts, samples, max_new_tokens, temperature, keys)
        at_once = max(1, self.max_rows // samples)
        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                parts = [
                    _decode(
                        self.model,
                        list(prompts[start : start + at_once]),
                        uniform_numbers(seed, keys[start : start + at_once], samples, max_new_tokens),
                        torch.tensor(sorted(self.eos_ids), device=device_of(self.model)),
                        temperature,
                        self.value_head,
                    )
                    for start in range(0, len(prompts), at_once)
                ]
        finally:
            self.model.train(training)
        return Samples(**{f.name: _joined([getattr(part, f.name) for part in parts]) for f in fields(Samples)})

    def _check(
        self,
        prompts: Sequence[Tensor],
        samples: int,
        max_new_tokens: int,
        temperature: float,
        keys: Sequence[int],
    ) -> None:
        if not prompts or len(keys) != len(prompts):
            raise ValueError(
                f"{len(prompts)} prompts and {len(keys)} keys; expected at least one prompt and a key each"
            )
        if samples < 1 or max_new_tokens < 1 or not temperature >= 0:
            raise ConfigError(
                f"samples={samples}, max_new_tokens={max_new_tokens}, temperature={temperature}: expected at least one "
                "sample of at least one token, and a temperature of 0 (greedy) or more."
            )
        limit = context_length(self.model)
        for number, prompt in enumerate(prompts):
            if not len(prompt):
                raise DataError(
                    f"prompt {number} has no tokens, so nothing predicts its first token. Begin it with BOS."
                )
            if limit is not None and len(prompt) + max_new_tokens > limit:
                raise DataError(
                    f"prompt {number} has {len(prompt)} tokens; with max_new_tokens={max_new_tokens} that exceeds the "
                    f"model's context of {limit}. Shorten or drop the prompt, or lower max_new_tokens."
                )


class _PrefillPlan(PackedPlan):
    """A packed pass over prompts that keeps the keys and values of every layer."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        super().__init__([(length, ()) for length in lengths], device)
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}  # layer -> keys and values, [T, kv_heads, d]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        self.kept[layer] = (key, value)
        return super().attend(layer, query, key, value, **options)


class _Layer:
    """What one layer remembers: keys and values of each prompt once, and of what each row has said."""

    def __init__(self, kept: tuple[Tensor, Tensor], place: Tensor, rows: int, max_new_tokens: int) -> None:
        self.prompt_keys, self.prompt_values = (
            x[place].transpose(1, 2).contiguous() for x in kept
        )  # [P, kv, longest, d]
        self.keys, self.values = (x.new_empty((rows, x.shape[1], max_new_tokens, x.shape[2])) for x in kept)

    def keep(self, rows: Tensor, prompts: Tensor | None) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]
        if prompts is not None:
            self.prompt_keys, self.prompt_values = self.prompt_keys[prompts], self.prompt_values[prompts]


class _DecodePlan:
    """One new token a row, each over its prompt, which the samples of a prompt share, and over what it has said.

    A row is one of `samples` slots of its prompt. Attention over prompts is computed for all slots, those of rows that
    have ended too: keys and values are what it costs to read, and they are read once for all.
    """

    def __init__(self, prefill: _PrefillPlan, lengths: Tensor, samples: int, max_new_tokens: int) -> None:
        self.samples, self.longest, self.said = samples, int(lengths.max()), 0
        self.prompts = len(lengths)
        self.lengths = lengths.repeat_interleave(samples)  # [rows] tokens of each row's prompt
        self.slots: Tensor | None = None  # [rows] slot of each row; None while all slots are rows
        self.columns = torch.arange(self.longest + max_new_tokens, device=lengths.device)
        self.biases: dict[int | None, Tensor] = {}
        starts = lengths.cumsum(0) - lengths
        place = starts[:, None] + torch.minimum(self.columns[: self.longest], lengths[:, None] - 1)
        rows = len(self.lengths)
        self.layers = {layer: _Layer(kept, place, rows, max_new_tokens) for layer, kept in prefill.kept.items()}

    @property
    def positions(self) -> Tensor:
        """[rows] position of the token that comes now."""
        return self.lengths + self.said

    def advance(self) -> None:
        """The step is over; what it wrote stays."""
        self.said += 1
        self.biases = {None: self.biases[None]} if None in self.biases else {}

    def keep(self, rows: Tensor) -> None:
        """Only these rows go on, and the prompts that they answer."""
        slots = rows if self.slots is None else self.slots[rows]
        alive, owner = torch.unique(slots // self.samples, return_inverse=True)
        for layer in self.layers.values():
            layer.keep(rows, alive if len(alive) < self.prompts else None)
        self.prompts, self.slots = len(alive), owner * self.samples + slots % self.samples
        self.lengths, self.biases = self.lengths[rows], {}

    def bias(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[rows, 1, 1, columns] what to add to the scores; without a window it serves all steps."""
        if window not in self.biases:
            padding = (self.columns >= self.lengths[:, None]) & (self.columns < self.longest)
            mask = ~padding
            if window is not None:
                behind = self.longest - self.lengths[:, None]
                position = torch.where(self.columns < self.longest, self.columns, self.columns - behind)
                mask &= position > self.positions[:, None] - window
            self.biases[window] = additive(mask, dtype)[:, None, None]
        return self.biases[window]

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
        """[rows, heads * d] attention of one query a row over its prompt, what it has said, and itself."""
        cache, until = self.layers[layer], self.said + 1
        cache.keys[:, :, self.said] = key
        cache.values[:, :, self.said] = value
        grouped = query.reshape(len(query), key.shape[1], -1, query.shape[2])  # query heads beside their key head
        on_prompt = self._rows(self._slots(grouped) @ cache.prompt_keys.transpose(2, 3))
        on_said = grouped @ cache.keys[:, :, :until].transpose(2, 3)
        scores = torch.cat([on_prompt, on_said], 3).mul_(query.shape[2] ** -0.5 if scale is None else scale)
        if softcap is not None:
            scores = scores.div_(softcap).tanh_().mul_(softcap)
        scores = scores.add_(self.bias(window, scores.dtype)[..., : scores.shape[3]])
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        to_prompt, to_said = weights.split([self.longest, until], 3)
        out = self._rows(self._slots(to_prompt) @ cache.prompt_values) + to_said @ cache.values[:, :, :until]
        return out.flatten(1)

    def _slots(self, x: Tensor) -> Tensor:
        """[rows, kv_heads, n, z] -> [prompts, kv_heads, samples * n, z]; slots without a row are zero."""
        if self.slots is not None:
            x = x.new_zeros((self.prompts * self.samples, *x.shape[1:])).index_copy_(0, self.slots, x)
        return x.unflatten(0, (self.prompts, self.samples)).transpose(1, 2).flatten(2, 3)

    def _rows(self, x: Tensor) -> Tensor:
        """The inverse of `_slots`."""
        x = x.unflatten(2, (self.samples, -1)).transpose(1, 2).flatten(0, 1)
        return x if self.slots is None else x.index_select(0, self.slots)


def _joined(parts: list[Tensor | None]) -> Any:
    """One tensor on the CPU, fit for training, of those of several turns."""
    found = [part.cpu() for part in parts if part is not None]
    return torch.cat(found).clone() if found else None


class _States:
    """What the shared layers say of every token, kept for all passes that follow."""

    def __init__(self, model: nn.Module, seen: list[Tensor], shape: tuple[int, ...]) -> None:
        self.trunk, self.seen = transformer(model).base_model, seen
        self.prompts = seen.pop()[0]
        self.said = self.prompts.new_zeros((*shape, self.prompts.shape[1]))

    def keep(self, rows: Tensor, step: int) -> None:
        """Of the pass that fed token `step` of these rows."""
        self.said[rows, step] = self.seen.pop()[0]

    def last(self, model: nn.Module, tokens: Tensor, plan: _DecodePlan, rows: Tensor, step: int) -> None:
        """Of the last tokens, which nothing is drawn behind."""
        with only_below(self.trunk) as kept:
            run(model, tokens, plan.positions, plan)
        self.said[rows, step] = kept[0][0]


def _decode(
    model: nn.Module,
    prompts: list[Tensor],
    uniforms: Tensor,
    eos: Tensor,
    temperature: float,
    value_head: nn.Module | None,
) -> Samples:
    """Responses to some prompts, on the model's device."""
    trunk, device = transformer(model).base_model, eos.device
    # In half precision decoding rounds otherwise than the passes that would go on from its states.
    watch = shared_layers(trunk) > 0 and trunk.dtype == torch.float32
    with watched(trunk) if watch else nullcontext([]) as seen:
        return _decoded(model, prompts, uniforms.to(device), eos, temperature, value_head, seen if watch else None)


def _decoded(
    model: nn.Module,
    prompts: list[Tensor],
    uniforms: Tensor,
    eos: Tensor,
    temperature: float,
    value_head: nn.Module | None,
    seen: list[Tensor] | None,
) -> Samples:
    device = eos.device
    samples, max_new_tokens = uniforms.shape[0] // len(prompts), uniforms.shape[1]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    prefill = _PrefillPlan(lengths.tolist(), device)
    positions = torch.cat([torch.arange(len(prompt)) for prompt in prompts])
    head = output_head(model)
    hidden = run(model, torch.cat(prompts), positions, prefill, needed=lengths.cumsum(0) - 1)
    states = None if seen is None else _States(model, seen, tuple(uniforms.shape))
    plan = _DecodePlan(prefill, lengths, samples, max_new_tokens)
    logits, hidden = head.logits(hidden).repeat_interleave(samples, 0), hidden.repeat_interleave(samples, 0)

    rows = torch.arange(len(uniforms), device=device)  # which responses are still in the batch
    tokens = torch.zeros(uniforms.shape, dtype=torch.int64, device=device)
    logprobs = torch.zeros(uniforms.shape, dtype=torch.float32, device=device)
    values = torch.zeros_like(logprobs)
    ends = torch.full((len(uniforms),), max_new_tokens, device=device)
    finished = torch.zeros(len(uniforms), dtype=torch.bool, device=device)
    count_every = _count_every(device)
    for step in range(max_new_tokens):
        drawn, drawn_logprobs = draw(logits, uniforms[rows, step], temperature)
        tokens[rows, step], logprobs[rows, step] = drawn, drawn_logprobs
        if value_head is not None:
            values[rows, step] = value_head(hidden).squeeze(-1).float()
        before = finished[rows]
        ended = torch.isin(drawn, eos) & ~before
        ends[rows] = torch.where(ended, step + 1, ends[rows])
        finished[rows] |= ended
        if step == max_new_tokens - 1:
            if states is not None:
                states.last(model, drawn, plan, rows, step)
            break
        if (step + 1) % count_every == 0:
            alive = ~finished[rows] if states is None else ~before  # states are wanted of the last token too
            left = int(alive.sum())
            if left == 0:
                break
            if left <= (1 - COMPACT_SHARE) * len(rows):
                stay = alive.nonzero().squeeze(1)
                rows, drawn = rows[stay], drawn[stay]
                plan.keep(stay)
        hidden = run(model, drawn, plan.positions, plan)
        logits = head.logits(hidden)
        if states is not None:
            states.keep(rows, step)
        plan.advance()
    inside = torch.arange(max_new_tokens, device=device) < ends[:, None]
    if not torch.isfinite(logprobs[inside]).all():
        raise TrainingError(
            "the policy's probabilities are not finite numbers, so nothing can be sampled: training diverged. Lower "
            "optim.learning_rate, and go on from an earlier checkpoint."
        )
    return Samples(
        tokens=tokens[inside],
        lengths=ends,
        logprobs=logprobs[inside],
        finished=finished,
        values=None if value_head is None else values[inside],
        prompt_states=None if states is None else states.prompts,
        response_states=None if states is None else states.said[inside],
    )


def _count_every(device: torch.device) -> int:
    return 1 if device.type == "cpu" else COUNT_EVERY
