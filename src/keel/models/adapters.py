"""LoRA through peft: adapters on, off (the reference policy), saved alone, or merged into the weights."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
from peft import PeftModel, TaskType
from torch import nn

from keel.core.errors import ConfigError
from keel.models.load import quiet
from keel.models.settings import LoraConfig


def add_lora(model: Any, config: LoraConfig) -> PeftModel:
    """`model`, a causal language model or a trunk, with trainable adapters; all else is frozen.

    The adapters begin as the identity. Their random half is drawn from torch's global generator.
    """
    language = model.get_output_embeddings() is not None
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft computes with it and takes any number
        lora_dropout=config.dropout,
        target_modules=_targets(model, config),
        task_type=TaskType.CAUSAL_LM if language else TaskType.FEATURE_EXTRACTION,
    )
    with _calm():
        adapted = peft.get_peft_model(model, settings)
    if not isinstance(adapted, PeftModel):
        raise TypeError(f"peft made a {type(adapted).__name__} of {type(model).__name__}")
    return adapted


def is_adapted(model: nn.Module) -> bool:
    return isinstance(model, PeftModel)


@contextmanager
def reference_mode(model: nn.Module) -> Iterator[None]:
    """Within it, `model` is what it was before `add_lora`, whatever its adapters have learned."""
    if not isinstance(model, PeftModel):
        raise TypeError("only a model with adapters holds its own reference; load a copy of the model instead")
    with model.disable_adapter():
        yield


def save_adapter(model: nn.Module, directory: Path) -> None:
    """The adapters alone, as safetensors that `PeftModel.from_pretrained(base, directory)` loads."""
    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} has no adapters to save")
    with _calm():
        model.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)


def merged(model: nn.Module) -> nn.Module:
    """A copy of `model` with its adapters folded into the weights; a model without adapters is returned as it is."""
    if not isinstance(model, PeftModel):
        return model
    with _calm():
        return copy.deepcopy(model).merge_and_unload().eval()


def _targets(model: Any, config: LoraConfig) -> str | list[str]:
    trunk = model.base_model
    linear = [name for name, module in trunk.named_modules() if isinstance(module, nn.Linear)]
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
