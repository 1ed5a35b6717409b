"""Packed rows through any decoder: hidden states, and log-probabilities of response tokens.

Outputs and gradients equal running every prompt with each of its responses alone, in plain transformers.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from keel.batch.pack import pack
from keel.batch.types import Packed, TokenBatch
from keel.core.errors import ArtifactError
from keel.functional import logprobs as functional
from keel.models.attention import NAME, Plan
from keel.models.flex import plan_for
from keel.models.fused import fuse
from keel.models.layers import above, only_at, only_below, pick, prunable, shared_layers


def forward_hidden(model: nn.Module, packed: Packed, at: Tensor | None = None) -> Tensor:
    """[T, H] the normed hidden states of a packed row; `model` is a causal LM, a classifier or a trunk, peft or not.

    With `at` [N], indices into the row, only theirs [N, H]: what only other tokens would read is not computed.
    """
    plan = plan_for(packed.layout, device_of(model))
    if at is None:
        return run(model, packed.tokens, packed.positions, plan, states=packed.states)
    needed, place = torch.unique(at.to(device_of(model)), return_inverse=True)
    hidden = run(model, packed.tokens, packed.positions, plan, states=packed.states, needed=needed)
    return hidden if len(needed) == len(at) and bool((place[1:] > place[:-1]).all()) else hidden.index_select(0, place)


def hidden_before(model: nn.Module, packed: Packed) -> Tensor:
    """[R, H] the hidden state that predicts each response token; where nothing does, the row's first stands in."""
    return forward_hidden(model, packed, packed.source.clamp(min=0))


@torch.no_grad()
def lower_states(model: nn.Module, packed: Packed) -> Tensor:
    """[T, H] what the layers that `share_layers` found say of a packed row: what every later pass can begin with."""
    with only_below(transformer(model).base_model) as kept:
        run(model, packed.tokens, packed.positions, plan_for(packed.layout, device_of(model)))
    return kept[0][0]


def logprobs_and_entropy(
    model: nn.Module, packed: Packed, *, temperature: float = 1.0, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`token_logprobs` with the entropy [R] of every prediction."""
    logprobs, entropy = token_logprobs(model, packed, temperature=temperature, with_entropy=True, hidden=hidden)
    return logprobs, torch.zeros_like(logprobs) if entropy is None else entropy


def token_logprobs(
    model: nn.Module,
    packed: Packed,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability [R] of every response token, and with `with_entropy` the entropy [R] in nats where it was drawn.

    Both are float32, and 0 where nothing predicts the token: the first one behind an empty prompt. `hidden` [R, H] of
    `hidden_before` saves the forward pass when a caller has it already.
    """
    hidden = hidden_before(model, packed) if hidden is None else hidden
    source, target = packed.source.to(hidden.device), packed.target.to(hidden.device)
    predicted = (source >= 0).nonzero().squeeze(1)
    whole = len(predicted) == len(source)
    if not whole:
        hidden, target = hidden[predicted], target[predicted]
    head = output_head(model)
    logprobs, entropy = functional.token_logprobs(
        hidden,
        head.weight,
        target,
        bias=head.bias,
        temperature=temperature,
        softcap=head.softcap,
        logit_scale=head.logit_scale,
        with_entropy=with_entropy,
    )
    if whole:
        return logprobs, entropy
    zeros = logprobs.new_zeros(len(packed.source))
    spread = zeros.index_copy(0, predicted, logprobs)
    return spread, None if entropy is None else zeros.index_copy(0, predicted, entropy)


class OutputHead(NamedTuple):
    """From hidden states to logits: softcap(logit_scale * (hidden @ weight.T + bias))."""

    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]
    softcap: float | None
    logit_scale: float

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., V] in float32 or wider."""
        z = nn.functional.linear(hidden, self.weight, self.bias)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        z = z if self.logit_scale == 1.0 else z * self.logit_scale
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)


def output_head(model: nn.Module) -> OutputHead:
    """The language-model head of `model`, with the scaling and capping that its architecture applies to logits."""
    inner = transformer(model)
    layer = inner.get_output_embeddings()
    if type(layer) is not nn.Linear:
        raise ArtifactError(
            f"{type(inner).__name__} has {type(layer).__name__} for an output layer; keel reads logits from a plain "
            "linear layer. Load a causal language model, and leave the output layer out of lora.targets."
        )
    config = inner.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and later
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    divisor = getattr(config, "logits_scaling", None) or 1.0  # Granite
    return OutputHead(layer.weight, layer.bias, softcap, scale / divisor)


def transformer(model: nn.Module) -> Any:
    """The transformers model: the one that peft wraps, or `model` itself."""
    unwrap = getattr(model, "get_base_model", None)
    return model if unwrap is None else unwrap()


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def run(
    model: nn.Module,
    tokens: Tensor,
    positions: Tensor,
    plan: Plan,
    *,
    states: Tensor | None = None,
    needed: Tensor | None = None,
) -> Tensor:
    """[T, H] hidden states of one row of tokens whose attention `plan` computes; with `needed` [N] only theirs, [N, H].

    `needed` is sorted and holds no index twice. `states` [T, H] are the answer of the shared layers, if the model has
    some. The attention of `model` is switched to `keel_packed` and stays so: gradient checkpointing calls it again in
    the backward pass. Without a plan it computes what plain transformers does.
    """
    trunk = transformer(model).base_model
    if trunk.config._attn_implementation != NAME:
        _switch(trunk)
    device = device_of(trunk)
    unmasked = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=device)  # four dimensions: transformers makes no mask
    row, places = tokens.to(device)[None], positions.to(device)[None]
    pruned = needed is not None and len(needed) < len(tokens) and prunable(trunk)
    begun = states is not None and shared_layers(trunk) > 0
    with (
        only_at(trunk, needed) if pruned and needed is not None else nullcontext(),
        above(trunk, states.to(device)) if begun and states is not None else nullcontext(),
    ):
        out = trunk(input_ids=row, position_ids=places, attention_mask=unmasked, use_cache=False, plan=plan)
    hidden = out.last_hidden_state
    return (hidden if needed is None else pick(hidden, needed))[0]


def _switch(trunk: PreTrainedModel) -> None:
    config = trunk.config.get_text_config()
    if getattr(config, "attention_chunk_size", None):
        raise ArtifactError(f"{type(trunk).__name__} attends within chunks, which keel does not compute.")
    trunk.set_attn_implementation(NAME)
    if trunk.config._attn_implementation != NAME:
        raise ArtifactError(
            f"{type(trunk).__name__} does not take its attention from transformers' registry, so keel cannot pack "
            "documents for it. Choose an architecture that does, such as Llama, Mistral, Qwen or Gemma."
        )
    fuse(trunk)


@contextmanager
def plain_attention(model: nn.Module) -> Iterator[None]:
    """Within it, `model` computes attention as transformers' own reference does ("eager")."""
    inner = transformer(model)
    before = inner.config._attn_implementation
    inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        inner.set_attn_implementation(before)


PROBE = ((5, (4, 9)), (3, (6,)), (0, (7, 2)))  # prompt lengths and response lengths


@torch.no_grad()
def verify_packed(model: nn.Module, tolerance: float | None = None) -> float:
    """Largest difference between the packed path and plain transformers on a small probe.

    In log-probabilities (nats) for a language model, in hidden states relative to their largest for a trunk. More than
    `tolerance` (1e-3) means that documents leak into one another, and is an error. In half precision single values
    differ by rounding, by as much as logits are apart there, so the mean difference is taken, and 0.1 allowed.
    """
    inner = transformer(model)
    if tolerance is None:
        tolerance = 1e-3 if inner.dtype == torch.float32 else 0.1
    batch, training = _probe(inner.config.get_text_config().vocab_size), model.training
    packed = pack(batch)
    model.eval()
    try:
        with plain_attention(model):
            expected = _plain_outputs(inner, batch)
        if inner.get_output_embeddings() is None:
            found = forward_hidden(model, packed, packed.last) / expected.abs().max()
            expected = expected / expected.abs().max()
        else:
            found, _ = token_logprobs(model, packed)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise ArtifactError(
            f"{type(inner).__name__} cannot run packed documents: {error}. Choose an architecture that takes its "
            "attention from transformers' registry, such as Llama, Mistral, Qwen or Gemma."
        ) from error
    finally:
        model.train(training)
    if not expected.isfinite().all():
        raise ArtifactError(
            f"{inner.name_or_path or type(inner).__name__}: the model's outputs are not finite numbers, so its weights "
            "are damaged or its training diverged. Take an earlier checkpoint, or copy or download it again."
        )
    differences = (found - expected).abs()
    difference = (differences.max() if inner.dtype == torch.float32 else differences.mean()).item()
    if not difference <= tolerance:
        raise ArtifactError(
            f"{type(inner).__name__}: the packed path differs from plain transformers by {difference:.2g} (allowed: "
            f"{tolerance:g}), so documents would see one another. Layers without attention, such as state-space or "
            "convolution layers, cannot be packed; choose a pure attention decoder."
        )
    return difference


@torch.no_grad()
def outputs_finite(model: nn.Module) -> bool:
    """Whether a language model gives finite log-probabilities on a small probe."""
    batch, training = _probe(transformer(model).config.get_text_config().vocab_size), model.training
    logprobs, _ = token_logprobs(model.eval(), pack(batch))
    model.train(training)
    return bool(logprobs.isfinite().all())


def _probe(vocabulary: int) -> TokenBatch:
    prompts, fanout = [p for p, _ in PROBE], [len(r) for _, r in PROBE]
    responses = [n for _, lengths in PROBE for n in lengths]
    tokens = torch.arange(1, sum(prompts) + sum(responses) + 1) * 7919 % vocabulary
    prompt_tokens, response_tokens = tokens.split([sum(prompts), sum(responses)])
    return TokenBatch(
        prompt_lengths=torch.tensor(prompts),
        fanout=torch.tensor(fanout),
        prompt_tokens=prompt_tokens,
        response_lengths=torch.tensor(responses),
        response_tokens=response_tokens,
        response_mask=torch.ones(len(response_tokens), dtype=torch.bool),
    )


def _plain_outputs(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """Log-probabilities [R] of a language model, or last hidden states [S, H]; each response alone."""
    prompts = batch.prompt_tokens.split(batch.prompt_lengths.tolist())
    responses = batch.response_tokens.split(batch.response_lengths.tolist())
    found = []
    for owner, response in zip(batch.prompt_of_response.tolist(), responses, strict=True):
        row = torch.cat([prompts[owner], response]).to(device_of(model))
        out = model(input_ids=row[None], use_cache=False)
        if "logits" not in out:
            found.append(out.last_hidden_state[:, -1])
            continue
        logprobs = out.logits[0, :-1].float().log_softmax(-1)
        picked = logprobs.gather(1, row[1:, None]).squeeze(1)
        found.append(nn.functional.pad(picked, (1, 0))[-len(response) :])
    return torch.cat(found)
