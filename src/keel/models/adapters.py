"""LoRA through peft: adapters on, off (the reference policy), saved alone, or merged into the weights."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
from peft import PeftModel, TaskType
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from keel.core.errors import ConfigError
from keel.models.extras import QUANTISED
from keel.models.layers import decoder_layers
from keel.models.load import quiet
from keel.models.packed import transformer
from keel.models.roles import POLICY, give_roles, role, set_role
from keel.models.settings import LoraConfig


def add_lora(model: Any, config: LoraConfig) -> PeftModel:
    """`model`, a causal language model or a trunk, with trainable adapters; all else is frozen.

    The adapters begin as the identity. Their random half is drawn from torch's global generator.
    """
    with _calm():
        adapted = peft.get_peft_model(model, _settings(model, config))
    if not isinstance(adapted, PeftModel):
        raise TypeError(f"peft made a {type(adapted).__name__} of {type(model).__name__}")
    give_roles(adapted)
    return adapted


def add_role(model: PeftModel, name: str, config: LoraConfig, tensors: dict[str, Tensor]) -> None:
    """A further, frozen adapter on the same weights; `keel.models.roles.role` lets it act.

    `tensors` as `role_tensors` gives them; ValueError when they do not fit `config`.
    """
    with _calm():
        model.add_adapter(name, _settings(transformer(model), config))
    give_roles(model)
    for path, parameter in model.named_parameters():
        if f".{name}." in path:
            parameter.requires_grad_(False)
    set_role(model, tensors, name)


def _settings(model: Any, config: LoraConfig) -> peft.LoraConfig:
    language = model.get_output_embeddings() is not None
    name, layers = decoder_layers(model.base_model)
    chosen = None if config.last_layers is None else list(range(len(layers)))[-config.last_layers :]
    if config.last_layers is not None and config.last_layers > len(layers):
        raise ConfigError(f"lora.last_layers is {config.last_layers}, but the model has {len(layers)} layers.")
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft computes with it and takes any number
        lora_dropout=config.dropout,
        target_modules=_targets(model, config),
        layers_to_transform=chosen,
        layers_pattern=None if chosen is None else name,
        task_type=TaskType.CAUSAL_LM if language else TaskType.FEATURE_EXTRACTION,
    )


def is_adapted(model: nn.Module) -> bool:
    return isinstance(model, PeftModel)


def is_quantised(model: nn.Module) -> bool:
    """Whether the weights of `model` are held in 4 bits."""
    return getattr(transformer(model).base_model, QUANTISED, False)


@contextmanager
def reference_mode(model: nn.Module) -> Iterator[None]:
    """Within it, `model` is what it was before `add_lora`, whatever its adapters have learned."""
    if not isinstance(model, PeftModel):
        raise TypeError("only a model with adapters holds its own reference; load a copy of the model instead")
    with role(model, None):
        yield


def save_adapter(model: nn.Module, directory: Path) -> None:
    """The adapters alone, as safetensors that `PeftModel.from_pretrained(base, directory)` loads.

    Over a model in 4 bits they hold what finished stages have trained too: `base` is the model that was quantised.
    """
    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} has no adapters to save")
    if is_quantised(model):
        _save_whole(model, directory)
        return
    with _calm():
        model.save_pretrained(
            str(directory), safe_serialization=True, save_embedding_layers=False, selected_adapters=[POLICY]
        )


def merged(model: nn.Module) -> nn.Module:
    """A copy of `model` with its adapters folded into the weights; a model without adapters is returned as it is.

    Weights in 4 bits become those that they stand for, in the precision that the model computes in.
    """
    if is_quantised(model):
        from keel.models import quantise

        return quantise.merged(model)
    if not isinstance(model, PeftModel):
        return model
    with _calm():
        return copy.deepcopy(model).merge_and_unload(adapter_names=[POLICY]).eval()


def _save_whole(model: PeftModel, directory: Path) -> None:
    """What is carried beside quantised weights and what is trained, as one adapter of scale 1."""
    from keel.models.quantise import PREFIX, WEIGHTS, whole_adapter

    adapter = whole_adapter(model)
    rank = max(len(a) for a, _ in adapter.values())
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted({name.rpartition(".")[2] for name in adapter}),
        task_type=model.active_peft_config.task_type,
        base_model_name_or_path=transformer(model).name_or_path,
        inference_mode=True,
    )
    directory.mkdir(parents=True, exist_ok=True)
    settings.save_pretrained(str(directory))
    tensors = {f"{PREFIX}{name}.lora_A.weight": a for name, (a, _) in adapter.items()}
    tensors |= {f"{PREFIX}{name}.lora_B.weight": b for name, (_, b) in adapter.items()}
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, directory / WEIGHTS)


def _targets(model: Any, config: LoraConfig) -> str | list[str]:
    trunk = model.base_model
    adapted = tuple(f"{name}." for name, module in trunk.named_modules() if isinstance(module, LoraLayer))
    linear = [
        name
        for name, module in trunk.named_modules()
        if isinstance(module, nn.Linear | LoraLayer) and not name.startswith(adapted)
    ]
    if not linear and isinstance(config.targets, str):
        raise ConfigError(
            f"lora: {type(model).__name__} has no linear layers below its output layer, which adapters could change "
            "(GPT-2's are of another kind). Leave lora out and train all weights, or choose another model."
        )
    if config.targets == "attention":
        owners = {name: type(trunk.get_submodule(name.rpartition(".")[0])).__name__ for name in linear}
        return sorted({name.rpartition(".")[2] for name, owner in owners.items() if "Attention" in owner})
    if config.targets == "all-linear":
        return sorted({name.rpartition(".")[2] for name in linear})
    known = {name.rpartition(".")[2] for name in linear}
    unknown = [target for target in config.targets if not any(n == target or n.endswith(f".{target}") for n in linear)]
    if unknown or not config.targets:
        raise ConfigError(
            f"lora.targets names {', '.join(unknown) or 'nothing'}, which {type(model).__name__} does not have below "
            f"its output layer; it has {', '.join(sorted(known))}."
        )
    return list(config.targets)


@contextmanager
def _calm() -> Iterator[None]:
    """Without notices of peft and transformers to each other."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
