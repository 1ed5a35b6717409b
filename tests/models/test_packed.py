"""The packed forward pass against plain transformers, document by document."""

import pytest
import torch
from helpers.tiny import ARCHITECTURES, VOCAB_SIZE, tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM, BloomConfig, CohereConfig, GraniteConfig, MambaConfig, PhiConfig

from keel.batch.pack import pack
from keel.batch.types import TokenBatch
from keel.core.errors import ArtifactError
from keel.models.packed import forward_hidden, hidden_before, token_logprobs, verify_packed
from keel.models.plan import PackedPlan

SMALL = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

SHAPES = {
    "branches": [(11, (7, 5, 9)), (4, (6, 8)), (1, (3,))],
    "no prompts": [(0, (9, 4)), (0, (13,))],
    "prompts alone": [(5, ()), (9, ())],
    "one document": [(6, (5,))],
    "equal documents": [(4, (6,)), (3, (7,)), (5, (5,))],
    "mixed": [(0, (3, 4)), (12, (1, 20)), (5, ())],
}


def batch_of(groups: list[tuple[int, tuple[int, ...]]], seed: int = 0) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    lengths = [n for _, responses in groups for n in responses]
    prompts = [p for p, _ in groups]
    return TokenBatch(
        prompt_lengths=torch.tensor(prompts),
        fanout=torch.tensor([len(r) for _, r in groups]),
        prompt_tokens=torch.randint(4, VOCAB_SIZE, (sum(prompts),), generator=generator),
        response_lengths=torch.tensor(lengths, dtype=torch.int64),
        response_tokens=torch.randint(4, VOCAB_SIZE, (sum(lengths),), generator=generator),
        response_mask=torch.ones(sum(lengths), dtype=torch.bool),
    )


def alone(model, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Logits at the positions that predict response tokens, and those tokens: one plain forward a document."""
    logits, targets = [], []
    prompts = batch.prompt_tokens.split(batch.prompt_lengths.tolist())
    responses = batch.response_tokens.split(batch.response_lengths.tolist())
    for owner, response in zip(batch.prompt_of_response.tolist(), responses, strict=True):
        prompt = prompts[owner]
        out = model(input_ids=torch.cat([prompt, response])[None]).logits[0]
        logits.append(out[max(len(prompt) - 1, 0) : -1])
        targets.append(response if len(prompt) else response[1:])
    return torch.cat(logits), torch.cat(targets)


def gradients(model) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("groups", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_states_and_gradients_equal_plain_transformers(name, groups):
    batch = batch_of(groups)
    plain, model = tiny_model(name), tiny_model(name)
    packed = pack(batch)
    hidden = forward_hidden(model, packed)
    expected, weights = torch.empty_like(hidden), torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    at = 0
    for prompt_length, lengths in packed.layout:
        prompt = torch.arange(at, at + prompt_length)
        at += prompt_length
        for length in lengths or (0,):
            places = torch.cat([prompt, torch.arange(at, at + length)])
            out = plain.base_model(input_ids=packed.tokens[places][None]).last_hidden_state[0]
            expected = expected.index_copy(0, places, out)
            at += length
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=1e-5)
    (hidden * weights).sum().backward()
    (expected * weights).sum().backward()
    found, wanted = gradients(model), gradients(plain)
    assert found.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], atol=1e-4, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_states_of_some_tokens_equal_those_of_the_whole_row(name):
    """What the last layer leaves out is read by nobody: outputs and gradients stay."""
    packed = pack(batch_of(SHAPES["mixed"]))
    whole, model = tiny_model(name), tiny_model(name)
    at = torch.cat([packed.last, packed.source.clamp(min=0)])  # in no order, some twice
    found, expected = forward_hidden(model, packed, at), forward_hidden(whole, packed)[at]
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for each in (found, expected):
        (each * torch.linspace(-1, 1, each.numel()).view_as(each)).sum().backward()
    wanted, got = gradients(whole), gradients(model)
    assert got.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(got[key], wanted[key], atol=1e-5, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


def test_the_last_layers_feed_forward_part_sees_only_the_tokens_that_are_read():
    model, packed, seen = tiny_model(), pack(batch_of(SHAPES["mixed"])), []
    verify_packed(model)
    layers = model.base_model.layers
    for layer in (layers[0], layers[-1]):
        layer.mlp.up_proj.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    forward_hidden(model, packed, packed.last)
    assert seen == [len(packed.tokens), len(packed.last)]


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logprobs_and_entropy_equal_plain_transformers_alone(name, temperature):
    batch = batch_of(SHAPES["mixed"])
    plain, model = tiny_model(name), tiny_model(name)
    packed = pack(batch)
    logprobs, entropy = token_logprobs(model, packed, temperature=temperature, with_entropy=True)
    logits, targets = alone(plain, batch)
    table = (logits / temperature).log_softmax(-1)
    expected = table.gather(1, targets[:, None]).squeeze(1)
    predicted = packed.source >= 0
    torch.testing.assert_close(logprobs[predicted], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy[predicted], -(table.exp() * table).sum(-1), atol=1e-5, rtol=1e-5)
    assert logprobs[~predicted].eq(0).all()
    assert entropy[~predicted].eq(0).all()
    weights = torch.randn(len(expected), generator=torch.Generator().manual_seed(2))
    (logprobs[predicted] * weights).sum().backward()
    (expected * weights).sum().backward()
    found, wanted = gradients(model), gradients(plain)
    assert found.keys() == wanted.keys()
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key], atol=1e-4, rtol=1e-4, msg=lambda m, key=key: f"{key}: {m}")


def test_logit_scaling_and_output_bias_are_applied():
    granite = AutoModelForCausalLM.from_config(
        GraniteConfig(**SMALL, logits_scaling=3.0, attention_multiplier=0.3)
    ).eval()
    cohere = AutoModelForCausalLM.from_config(CohereConfig(**SMALL, logit_scale=0.25)).eval()
    phi = AutoModelForCausalLM.from_config(PhiConfig(**SMALL, tie_word_embeddings=False)).eval()
    torch.nn.init.normal_(phi.lm_head.bias)
    for model in (granite, cohere, phi):
        assert verify_packed(model) < 1e-5


@pytest.mark.usefixtures("attention")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_verify_packed_accepts_every_supported_architecture(name):
    model = tiny_model(name).train()
    assert verify_packed(model) < 1e-5
    assert model.training


def test_verify_packed_refuses_layers_that_leak_between_documents():
    config = MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=2, state_size=4)
    with pytest.raises(ArtifactError, match="Mamba"):
        verify_packed(AutoModelForCausalLM.from_config(config).eval())


def test_verify_packed_refuses_attention_outside_the_registry():
    config = BloomConfig(vocab_size=VOCAB_SIZE, hidden_size=32, n_layer=2, n_head=4)
    with pytest.raises(ArtifactError, match="registry"):
        verify_packed(AutoModelForCausalLM.from_config(config).eval())


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral"])
def test_a_switched_model_still_computes_plain_transformers_without_a_plan(name):
    plain, model = tiny_model(name), tiny_model(name)
    forward_hidden(model, pack(batch_of(SHAPES["branches"])))
    ids = torch.randint(4, VOCAB_SIZE, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    expected = plain(input_ids=ids, attention_mask=mask).logits
    found = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("attention")
def test_gradient_checkpointing_gives_the_same_gradients():
    packed = pack(batch_of(SHAPES["branches"]))
    plain, model = tiny_model().train(), tiny_model().train()
    enable = (
        "activation_checkpointing_enable"
        if hasattr(model, "activation_checkpointing_enable")
        else "gradient_checkpointing_enable"
    )
    getattr(model, enable)()
    for each in (plain, model):
        token_logprobs(each, packed)[0].sum().backward()
    found, wanted = gradients(model), gradients(plain)
    for key in wanted:
        torch.testing.assert_close(found[key], wanted[key])


def test_many_documents_fill_several_buckets_exactly():
    lengths = torch.randint(1, 90, (60,), generator=torch.Generator().manual_seed(5)).tolist()
    groups = [(n % 17, (n, 1 + n // 2, 1 + n // 3)) for n in lengths]
    batch = batch_of(groups)
    model = tiny_model()
    packed = pack(batch)
    plan = PackedPlan(packed.layout)
    area = sum(b.rows * b.queries * b.keys for b in plan.buckets)
    needed = sum((p + r[0]) ** 2 + sum(n * (p + n) for n in r[1:]) for p, r in packed.layout)
    assert len(plan.buckets) > 3
    assert area <= 1.3 * needed
    with torch.no_grad():
        logits, targets = alone(tiny_model(), batch)
        expected = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
        found = token_logprobs(model, packed)[0][packed.source >= 0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_hidden_states_given_are_used():
    model, packed = tiny_model(), pack(batch_of(SHAPES["branches"]))
    hidden = hidden_before(model, packed)
    torch.testing.assert_close(token_logprobs(model, packed, hidden=hidden)[0], token_logprobs(model, packed)[0])


@pytest.mark.usefixtures("attention")
def test_bfloat16_stays_close_to_plain_transformers():
    assert verify_packed(tiny_model().to(torch.bfloat16)) < 0.1
