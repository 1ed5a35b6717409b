"""Sampling in process: prompts prefilled once a group, a cache of our own, rows that end leave the batch.

Every row draws from a stream of its own, named by (seed, key of its prompt, sample index, position), and turns one
uniform number into one token by the inverse CDF. What a row draws therefore does not depend on its company.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from keel.core.errors import ConfigError, DataError, TrainingError
from keel.models.attention import additive
from keel.models.load import context_length
from keel.models.packed import device_of, output_head, run
from keel.models.plan import PackedPlan

BLOCK = 64  # tokens whose probabilities are summed at once in drawing
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
                        _uniforms(seed, keys[start : start + at_once], samples, max_new_tokens),
                        torch.tensor(sorted(self.eos_ids), device=device_of(self.model)),
                        temperature,
                        self.value_head,
                    )
                    for start in range(0, len(prompts), at_once)
                ]
        finally:
            self.model.train(training)
        tokens, lengths, logprobs, finished, values = (torch.cat(column).clone() for column in zip(*parts, strict=True))
        return Samples(
            tokens=tokens,
            lengths=lengths,
            logprobs=logprobs,
            finished=finished,
            values=None if self.value_head is None else values,
        )

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


def _decode(
    model: nn.Module,
    prompts: list[Tensor],
    uniforms: Tensor,
    eos: Tensor,
    temperature: float,
    value_head: nn.Module | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tokens [R], lengths [S], log-probabilities [R], finished [S] and values [R] of the responses to some prompts."""
    device = eos.device
    samples, max_new_tokens = uniforms.shape[0] // len(prompts), uniforms.shape[1]
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    prefill = _PrefillPlan(lengths.tolist(), device)
    positions = torch.cat([torch.arange(len(prompt)) for prompt in prompts])
    head, uniforms = output_head(model), uniforms.to(device)
    hidden = run(model, torch.cat(prompts), positions, prefill, needed=lengths.cumsum(0) - 1)
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
        drawn, drawn_logprobs = _draw(logits, uniforms[rows, step], temperature)
        tokens[rows, step], logprobs[rows, step] = drawn, drawn_logprobs
        if value_head is not None:
            values[rows, step] = value_head(hidden).squeeze(-1).float()
        ended = torch.isin(drawn, eos) & ~finished[rows]
        ends[rows] = torch.where(ended, step + 1, ends[rows])
        finished[rows] |= ended
        if step == max_new_tokens - 1:
            break
        if (step + 1) % count_every == 0:
            alive = ~finished[rows]
            left = int(alive.sum())
            if left == 0:
                break
            if left <= (1 - COMPACT_SHARE) * len(rows):
                stay = alive.nonzero().squeeze(1)
                rows, drawn = rows[stay], drawn[stay]
                plan.keep(stay)
        hidden = run(model, drawn, plan.positions, plan)
        logits = head.logits(hidden)
        plan.advance()
    inside = torch.arange(max_new_tokens, device=device) < ends[:, None]
    if not torch.isfinite(logprobs[inside]).all():
        raise TrainingError(
            "the policy's probabilities are not finite numbers, so nothing can be sampled: training diverged. Lower "
            "optim.learning_rate, and go on from an earlier checkpoint."
        )
    return tokens[inside].cpu(), ends.cpu(), logprobs[inside].cpu(), finished.cpu(), values[inside].cpu()


def _count_every(device: torch.device) -> int:
    return 1 if device.type == "cpu" else COUNT_EVERY


def _draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """One token a row of logits [rows, V], and its log-probability in float32; overwrites `logits`.

    The inverse CDF in two steps, a block of the vocabulary and then a token of it, both in float64: only sums of blocks
    are wide, so that the table is read three times and never copied.
    """
    z = logits if temperature in (0.0, 1.0) else logits.div_(temperature)
    peak, likeliest = z.max(-1, keepdim=True)
    weights = z.sub_(peak).exp_()
    whole = weights.shape[1] // BLOCK * BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, BLOCK)).sum(2, dtype=torch.float64)
    mass = torch.cat([sums, weights[:, whole:].sum(1, keepdim=True, dtype=torch.float64)], 1).cumsum_(1)
    total = mass[:, -1:].clone()
    if temperature == 0:
        drawn = likeliest
    else:
        at = uniforms[:, None] * total
        # The first whose cumulated mass exceeds `at`; with nan there is none, which the caller tells apart.
        block = torch.searchsorted(mass, at, right=True).clamp(max=mass.shape[1] - 1)
        before = torch.where(block > 0, mass.gather(1, (block - 1).clamp(min=0)), 0.0)
        index = block * BLOCK + torch.arange(BLOCK, device=z.device)
        inside = weights.gather(1, index.clamp(max=z.shape[1] - 1)).double().masked_fill_(index >= z.shape[1], 0.0)
        place = torch.searchsorted(inside.cumsum_(1), at - before, right=True).clamp(max=BLOCK - 1)
        drawn = index.gather(1, place).clamp(max=z.shape[1] - 1)
    return drawn.squeeze(1), (weights.gather(1, drawn).double().log() - total.log()).squeeze(1).float()


def _uniforms(seed: int, keys: Sequence[int], samples: int, positions: int) -> Tensor:
    """[rows, positions] float64 in [0, 1): a hash of (seed, key, sample index, position), 53 bits each."""
    rows = [(key, index) for key in keys for index in range(samples)]
    state = np.full(len(rows), seed & _MASK, dtype=np.uint64)
    for part in zip(*rows, strict=True):
        state = _mix(state ^ _mix(np.array([number & _MASK for number in part], dtype=np.uint64) + _STEP))
    counters = np.arange(1, positions + 1, dtype=np.uint64) * _STEP
    return torch.from_numpy((_mix(state[:, None] + counters) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


_MASK = 2**64 - 1
_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every input bit sways every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
