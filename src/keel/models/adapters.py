"""Low-rank adapters through peft: the reference policy is the same network with them off."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from torch import nn

from keel.core.errors import ConfigError
from keel.models.load import quiet
from keel.models.settings import LoraConfig

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value", "dense", "c_attn")
"""Names that decoders give to the linear layers of their attention."""


def add_lora(model: nn.Module, config: LoraConfig) -> PeftModel:
    """The model with fresh adapters, which alone ask for gradients; outputs are unchanged at first (B is zero)."""
    targets: Any = config.targets
    if targets == "attention":
        targets = [name for name in ATTENTION if any(n.endswith(f".{name}") for n, _ in model.named_modules())]
    elif not isinstance(targets, str):
        targets = list(targets)
    peft_config = PeftLoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=targets, bias="none"
    )
    try:
        adapted = get_peft_model(model, peft_config)
    except ValueError as error:
        raise ConfigError(
            f"lora.targets: {config.targets!r} fits no layer of {type(model).__name__} ({error}). "
            "Use all-linear, attention, or names that model.named_modules() lists."
        ) from error
    return adapted.train(model.training)


@contextmanager
def reference_mode(model: nn.Module) -> Iterator[None]:
    """Within it the adapters are off: the model is the one that they were added to."""
    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} has no adapters to switch off")
    with model.disable_adapter():
        yield


def save_adapter(model: nn.Module, folder: Path) -> None:
    """The adapters alone, as a folder that plain peft loads."""
    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} has no adapters to save")
    with quiet():
        model.save_pretrained(folder)


def merged(model: nn.Module) -> nn.Module:
    """The plain model with the adapters added into its weights. `model` is used up by this."""
    if not isinstance(model, PeftModel):
        return model
    return model.merge_and_unload()
