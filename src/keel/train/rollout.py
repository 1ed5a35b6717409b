"""Turn prompts into judged rollouts: the online source of the loop."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from keel.batch.pack import pack
from keel.batch.types import CriticRollout, Packed, Rollout, TokenBatch, widen
from keel.core.seed import derive
from keel.data.prompt_records import PromptRecord
from keel.data.records import Prompt, prompt_text
from keel.models.critic import Critic
from keel.models.generate import Sampler, Samples
from keel.models.layers import shared_layers
from keel.models.packed import device_of, hidden_before, lower_states, token_logprobs, transformer
from keel.train.judge import Judge, Responses, Scores
from keel.train.loop import shuffled
from keel.train.one_trunk import OneTrunk
from keel.train.step import micro_batches


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPrompt:
    """A prompt as it was written and as token ids; `key` names its random stream."""

    prompt: Prompt
    tokens: tuple[int, ...]
    key: int
    record: PromptRecord = field(default_factory=dict, compare=False)
    """What stands beside it in its file: a reference answer, tests."""

    @property
    def text(self) -> str:
        return prompt_text(self.prompt)


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How many, how long, how warm."""

    prompts: int
    samples: int
    max_new_tokens: int
    temperature: float
    micro_batch_tokens: int
    seed: int
    resample_tries: int = 0
    """How often an update may sample other prompts in place of those whose samples are all paid alike."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The policy that the KL is measured against: a frozen copy, or the policy itself with adapters off."""

    model: nn.Module
    mode: Callable[[], AbstractContextManager[object]] = nullcontext

    @torch.no_grad()
    def logprobs(self, batch: TokenBatch, temperature: float, micro_batch_tokens: int) -> Tensor:
        """[R] log-probabilities of the response tokens at `temperature`."""
        with self.mode():
            return over_micro_batches(
                batch,
                micro_batch_tokens,
                self.model,
                lambda packed: token_logprobs(self.model, packed, temperature=temperature)[0],
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A rollout with everything that is worth telling about it."""

    rollout: Rollout
    responses: Responses
    scores: Scores
    seconds_rollout: float
    seconds_score: float
    values: Tensor | None = None
    """[R] what the sampler's value head said before each token."""
    choice: Mapping[str, float] = field(default_factory=dict)
    """Figures of how its prompts came about, where some were changed for others."""

    def figures(self) -> dict[str, float]:
        """Means that every update reports."""
        batch, raw = self.rollout, self.scores.raw
        log_ratio = batch.logprobs - batch.ref_logprobs
        kl = batch.sum_per_response(log_ratio)
        return {
            "score_mean": float(raw.mean()),
            "score_std": float(raw.std(unbiased=False)),
            "reward_mean": float(batch.scores.mean()),
            "kl_nats_per_sequence": float(kl.mean()),
            "kl_nats_per_token": float(kl.sum() / batch.response_lengths.sum()),
            "response_tokens_mean": float(batch.response_lengths.float().mean()),
            "finished_share": float(batch.finished.float().mean()),
            **{f"score_{name}": float(values.mean()) for name, values in self.scores.parts.items()},
            **self.choice,
            **({} if self.scores.corrected is None else {"corrected_score_mean": float(self.scores.corrected.mean())}),
            "seconds_rollout": self.seconds_rollout,
            "seconds_score": self.seconds_score,
        }


@dataclass
class RolloutSource:
    """Samples with the policy as it is now, judges, and notes what the update will need.

    Update u's prompts and random numbers depend on (seed, u) alone, so a resumed run samples the same.
    """

    policy: nn.Module
    sampler: Sampler
    reference: Reference
    judge: Judge
    prompts: Sequence[EncodedPrompt]
    decode: Callable[[Sequence[int]], str]
    config: RolloutConfig
    trunk: OneTrunk | None = None
    """Answers for the reference and for reward models that share the policy's weights."""
    reference_sampler: Sampler | None = None
    """Samples with the reference, for `reference_answers`."""
    last: Judged | None = field(default=None, init=False)

    def batches(self, start: int, stop: int) -> Iterator[Rollout]:
        """Rollouts of the updates from `start` up to `stop`; the newest is also kept in `last`."""
        for update in range(start, stop):
            self.last = self.rollout(self.prompts_of(update), derive(self.config.seed, "rollout", update))
            yield self.last.rollout

    def critic_batches(self, critic: Critic, start: int, stop: int) -> Iterator[CriticRollout]:
        """The same, with the critic's values beside them."""
        for rollout in self.batches(start, stop):
            values = None if self.last is None else self.last.values
            yield self.with_values(rollout, critic) if values is None else widen(rollout, CriticRollout, values=values)

    def prompts_of(self, update: int) -> list[EncodedPrompt]:
        """The prompts of one update: each pass over the prompts is a new shuffle."""
        chosen: list[EncodedPrompt] = []
        at = update * self.config.prompts
        while len(chosen) < self.config.prompts:
            epoch, offset = divmod(at + len(chosen), len(self.prompts))
            order = shuffled(len(self.prompts), 1, derive(self.config.seed, "prompts", epoch))[0]
            take = order[offset : offset + self.config.prompts - len(chosen)]
            chosen += [self.prompts[i] for i in take.tolist()]
        return chosen

    @torch.no_grad()
    def rollout(
        self, prompts: Sequence[EncodedPrompt], seed: int, *, samples: int | None = None, observe: bool = True
    ) -> Judged:
        """Sample, score and measure against the reference; `samples` None takes the config's.

        `observe` False leaves the judge's running statistics as they are (held-out evaluation).
        """
        c, begun = self.config, time.perf_counter()
        batch, drawn = sample_batch(
            self.sampler,
            prompts,
            samples=samples or c.samples,
            max_new_tokens=c.max_new_tokens,
            temperature=c.temperature,
            seed=seed,
        )
        sampled = time.perf_counter()
        logprobs, finished, values = drawn.logprobs, drawn.finished, drawn.values
        batch = self._with_states(batch, drawn)
        if next(self.policy.parameters()).dtype != torch.float32:
            # Decoding and training round differently; what the update compares with must come from the training path.
            values, logprobs = (
                None,
                over_micro_batches(
                    batch,
                    c.micro_batch_tokens,
                    self.policy,
                    lambda packed: token_logprobs(self.policy, packed, temperature=c.temperature)[0],
                ),
            )
        if self.trunk is None:
            trunk_scores, ref_logprobs = None, self.reference.logprobs(batch, c.temperature, c.micro_batch_tokens)
        else:
            ref_logprobs, trunk_scores = self.trunk.look(batch, c.temperature, c.micro_batch_tokens)
        responses = as_responses(batch, finished, prompts, self.decode, trunk_scores, ref_logprobs)
        scores = self.judge.scores(responses)
        rollout = widen(
            batch,
            Rollout,
            logprobs=logprobs,
            ref_logprobs=ref_logprobs,
            scores=self.judge.shape(scores, responses, observe=observe),
            finished=finished,
        )
        return Judged(
            rollout=rollout,
            responses=responses,
            scores=scores,
            seconds_rollout=sampled - begun,
            seconds_score=time.perf_counter() - sampled,
            values=values,
        )

    @torch.no_grad()
    def reference_answers(self, prompts: Sequence[EncodedPrompt], seed: int) -> tuple[Responses, Scores]:
        """One answer of the reference to each prompt, and what the judge gives for it."""
        if self.reference_sampler is None:
            raise ValueError("this source was made without a sampler of the reference")
        c = self.config
        with self.reference.mode():
            batch, drawn = sample_batch(
                self.reference_sampler,
                prompts,
                samples=1,
                max_new_tokens=c.max_new_tokens,
                temperature=c.temperature,
                seed=seed,
            )
        trunk_scores = None
        if self.trunk is not None:
            _, trunk_scores = self.trunk.look(self._with_states(batch, drawn), c.temperature, c.micro_batch_tokens)
        responses = as_responses(batch, drawn.finished, prompts, self.decode, trunk_scores, drawn.logprobs)
        return responses, self.judge.scores(responses)

    def _with_states(self, batch: TokenBatch, drawn: Samples) -> TokenBatch:
        """The batch with the hidden states of shared lower layers, where there are such layers."""
        if drawn.prompt_states is not None and drawn.response_states is not None:
            return batch.with_states(drawn.prompt_states, drawn.response_states)
        if shared_layers(transformer(self.policy).base_model):
            return with_lower_states(batch, self.policy, self.config.micro_batch_tokens)
        return batch

    @torch.no_grad()
    def with_values(self, rollout: Rollout, critic: Critic) -> CriticRollout:
        """The same rollout with the critic's values beside it."""

        def values(packed: Packed) -> Tensor:
            return critic.values(packed, hidden_before(self.policy, packed) if critic.trunk is None else None)

        return widen(
            rollout,
            CriticRollout,
            values=over_micro_batches(rollout, self.config.micro_batch_tokens, critic, values),
        )


def with_lower_states(batch: TokenBatch, model: nn.Module, max_tokens: int) -> TokenBatch:
    """The batch with what the shared layers of `model` say of every token: all roles and epochs begin with it."""
    device = device_of(model)
    prompts, responses = [], []
    for rows in micro_batches(batch, max_tokens):
        packed = pack(rows.to(device))
        states = lower_states(model, packed)
        prompts.append(states[packed.prompt_index].cpu())
        responses.append(states[packed.response_index].cpu())
    return batch.with_states(torch.cat(prompts), torch.cat(responses))


def sample_batch(
    sampler: Sampler,
    prompts: Sequence[EncodedPrompt],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> tuple[TokenBatch, Samples]:
    """Sampled responses as a batch, and what the sampler said of them."""
    drawn = sampler.sample(
        [torch.tensor(p.tokens, dtype=torch.int64) for p in prompts],
        samples=samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        keys=distinct_keys(prompts),
    )
    batch = TokenBatch(
        prompt_lengths=torch.tensor([len(p.tokens) for p in prompts]),
        fanout=torch.full((len(prompts),), samples),
        prompt_tokens=torch.tensor([t for p in prompts for t in p.tokens], dtype=torch.int64),
        response_lengths=drawn.lengths,
        response_tokens=drawn.tokens,
        response_mask=torch.ones(len(drawn.tokens), dtype=torch.bool),
    )
    return batch, drawn


def distinct_keys(prompts: Sequence[EncodedPrompt]) -> list[int]:
    """The prompts' keys, changed where a prompt occurs again, so that no two rows share a random stream."""
    seen: dict[int, int] = {}
    keys = []
    for prompt in prompts:
        times = seen[prompt.key] = seen.get(prompt.key, -1) + 1
        keys.append(prompt.key if times == 0 else derive(prompt.key, "again", times))
    return keys


def as_responses(
    batch: TokenBatch,
    finished: Tensor,
    prompts: Sequence[EncodedPrompt | str],
    decode: Callable[[Sequence[int]], str],
    trunk_scores: Tensor | None = None,
    ref_logprobs: Tensor | None = None,
) -> Responses:
    """The batch with its texts, and with what stands beside the prompts where they are not texts alone."""
    pieces = batch.response_tokens.split(batch.response_lengths.tolist())
    asked = [prompts[i] for i in batch.prompt_of_response.tolist()]
    return Responses(
        batch=batch,
        prompt_texts=[p if isinstance(p, str) else p.text for p in asked],
        response_texts=[decode(piece.tolist()) for piece in pieces],
        finished=finished,
        trunk_scores=trunk_scores,
        records=[{} if isinstance(p, str) else p.record for p in asked],
        ref_logprobs=ref_logprobs,
    )


def over_micro_batches(
    batch: TokenBatch, max_tokens: int, model: nn.Module, compute: Callable[[Packed], Tensor]
) -> Tensor:
    """`compute` over the batch in pieces that fit, on the model's device; results joined on the CPU."""
    device = next(model.parameters()).device
    return torch.cat([compute(pack(rows.to(device))).cpu() for rows in micro_batches(batch, max_tokens)])
