"""A trunk whose frozen weights take 4 bits (NF4; QLoRA, Dettmers et al. 2023), by bitsandbytes.

Imported only once `require_bitsandbytes` has found the library.

What a stage has trained is a small change to weights that lie on a coarse grid: folded in and quantised again, most of
it would be rounded away. So adapters of finished stages are carried beside the quantised weights, and each stage
trains new ones on top. Only what is saved for others is folded in, in full precision.
"""

import copy
import json
from pathlib import Path
from typing import Any, cast

import torch
from bitsandbytes import matmul_4bit
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from keel.core.errors import ArtifactError
from keel.models.extras import QUANTISED
from keel.models.layers import decoder_layers
from keel.models.packed import transformer
from keel.models.roles import POLICY

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."  # of names in a file of peft
LEAST_SHARE = 0.9  # of the layers' weights that 4 bits must reach
BASE = ".base_layer"  # what peft calls a layer below its adapter


class QuantisedLinear(Linear4bit):
    """y = x W^T + x A^T B^T with W in 4 bits; A and B are the frozen adapter of finished stages, if there is one.

    The library's own forward is left out: on CPUs with bfloat16 it changes the weights' layout in eval mode, for a
    kernel that has no gradient and rounds float32 to bfloat16, so that sampling and training would no longer agree.
    """

    carried_a: Tensor | None  # [rank, in]
    carried_b: Tensor | None  # [out, rank], scale included

    def __init__(self, linear: nn.Linear, *, double: bool, device: torch.device) -> None:
        super().__init__(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=linear.weight.dtype,
            compress_statistics=double,
            quant_type="nf4",
            device="meta",
        )
        kind: Any = Params4bit
        weight = kind(
            linear.weight.detach(), requires_grad=False, compress_statistics=double, quant_type="nf4", module=self
        )
        self.weight = weight.to(device)
        if linear.bias is not None:
            self.bias = nn.Parameter(linear.bias.detach().to(device), requires_grad=False)
        self.register_buffer("carried_a", None, persistent=False)
        self.register_buffer("carried_b", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self.weight
        y = matmul_4bit(x.to(self.compute_dtype), weight, quant_state=weight.quant_state)
        if self.bias is not None:
            y = y + self.bias
        if self.carried_a is not None and self.carried_b is not None:  # rounded as adapters that are trained are
            a, b = self.carried_a.to(y.dtype), self.carried_b.to(y.dtype)
            y = y + nn.functional.linear(nn.functional.linear(x.to(y.dtype), a), b)
        return y.to(x.dtype)


def quantise(model: Any, *, double: bool, device: torch.device) -> Any:
    """`model`, on the CPU, with the linear layers below its output layer in 4 bits and all of it on `device`.

    Weights that are not needed any more are freed layer by layer.
    """
    trunk = model.base_model
    _require_linear(trunk)
    for name, module in list(trunk.named_modules()):
        if isinstance(module, nn.Linear):
            trunk.set_submodule(name, QuantisedLinear(module, double=double, device=device))
    setattr(trunk, QUANTISED, True)
    return model.to(device).requires_grad_(False)


def _require_linear(trunk: nn.Module) -> None:
    """ArtifactError where much of the decoder layers is held in parameters of no linear layer, such as experts."""
    layers = decoder_layers(trunk)[1]
    linear = {id(module.weight) for module in layers.modules() if isinstance(module, nn.Linear)}
    weights = {name: p for name, p in layers.named_parameters() if p.dim() > 1}
    left = {name: p.numel() for name, p in weights.items() if id(p) not in linear}
    share = 1.0 - sum(left.values()) / sum(p.numel() for p in weights.values())
    if share < LEAST_SHARE:
        largest = sorted(left, key=left.__getitem__, reverse=True)
        examples = list(dict.fromkeys(name.partition(".")[2] for name in largest))[:3]  # without the layer's number
        raise ArtifactError(
            f"model.quantise: only {share:.0%} of the layers of {type(trunk).__name__} can be held in 4 bits; "
            f"{', '.join(examples)} are no linear layers (experts of a mixture often are not). Leave model.quantise "
            "out, and save memory with model.dtype: bfloat16 and model.gradient_checkpointing."
        )


def dequantised(layer: QuantisedLinear) -> Tensor:
    """[out, in] float32: the weight that `layer` computes with, its carried adapter included."""
    packed: Any = layer.weight
    weight = dequantize_4bit(packed.data, packed.quant_state).float()
    if layer.carried_a is None or layer.carried_b is None:
        return weight
    return weight.addmm(layer.carried_b.float(), layer.carried_a.float())


def merged(model: nn.Module) -> nn.Module:
    """A plain transformers model in the precision that `model` computes in, adapters folded into its weights."""
    inner = copy.deepcopy(transformer(model))
    for name, module in list(inner.named_modules()):
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if not isinstance(layer, QuantisedLinear) or name.endswith(BASE):
            continue
        weight = dequantised(layer)
        for a, b in _own(module):
            weight.addmm_(b, a)
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(weight.to(layer.compute_dtype))
        plain.bias = layer.bias
        inner.set_submodule(name, plain)
    delattr(inner.base_model, QUANTISED)
    setattr(inner.config, QUANTISED, True)  # for `was_quantised`
    for trace in ("peft_config", "_hf_peft_config_loaded"):  # of the adapters, on the model that they were put into
        if trace in vars(inner):
            delattr(inner, trace)
    return inner.eval()


def carry(model: nn.Module, folder: Path) -> None:
    """Lay the adapter that `save_adapter` wrote into `folder` beside the quantised weights of `model`."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        tensors, scale = load_file(folder / WEIGHTS), settings["lora_alpha"] / settings["r"]
        pairs = {key: tensors[key.replace(".lora_A.", ".lora_B.")] for key in tensors if key.endswith(".lora_A.weight")}
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, SafetensorError) as error:
        raise ArtifactError(
            f"{folder}: the adapter of a finished stage cannot be read ({error}). Delete that stage's artifact and run "
            "the recipe again."
        ) from error
    modules = dict(model.named_modules())
    for key, carried_b in pairs.items():
        name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        layer = modules.get(name)
        if not isinstance(layer, QuantisedLinear):
            raise ArtifactError(
                f"{folder}: the adapter changes {name}, which this model does not hold in 4 bits. Delete that stage's "
                "artifact and run the recipe again."
            )
        device = layer.weight.device
        layer.carried_a = tensors[key].to(device)
        layer.carried_b = carried_b.to(device) * scale


def whole_adapter(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """A [rank, in] and B [out, rank], scale included, of every changed layer: what is carried beside what is trained.

    All have the same rank; where a layer has less, zeros make up for it.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in transformer(model).named_modules():
        if isinstance(module, QuantisedLinear) and not name.endswith(BASE):
            parts = _carried(module)
        elif isinstance(module, LoraLayer) and isinstance(module.get_base_layer(), QuantisedLinear):
            parts = [*_carried(module.get_base_layer()), *_own(module)]
        else:
            continue
        if parts:
            found[name] = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], 1)
    rank = max((len(a) for a, _ in found.values()), default=0)
    pad = nn.functional.pad
    return {name: (pad(a, (0, 0, 0, rank - len(a))), pad(b, (0, rank - b.shape[1]))) for name, (a, b) in found.items()}


def _carried(layer: Any) -> list[tuple[Tensor, Tensor]]:
    if layer.carried_a is None or layer.carried_b is None:
        return []
    return [(layer.carried_a.float(), layer.carried_b.float())]


def _own(module: Any) -> list[tuple[Tensor, Tensor]]:
    """The adapter that is being trained on `module`."""
    if not isinstance(module, LoraLayer) or POLICY not in module.lora_A:
        return []
    a, b = (cast(Any, matrices)[POLICY].weight.detach().float() for matrices in (module.lora_A, module.lora_B))
    return [(a, b * module.scaling[POLICY])]
