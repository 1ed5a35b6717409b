"""Reward models against plain transformers, against their definition, and through a folder and back."""

import json

import pytest
import torch
from helpers.tiny import ARCHITECTURES, EOS, PAD, VOCAB_SIZE, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from keel.batch.pack import pack
from keel.batch.types import TokenBatch
from keel.core.errors import ArtifactError
from keel.models.adapters import is_adapted
from keel.models.load import save_causal_lm
from keel.models.packed import token_logprobs
from keel.models.reward import RewardModel, settle_padding
from keel.models.settings import LoraConfig

FORMS = ("head", "implicit", "hybrid")
PROMPTS, LENGTHS, FANOUT = (4, 7, 3), (5, 9, 6, 2, 8), (2, 2, 1)


@pytest.fixture
def policy(tmp_path):
    """A function that saves a tiny policy and gives its folder."""

    def make(name: str = "llama", seed: int = 0, tokenizer=None, **changes):
        folder = tmp_path / f"policy-{name}-{seed}"
        save_causal_lm(folder, tiny_model(name, seed, **changes), tokenizer or tiny_tokenizer())
        return folder

    return make


def batch(vocabulary: int = VOCAB_SIZE) -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    responses = torch.randint(4, vocabulary, (sum(LENGTHS),), generator=generator)
    responses[torch.tensor(LENGTHS).cumsum(0) - 1] = EOS
    return TokenBatch(
        prompt_lengths=torch.tensor(PROMPTS),
        fanout=torch.tensor(FANOUT),
        prompt_tokens=torch.randint(4, vocabulary, (sum(PROMPTS),), generator=generator),
        response_lengths=torch.tensor(LENGTHS),
        response_tokens=responses,
        response_mask=torch.ones(sum(LENGTHS), dtype=torch.bool),
    )


def documents(rows: TokenBatch) -> list[torch.Tensor]:
    prompts = rows.prompt_tokens.split(rows.prompt_lengths.tolist())
    responses = rows.response_tokens.split(rows.response_lengths.tolist())
    return [torch.cat([prompts[p], r]) for p, r in zip(rows.prompt_of_response.tolist(), responses, strict=True)]


def nudge(model: RewardModel, by: float = 0.05) -> RewardModel:
    """As after some training: everything trainable has moved."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def plain_scores(folder, *, padded: bool) -> torch.Tensor:
    """Scores of plain transformers, one row at a time or as one right-padded batch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    docs = documents(batch())
    if not padded:
        return torch.cat([model(input_ids=doc[None]).logits[0] for doc in docs])
    pad = AutoTokenizer.from_pretrained(folder).pad_token_id
    ids = torch.nn.utils.rnn.pad_sequence(docs, batch_first=True, padding_value=pad)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(doc) for doc in docs], batch_first=True)
    return model(input_ids=ids, attention_mask=mask).logits[:, 0]


@torch.no_grad()
def scores(model: RewardModel, **options) -> torch.Tensor:
    return model.score(pack(batch()), **options)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_plain_transformers_scores_a_saved_model_identically(name, policy, tmp_path):
    model = nudge(RewardModel.from_policy(policy(name), device="cpu"))
    model.save(tmp_path / "reward")
    for padded in (False, True):
        torch.testing.assert_close(
            plain_scores(tmp_path / "reward", padded=padded), scores(model), atol=5e-6, rtol=5e-6
        )
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").config
    assert (config.num_labels, config.problem_type, config.pad_token_id) == (1, "regression", PAD)
    assert not list((tmp_path / "reward").glob("**/*.bin"))
    assert "keel" not in (tmp_path / "reward" / "config.json").read_text()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_model_loads_to_the_same_scores(name, form, policy, tmp_path):
    model = nudge(RewardModel.from_policy(policy(name), form=form, beta=0.3, device="cpu"))
    model.mean, model.std = 0.5, 2.0
    model.save(tmp_path / "reward")
    again = RewardModel.load(tmp_path / "reward", device="cpu")
    torch.testing.assert_close(scores(again), scores(model), atol=1e-6, rtol=1e-6)
    assert (again.form, again.beta, again.mean, again.std, again.freeze) == (form, 0.3, 0.5, 2.0, True)
    assert not again.training
    trainable = [sorted(n for n, p in m.named_parameters() if p.requires_grad) for m in (model, again)]
    assert trainable[0] == trainable[1]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("form", ["implicit", "hybrid"])
def test_the_implicit_part_is_beta_times_the_summed_log_ratio(form, tied, policy, tmp_path):
    folder = policy(tie_word_embeddings=tied)
    model = nudge(RewardModel.from_policy(folder, form=form, beta=0.3, device="cpu"))
    packed, rows = pack(batch()), batch()
    with torch.no_grad():
        ratio = (
            token_logprobs(model.network, packed)[0] - token_logprobs(tiny_model(tie_word_embeddings=tied), packed)[0]
        )
    implicit = 0.3 * rows.sum_per_response(ratio)
    model.save(tmp_path / "reward")
    assert (tmp_path / "reward" / "lm_head.safetensors").is_file() == (not tied)
    expected = implicit + plain_scores(tmp_path / "reward", padded=True)
    torch.testing.assert_close(scores(model), expected, atol=1e-5, rtol=1e-5)
    if form == "implicit":
        torch.testing.assert_close(scores(model), implicit, atol=1e-5, rtol=1e-5)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "reward" / "reference")
    torch.testing.assert_close(reference.state_dict(), tiny_model(tie_word_embeddings=tied).state_dict())


def test_given_reference_logprobs_stand_in_for_the_reference(policy):
    model = nudge(RewardModel.from_policy(policy(), form="hybrid", beta=0.3, device="cpu"))
    with torch.no_grad():
        given, _ = token_logprobs(model.reference, pack(batch()))
    expected = scores(model)
    model.reference.forward = None
    torch.testing.assert_close(scores(model, ref_logprobs=given), expected)
    shift = torch.full_like(given, 0.1)
    shifted = expected - 0.3 * batch().sum_per_response(shift)
    torch.testing.assert_close(scores(model, ref_logprobs=given + shift), shifted)


@pytest.mark.parametrize("form", FORMS)
def test_a_fresh_model_starts_as_its_definition_says(form, policy):
    model = RewardModel.from_policy(policy(), form=form, device="cpu", seed=5)
    head = model.head.weight
    if form == "implicit":
        assert not head.any()
        assert scores(model).abs().max() < 1e-5
    else:
        assert 0.6 < head.std() * 33**0.5 < 1.4
        again = RewardModel.from_policy(policy(), form=form, device="cpu", seed=5)
        assert torch.equal(head, again.head.weight)
        assert not torch.equal(head, RewardModel.from_policy(policy(), form=form, device="cpu", seed=6).head.weight)
        equal = RewardModel.from_policy(policy(), form=form, device="cpu", head_scale=0.0)
        assert scores(equal).abs().max() < 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("frozen", [True, False])
def test_only_what_the_form_needs_is_trained(form, frozen, policy):
    model = RewardModel.from_policy(policy(), form=form, freeze_embeddings=frozen, device="cpu").train()
    assert not (model.reference and model.reference.training)
    model.score(pack(batch())).square().sum().backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    asked = {name for name, p in model.named_parameters() if p.requires_grad}
    assert got == asked
    assert any("embed_tokens" in name for name in got) != frozen
    assert any("lm_head" in name for name in got) == (form != "head")
    assert ("head.weight" in got) == (form != "implicit")
    assert not any(name.startswith("reference") for name in got)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox"])
def test_a_reward_model_with_adapters_is_saved_merged(name, form, policy, tmp_path):
    lora = LoraConfig(rank=4)
    model = nudge(RewardModel.from_policy(policy(name), form=form, lora=lora, device="cpu"))
    assert is_adapted(model.network)
    asked = {key for key, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in key or key == "head.weight" for key in asked)
    before = scores(model)
    model.save(tmp_path / "reward")
    torch.testing.assert_close(scores(model), before, atol=0, rtol=0)
    if form == "head":
        torch.testing.assert_close(plain_scores(tmp_path / "reward", padded=True), before, atol=2e-6, rtol=2e-6)
    again = RewardModel.load(tmp_path / "reward", device="cpu")
    assert not is_adapted(again.network)
    torch.testing.assert_close(scores(again), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_kept(form, policy, tmp_path):
    model = RewardModel.from_policy(policy(), form=form, dtype="bfloat16", device="cpu")
    model.save(tmp_path / "reward")
    again = RewardModel.load(tmp_path / "reward", device="cpu")
    assert {p.dtype for p in again.network.parameters()} == {torch.bfloat16}
    assert again.head.weight.dtype == torch.float32  # small updates would round to nothing
    assert scores(again).dtype == torch.float32
    # The head is rounded once, when it is saved beside the trunk.
    torch.testing.assert_close(scores(again), scores(model), atol=0.02, rtol=0.02)


def test_any_classifier_with_one_label_can_judge(tmp_path, policy):
    plain = AutoModelForSequenceClassification.from_pretrained(policy(), num_labels=1)
    torch.nn.init.normal_(plain.score.weight, generator=torch.Generator().manual_seed(0))
    plain.save_pretrained(tmp_path / "plain")
    tiny_tokenizer().save_pretrained(tmp_path / "plain")
    model = RewardModel.load(tmp_path / "plain", device="cpu")
    assert (model.form, model.mean, model.std) == ("head", 0.0, 1.0)
    torch.testing.assert_close(scores(model), plain_scores(tmp_path / "plain", padded=True), atol=5e-6, rtol=5e-6)


def test_a_classifier_with_several_labels_is_refused(tmp_path, policy):
    AutoModelForSequenceClassification.from_pretrained(policy(), num_labels=3).save_pretrained(tmp_path / "plain")
    with pytest.raises(ArtifactError, match="it has 3 labels"):
        RewardModel.load(tmp_path / "plain", device="cpu")


def test_a_causal_model_is_refused_as_a_reward_model(policy):
    with pytest.raises(ArtifactError, match=r"score\.weight"):
        RewardModel.load(policy(), device="cpu")


def test_a_damaged_record_is_named(policy, tmp_path):
    RewardModel.from_policy(policy(), device="cpu").save(tmp_path / "reward")
    for text in ("{", "[]", json.dumps({"form": "other"})):
        (tmp_path / "reward" / "reward.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"reward\.json is damaged"):
            RewardModel.load(tmp_path / "reward", device="cpu")


def test_a_missing_output_layer_is_named(policy, tmp_path):
    RewardModel.from_policy(policy(), form="hybrid", device="cpu").save(tmp_path / "reward")
    (tmp_path / "reward" / "lm_head.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"lm_head\.safetensors is missing"):
        RewardModel.load(tmp_path / "reward", device="cpu")


def settled(**tokens):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    settle_padding(model, tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert tokenizer.pad_token_id not in {tokenizer.eos_token_id, tokenizer.bos_token_id}
    assert tokenizer.pad_token_id < model.get_input_embeddings().num_embeddings
    return tokenizer.pad_token


def test_padding_never_is_the_token_that_ends_responses():
    assert settled() == "<pad>"
    assert settled(pad_token="</s>") == "<pad>"
    assert settled(pad_token=None) == "<pad>"
    assert settled(pad_token="</s>", eos_token="<pad>") == "<unk>"
    assert settled(pad_token="<pad>", eos_token="<pad>", unk_token="<pad>") == "<|pad|>"


def test_a_new_padding_token_makes_room_in_the_embeddings(policy, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = tokenizer.unk_token = "<pad>"
    folder = policy(tokenizer=tokenizer, vocab_size=len(tokenizer))
    model = nudge(RewardModel.from_policy(folder, form="hybrid", device="cpu"))
    assert model.tokenizer.pad_token_id == len(tokenizer)
    assert model.reference.get_input_embeddings().num_embeddings == len(tokenizer) + 1
    model.save(tmp_path / "reward")
    packed = pack(batch(len(tokenizer)))
    again = RewardModel.load(tmp_path / "reward", device="cpu")
    torch.testing.assert_close(again.score(packed), model.score(packed))
