"""Models and tokenizers in and out, and what is said when they cannot be read."""

import json
import shutil

import pytest
import torch
from helpers.tiny import ARCHITECTURES, CHAT_TEMPLATE, EOS, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from keel.core.errors import ArtifactError, ConfigError, TrainingError
from keel.models.generate import InProcessSampler
from keel.models.load import (
    context_length,
    eos_ids,
    freeze_embeddings,
    hidden_size,
    load_causal_lm,
    load_tokenizer,
    parameters_to_train,
    save_causal_lm,
)

IDS = torch.tensor([[1, 9, 30, 55, 17]])


@pytest.fixture
def folder(tmp_path):
    save_causal_lm(tmp_path / "model", tiny_model(), tiny_tokenizer(chat=True))
    return tmp_path / "model"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_saved_model_loads_here_and_in_plain_transformers_with_equal_outputs(name, tmp_path):
    model = tiny_model(name)
    InProcessSampler(model, {EOS}).sample([IDS[0]], samples=1, max_new_tokens=2)  # switches its attention
    save_causal_lm(tmp_path, model, tiny_tokenizer())
    assert "keel" not in (tmp_path / "config.json").read_text()
    expected = tiny_model(name)(input_ids=IDS).logits
    torch.testing.assert_close(AutoModelForCausalLM.from_pretrained(tmp_path)(input_ids=IDS).logits, expected)
    loaded = load_causal_lm(tmp_path, device="cpu")
    torch.testing.assert_close(loaded(input_ids=IDS).logits, expected)
    assert not loaded.training


def test_loading_and_saving_print_nothing(folder, tmp_path, capfd):
    model, tokenizer = load_causal_lm(folder, device="cpu"), load_tokenizer(folder)
    save_causal_lm(tmp_path / "again", model, tokenizer)
    assert capfd.readouterr() == ("", "")


def test_the_dtype_is_as_asked(folder):
    assert load_causal_lm(folder, "bfloat16", device="cpu").dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="dtype 'float16' is unknown"):
        load_causal_lm(folder, "float16", device="cpu")


def test_generation_settings_with_a_temperature_can_be_saved(tmp_path):
    model = tiny_model()
    model.generation_config.temperature = 0.6
    save_causal_lm(tmp_path, model, None)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.temperature == 0.6


def test_responses_end_with_the_tokens_of_tokenizer_and_generation_settings():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.generation_config.eos_token_id = [1, 5]
    assert eos_ids(model, tokenizer) == {1, 2, 5}
    model.generation_config.eos_token_id = None
    assert eos_ids(model, tokenizer) == {2}


def test_sizes_are_those_of_the_config():
    assert hidden_size(tiny_model("gemma3")) == 32
    assert context_length(tiny_model("gpt_neox")) == 256


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_frozen_embeddings_are_left_out_of_training(name):
    model = tiny_model(name)
    every = len(list(model.parameters()))
    freeze_embeddings(model)
    assert not model.get_input_embeddings().weight.requires_grad
    assert len(parameters_to_train(model)) == every - 1
    with pytest.raises(TrainingError, match="Nothing is left to train"):
        parameters_to_train(model.requires_grad_(False))


def refused(path, match):
    with pytest.raises(ArtifactError, match=match):
        load_causal_lm(path, device="cpu")


def test_a_folder_that_is_no_model_is_named_with_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, r"is not a model folder: it has no config\.json \(it holds notes\.txt\)")
    with pytest.raises(ArtifactError, match="is not a model folder"):
        load_tokenizer(tmp_path)


def test_a_path_that_does_not_exist_or_is_a_file_is_named(tmp_path, folder):
    refused(tmp_path / "absent", "absent does not exist")
    refused("./absent", "does not exist")
    refused(folder / "config.json", "is a file")


def test_pickled_weights_are_refused_with_the_remedy(folder):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), folder / "pytorch_model.bin")
    refused(folder, r"no \*\.safetensors file; keel reads no pickled weights")


def test_damaged_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    refused(folder, "does not load")


def test_missing_weights_are_counted_not_drawn_at_random(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, r"1 weights are missing, such as model\.layers\.1\.mlp\.up_proj\.weight")


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    refused(folder, r"6 weights have the wrong shape, such as model\.layers\.0\.mlp\.down_proj\.weight")


def test_code_that_comes_with_a_model_does_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    own = {"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps({**config, **own}))
    (folder / "own.py").write_text("raise SystemExit('ran')")
    refused(folder, "brings its own code")


def test_a_folder_without_tokenizer_is_refused(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ArtifactError, match="no tokenizer can be read"):
        load_tokenizer(folder)


def test_a_tokenizer_without_an_end_is_refused(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    shutil.rmtree(folder)
    save_causal_lm(folder, tiny_model(), tokenizer)
    with pytest.raises(ArtifactError, match="no end-of-sequence token"):
        load_tokenizer(folder)


def test_a_chat_template_is_text_or_a_file(folder, tmp_path):
    assert load_tokenizer(folder).chat_template == CHAT_TEMPLATE
    assert load_tokenizer(folder, chat_template="{{ messages }}").chat_template == "{{ messages }}"
    (tmp_path / "template.jinja").write_text("{{ bos_token }}")
    assert load_tokenizer(folder, chat_template=str(tmp_path / "template.jinja")).chat_template == "{{ bos_token }}"
    with pytest.raises(ConfigError, match="neither a Jinja template nor a readable file"):
        load_tokenizer(folder, chat_template=str(tmp_path / "absent.jinja"))


@pytest.mark.shared
def test_a_real_model_tells_a_story_as_in_transformers(shared_models):
    path = shared_models / "stories260k"
    model, tokenizer = load_causal_lm(path, device="cpu"), load_tokenizer(path)
    assert eos_ids(model, tokenizer) == {1, 2}
    prompt = torch.tensor([1, *tokenizer("Once upon a time", add_special_tokens=False).input_ids])
    drawn = InProcessSampler(model, {1, 2}).sample([prompt], samples=1, max_new_tokens=60, temperature=0.0)
    plain = AutoModelForCausalLM.from_pretrained(path).generate(prompt[None], max_new_tokens=60, do_sample=False)
    assert drawn.tokens.tolist() == plain[0, len(prompt) :].tolist()


def test_a_real_model_loads_in_bfloat16_whose_rounding_is_no_leak(shared_models):
    model = load_causal_lm(shared_models / "stories260k", "bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
