"""Gradient checkpointing: the same gradients to the bit, in training and in eval mode, from fewer kept bytes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.recipes import model_folder
from helpers.tiny import ARCHITECTURES
from torch import Tensor, nn

from keel.batch.collate import EncodedResponse, token_batch
from keel.batch.pack import pack
from keel.models.adapters import add_lora, merged
from keel.models.generate import InProcessSampler
from keel.models.layers import decoder_layers
from keel.models.load import load_causal_lm
from keel.models.packed import logprobs_and_entropy, transformer
from keel.models.reward import RewardModel
from keel.models.settings import LoraConfig

BATCH = token_batch(
    [tuple(range(4, 24)), (1, 40, 41)],
    [
        [EncodedResponse(tokens=tuple(range(30, 50))), EncodedResponse(tokens=(60, 2))],
        [EncodedResponse(tokens=(70, 2))],
    ],
)


def pair(folder: Any, **settings: Any) -> tuple[nn.Module, nn.Module]:
    """The same model without and with checkpointing."""
    return tuple(load_causal_lm(folder, device="cpu", gradient_checkpointing=on, **settings) for on in (False, True))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    logprobs, entropy = logprobs_and_entropy(model, pack(BATCH))
    (logprobs.sum() + 0.1 * entropy.sum()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(compute: Callable[[], Tensor]) -> int:
    """Bytes that a forward pass leaves for its backward pass, each storage once."""
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute()
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_are_the_same_to_the_bit(name, training, tmp_path):
    deeper = {} if name == "gemma3" else {"num_hidden_layers": 3}  # it lists the kind of every layer
    plain, again = (model.train(training) for model in pair(model_folder(tmp_path / name, name, **deeper)))
    wanted, found = gradients(plain), gradients(again)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_every_layer_but_the_last_runs_again_in_eval_mode_too(tmp_path):
    model = pair(model_folder(tmp_path / "m", num_hidden_layers=4))[1].eval()
    layers, runs = decoder_layers(model.base_model)[1], [0] * 4
    for number, layer in enumerate(layers):

        def count(*_: Any, number: int = number) -> None:
            runs[number] += 1

        layer.mlp.register_forward_pre_hook(count)
    gradients(model)
    assert runs == [2, 2, 2, 1]
    with torch.no_grad():
        logprobs_and_entropy(model, pack(BATCH))
    InProcessSampler(model, {2}).sample([torch.tensor([1, 9])], samples=1, max_new_tokens=1, seed=0)
    assert runs == [4, 4, 4, 3]


def test_adapters_train_the_same_and_dropout_draws_the_same(tmp_path):
    folder, found = model_folder(tmp_path / "m", num_hidden_layers=3), []
    for model in pair(folder):
        torch.manual_seed(0)
        adapted = add_lora(model, LoraConfig(rank=4, dropout=0.3)).train()
        found.append(gradients(adapted))
    assert found[0].keys() == found[1].keys()
    assert all("lora_" in key and torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_far_less_is_kept_for_the_backward_pass(tmp_path):
    plain, again = pair(model_folder(tmp_path / "m", num_hidden_layers=8))
    packed = pack(BATCH)
    weights = sum(p.numel() * p.element_size() for p in plain.parameters())
    whole, less = (
        kept_bytes(lambda model=model: logprobs_and_entropy(model, packed)[0].sum()) - weights
        for model in (plain, again)
    )
    assert less < 0.4 * whole


def test_a_reward_model_and_a_merged_copy_work_as_before(tmp_path):
    folder = model_folder(tmp_path / "m")
    plain, again = (
        RewardModel.from_policy(folder, device="cpu", lora=LoraConfig(rank=2), gradient_checkpointing=on)
        for on in (False, True)
    )
    with torch.no_grad():
        for a, b in zip(plain.parameters(), again.parameters(), strict=True):
            b.copy_(a)
    scores = [model.score(pack(BATCH)) for model in (plain, again)]
    for score in scores:
        score.sum().backward()
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(plain.head.weight.grad, again.head.weight.grad)
    again.save(tmp_path / "saved")
    loaded = RewardModel.load(tmp_path / "saved", device="cpu", gradient_checkpointing=True)
    torch.testing.assert_close(loaded.score(pack(BATCH)), scores[0], atol=1e-6, rtol=1e-5)
    copied = transformer(merged(again.network))  # a copy's layers are its own
    assert decoder_layers(copied)[1][0].forward.args[0].__self__ is decoder_layers(copied)[1][0]
