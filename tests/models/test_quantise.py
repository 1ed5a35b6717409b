"""A trunk in 4 bits: plain transformers' own quantised model in outputs and gradients, and nothing trained is lost."""

from pathlib import Path

import pytest
import torch
from helpers.recipes import model_folder
from helpers.tiny import tiny_model, tiny_tokenizer
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, MixtralConfig

from keel.batch.collate import EncodedResponse, token_batch
from keel.batch.pack import pack
from keel.core.errors import ArtifactError, ConfigError
from keel.models import extras
from keel.models.adapters import add_lora, is_quantised, merged, reference_mode, save_adapter
from keel.models.generate import InProcessSampler
from keel.models.load import load_causal_lm, save_causal_lm
from keel.models.packed import token_logprobs, verify_packed
from keel.models.reward import RewardModel
from keel.models.settings import LoraConfig
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig

pytest.importorskip("bitsandbytes", reason="the extra `quant` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # plain peft calls what transformers deprecates

RANK = LoraConfig(rank=4, alpha=8.0)
BATCH = token_batch(
    [(1, 9, 12, 30), (1, 40, 41)],
    [[EncodedResponse(tokens=(50, 51, 2)), EncodedResponse(tokens=(60, 2))], [EncodedResponse(tokens=(70, 71, 72, 2))]],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return model_folder(tmp_path_factory.mktemp("llama") / "model", "llama")


def quantised(folder: Path, how: str = "4bit", **settings):
    return load_causal_lm(folder, quantise=how, device="cpu", **settings)


def moved(model: nn.Module, seed: int = 1, by: float = 0.2) -> nn.Module:
    """With what trains pushed away from where it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def logprobs(model: nn.Module) -> Tensor:
    return token_logprobs(model, pack(BATCH))[0]


def plain_logprobs(model: nn.Module) -> Tensor:
    """Each response alone through the model's own forward."""
    prompts, responses = BATCH.prompt_tokens.split(BATCH.prompt_lengths.tolist()), BATCH.response_tokens
    found = []
    for owner, response in zip(
        BATCH.prompt_of_response.tolist(), responses.split(BATCH.response_lengths.tolist()), strict=True
    ):
        row = torch.cat([prompts[owner], response])
        table = model(input_ids=row[None]).logits[0, :-1].float().log_softmax(-1)
        found.append(table.gather(1, row[1:, None]).squeeze(1)[-len(response) :])
    return torch.cat(found)


@pytest.mark.parametrize("how", ["4bit", "4bit-double"])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2"])
def test_outputs_and_gradients_are_those_of_transformers_own_quantised_model(name, how, tmp_path):
    folder = model_folder(tmp_path / name, name)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=how == "4bit-double",
        bnb_4bit_compute_dtype=torch.float32,
    )
    plain = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, device_map={"": "cpu"})
    for module in plain.modules():
        module.support_avx512bf16_for_cpu = False  # or it computes in bfloat16 on CPUs that can
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    settings = PeftConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    ours, theirs = moved(add_lora(quantised(folder, how), RANK)), get_peft_model(plain, settings).eval()
    adapters = {name: p for name, p in ours.named_parameters() if p.requires_grad}
    assert not theirs.load_state_dict(adapters, strict=False).unexpected_keys
    found, wanted = logprobs(ours), plain_logprobs(theirs)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    found.square().sum().backward()
    wanted.square().sum().backward()
    grads = [[p.grad for p in model.parameters() if p.requires_grad] for model in (ours, theirs)]
    assert len(grads[0]) == len(grads[1]) > 0
    for a, b in zip(*grads, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1.0, b.abs().max().item())


@pytest.mark.parametrize(("how", "bits"), [("4bit", 4.5), ("4bit-double", 4.13)])
def test_a_weight_takes_little_more_than_four_bits(how, bits):
    from keel.models.quantise import QuantisedLinear

    layer = QuantisedLinear(nn.Linear(1024, 512, bias=False), double=how == "4bit-double", device=torch.device("cpu"))
    state = layer.weight.quant_state
    nested = [state.state2.absmax] if state.nested else []
    held = sum(t.numel() * t.element_size() for t in (layer.weight.data, state.absmax, *nested))
    assert 8 * held / (1024 * 512) == pytest.approx(bits, abs=0.01)


def test_a_real_but_tiny_models_predictions_move_by_a_quarter_of_a_nat(shared_models):
    path = shared_models / "stories260k"
    exact, coarse = load_causal_lm(path, device="cpu"), quantised(path)
    tokens = InProcessSampler(exact, {2}).sample([torch.tensor([1])], samples=32, max_new_tokens=64, seed=0)
    batch = token_batch(
        [(1,)], [[EncodedResponse(tokens=tuple(t.tolist())) for t in tokens.tokens.split(tokens.lengths.tolist())]]
    )
    with torch.no_grad():
        difference = token_logprobs(coarse, pack(batch))[0] - token_logprobs(exact, pack(batch))[0]
    assert 0.1 < difference.abs().mean() < 0.5
    assert difference.mean() < 0  # what the exact model said is less likely to the other


def test_a_training_step_changes_adapters_only(folder):
    model = add_lora(quantised(folder), RANK)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimizer([ParameterGroup(parameters=trainable(model))], OptimConfig(learning_rate=0.1), 1)
    for _ in range(2):  # B is zero at first, so that A has no gradient in the first step
        logprobs(model).sum().backward()
        optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if "lora_" in name}
    assert all(p.dtype == torch.float32 for name, p in model.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_sampler_and_the_training_path_agree_and_adapters_off_is_the_reference(folder, dtype):
    model = moved(add_lora(quantised(folder, dtype=dtype), RANK))
    drawn = InProcessSampler(model, {2}).sample([torch.tensor([1, 9, 12])], samples=4, max_new_tokens=8, seed=0)
    responses = [EncodedResponse(tokens=tuple(t.tolist())) for t in drawn.tokens.split(drawn.lengths.tolist())]
    with torch.no_grad():
        again = token_logprobs(model, pack(token_batch([(1, 9, 12)], [responses])))[0]
        tolerance = 1e-5 if dtype == "float32" else 0.3
        torch.testing.assert_close(drawn.logprobs, again, atol=tolerance, rtol=0)
        with reference_mode(model):
            reference = logprobs(model)
        assert torch.equal(reference, logprobs(quantised(folder, dtype=dtype)))
        assert not torch.allclose(reference, logprobs(model), atol=1e-2)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox"])
def test_what_is_saved_for_others_is_a_plain_model_with_equal_outputs(name, tmp_path):
    model = moved(add_lora(quantised(model_folder(tmp_path / "base", name)), RANK))
    whole = merged(model)
    assert is_quantised(model)
    assert not is_quantised(whole)
    save_causal_lm(tmp_path / "saved", whole, tiny_tokenizer())
    with torch.no_grad():
        expected = logprobs(model)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
        assert not hasattr(plain.config, "quantization_config")
        torch.testing.assert_close(plain_logprobs(plain), expected, atol=1e-5, rtol=1e-5)


def test_the_next_stage_starts_from_the_very_policy_that_was_trained(folder, tmp_path):
    first = moved(add_lora(quantised(folder), RANK))
    save_adapter(first, tmp_path / "first")
    begun = add_lora(quantised(folder, adapter=tmp_path / "first"), LoraConfig(rank=2, alpha=4.0, targets="attention"))
    with torch.no_grad():
        torch.testing.assert_close(logprobs(begun), logprobs(first), atol=1e-5, rtol=1e-5)
    second = moved(begun, seed=2)
    with torch.no_grad(), reference_mode(second):
        torch.testing.assert_close(logprobs(second), logprobs(first), atol=1e-5, rtol=1e-5)

    save_adapter(second, tmp_path / "second")
    third = quantised(folder, adapter=tmp_path / "second")
    in_plain_peft = PeftModel.from_pretrained(quantised(folder), tmp_path / "second").eval()
    with torch.no_grad():
        for model in (third, merged(third), in_plain_peft):
            torch.testing.assert_close(logprobs(model), logprobs(second), atol=1e-5, rtol=1e-5)
    assert verify_packed(third) < 1e-5


def test_planted_quantising_the_saved_model_again_would_undo_the_training(folder, tmp_path):
    # a change as small as training makes: dequantised weights lie on the grid, and fall back to where they were
    base = quantised(folder)
    model = moved(add_lora(quantised(folder), RANK), by=0.005)
    save_causal_lm(tmp_path / "saved", merged(model), tiny_tokenizer())
    again = quantised(tmp_path / "saved")
    save_adapter(model, tmp_path / "adapter")
    carried = quantised(folder, adapter=tmp_path / "adapter")

    def change(of: nn.Module) -> float:
        """Length of the weights' change along what was trained, as a share of that."""
        total = squares = 0.0
        for name, layer in base.base_model.named_modules():
            if hasattr(layer, "carried_a"):
                before = dequantised(layer)
                trained = dequantised(carried.base_model.get_submodule(name)) - before
                total += ((dequantised(of.base_model.get_submodule(name)) - before) * trained).sum().item()
                squares += trained.square().sum().item()
        return total / squares

    from keel.models.quantise import dequantised

    assert change(carried) == pytest.approx(1.0)
    assert change(again) < 0.1


@pytest.mark.parametrize("form", ["head", "implicit", "hybrid"])
def test_reward_models_train_adapters_over_four_bits_and_are_saved_whole(form, folder, tmp_path):
    model = RewardModel.from_policy(folder, form=form, lora=RANK, device="cpu", quantise="4bit")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all("lora_" in name or name == "head.weight" for name in trained)
    moved(model)
    model.save(tmp_path / "saved")
    again = RewardModel.load(tmp_path / "saved", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(again.score(pack(BATCH)), model.score(pack(BATCH)), atol=1e-4, rtol=1e-4)


def test_a_damaged_adapter_is_named(folder, tmp_path):
    save_adapter(moved(add_lora(quantised(folder), RANK)), tmp_path)
    weights, settings = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    whole, config = load_file(weights), settings.read_text()
    some = next(name for name in whole if ".lora_B." in name)

    def refused(says: str) -> None:
        with pytest.raises(ArtifactError, match=rf"{says}.*Delete that stage's artifact"):
            quantised(folder, adapter=tmp_path)

    for text in ("{", "[]", "{}", '{"lora_alpha": 4, "r": 0}'):
        settings.write_text(text)
        refused("adapter of a finished stage cannot be read")
    settings.write_text(config)
    save_file({name: tensor for name, tensor in whole.items() if name != some}, weights)
    refused("adapter of a finished stage cannot be read .*lora_B")
    save_file({name.replace("layers.0.", "layers.9."): tensor for name, tensor in whole.items()}, weights)
    refused(r"changes model\.layers\.9\..*which this model does not hold in 4 bits")
    weights.write_bytes(b"torn")
    refused("adapter of a finished stage cannot be read")


def test_without_the_library_one_error_names_the_setting_and_the_command(folder, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"model\.quantise: 4bit needs .*pip install 'keel-rlhf\[quant\]'"):
        quantised(folder)


def test_a_model_in_full_precision_is_not_quantised():
    assert not is_quantised(tiny_model())
    assert not is_quantised(add_lora(tiny_model(), RANK))


SHAPE = {"vocab_size": 112, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            MixtralConfig(**SHAPE, intermediate_size=64, num_key_value_heads=2, num_local_experts=4),
            r"only 11% of the layers of MixtralModel can be held in 4 bits; mlp\.experts\.gate_up_proj, "
            r"mlp\.experts\.down_proj, mlp\.gate\.weight are no linear layers",
        ),
        (GPT2Config(**SHAPE, bos_token_id=1, eos_token_id=2), r"only 0% of the layers of GPT2Model.*mlp\.c_fc\.weight"),
    ],
    ids=["mixtral", "gpt2"],
)
def test_a_model_of_which_little_can_be_quantised_is_refused(config, says):
    from keel.models.quantise import quantise  # needs the library

    with pytest.raises(ArtifactError, match=rf"{says}.*Leave model\.quantise out.*bfloat16"):
        quantise(AutoModelForCausalLM.from_config(config), double=False, device=torch.device("cpu"))
