"""Adapters: the identity at first, the reference when off, plain peft and plain transformers when saved."""

import pytest
import torch
from helpers.tiny import ARCHITECTURES, VOCAB_SIZE, tiny_model
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config

from keel.core.errors import ArtifactError, ConfigError
from keel.models.adapters import add_lora, is_adapted, merged, reference_mode, save_adapter
from keel.models.load import load_causal_lm, save_causal_lm
from keel.models.packed import output_head, verify_packed
from keel.models.settings import LoraConfig

IDS = torch.randint(4, VOCAB_SIZE, (2, 12), generator=torch.Generator().manual_seed(0))

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning"
)  # plain peft 0.21 calls what transformers 5.23 deprecates


def trained(name: str = "llama", config: LoraConfig | None = None) -> PeftModel:
    """A model with adapters that have moved away from the identity."""
    model = add_lora(tiny_model(name), config or LoraConfig(rank=4, alpha=8.0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_new_adapters_change_nothing_and_are_all_that_trains(name):
    model = add_lora(tiny_model(name), LoraConfig())
    assert is_adapted(model)
    assert not is_adapted(tiny_model(name))
    torch.testing.assert_close(logits(model), logits(tiny_model(name)))
    trainable = [key for key, p in model.named_parameters() if p.requires_grad]
    assert trainable
    assert all("lora_" in key for key in trainable)
    assert verify_packed(model) < 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_reference_mode_is_the_model_before_training(name):
    model = trained(name)
    assert not torch.allclose(logits(model), logits(tiny_model(name)), atol=1e-2)
    with reference_mode(model):
        torch.testing.assert_close(logits(model), logits(tiny_model(name)))
        assert verify_packed(model) < 1e-5
    assert not torch.allclose(logits(model), logits(tiny_model(name)), atol=1e-2)
    assert any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_saved_adapters_load_in_plain_peft_with_equal_outputs(name, tmp_path):
    model = trained(name)
    save_adapter(model, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert all("lora_" in key for key in load_file(tmp_path / "adapter_model.safetensors"))
    plain = PeftModel.from_pretrained(tiny_model(name), tmp_path).eval()
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_merged_models_load_in_plain_transformers_with_equal_outputs(name, tmp_path):
    model = trained(name)
    before = logits(model)
    save_causal_lm(tmp_path, merged(model), None)
    torch.testing.assert_close(logits(model), before, atol=0, rtol=0)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(plain), before, atol=5e-5, rtol=1e-4)  # other kernels, other rounding
    torch.testing.assert_close(logits(load_causal_lm(tmp_path, device="cpu")), before, atol=1e-5, rtol=1e-5)


def test_targets_can_be_the_attention_or_named_modules():
    for targets, expected in (("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}), (("down_proj",), {"down_proj"})):
        model = add_lora(tiny_model(), LoraConfig(targets=targets))
        assert {key.split(".lora_")[0].split(".")[-1] for key in model.state_dict() if "lora_" in key} == expected


def test_unknown_targets_are_named_beside_the_known_ones():
    with pytest.raises(ConfigError, match=r"names lm_head, .* it has down_proj, gate_proj"):
        add_lora(tiny_model(), LoraConfig(targets=("q_proj", "lm_head")))


@pytest.mark.parametrize("targets", ["all-linear", "attention"])
def test_a_model_without_linear_layers_is_refused(targets):
    config = GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    with pytest.raises(ConfigError, match=r"GPT2LMHeadModel has no linear layers below.*Leave lora out"):
        add_lora(AutoModelForCausalLM.from_config(config), LoraConfig(targets=targets))


def test_an_output_layer_that_is_not_plain_is_refused():
    model = tiny_model()
    model.set_output_embeddings(torch.nn.Sequential(model.lm_head))
    with pytest.raises(ArtifactError, match="Sequential for an output layer"):
        output_head(model)


def test_a_model_without_adapters_is_told_so(tmp_path):
    assert merged(model := tiny_model()) is model
    for call in (lambda m: save_adapter(m, tmp_path), lambda m: reference_mode(m).__enter__()):
        with pytest.raises(TypeError):
            call(tiny_model())
