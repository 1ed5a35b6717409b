"""Causal language models and tokenizers, in and out, in transformers' own format; weights as safetensors only."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from keel.core.errors import ArtifactError, ConfigError, TrainingError
from keel.models.extras import QUANTISED, require_bitsandbytes
from keel.models.packed import transformer, verify_packed
from keel.models.recompute import recompute_layers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    ImportError,
    SafetensorError,
)  # what transformers raises for what it cannot load


def load_tokenizer(path: str | Path, chat_template: str | None = None, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder or hub name; `chat_template` (Jinja, or a file of it) replaces its own."""
    check_folder(path)
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except UNREADABLE as error:
        raise ArtifactError(
            f"{path}: no tokenizer can be read: {_first_line(error)}. Expected tokenizer.json and "
            "tokenizer_config.json beside config.json; save one there with tokenizer.save_pretrained."
        ) from error
    if tokenizer.eos_token_id is None:
        raise ArtifactError(
            f"{path}: the tokenizer has no end-of-sequence token, so no response could end. Set eos_token in "
            "tokenizer_config.json."
        )
    if chat_template is not None:
        tokenizer.chat_template = _template(chat_template)
    return tokenizer


def load_causal_lm(
    path: str | Path,
    dtype: str = "float32",
    *,
    trust_remote_code: bool = False,
    device: str = "auto",
    quantise: str | None = None,
    adapter: Path | None = None,
    gradient_checkpointing: bool = False,
    verify: bool = True,
) -> PreTrainedModel:
    """A causal language model in eval mode, complete, and with `verify` proven exact on packed rows.

    `quantise` as in `ModelConfig`; with it `adapter` is a folder of `save_adapter` whose adapter is part of the model.
    """
    model = read_model(AutoModelForCausalLM, path, dtype=torch_dtype(dtype), trust_remote_code=trust_remote_code)
    target = resolve_device(device)
    model = model.to(target).eval() if quantise is None else _quantised(model, quantise, target, adapter)
    if gradient_checkpointing:
        recompute_layers(model.base_model)
    if verify:
        verify_packed(model)
    return model


def _quantised(model: Any, how: str, device: torch.device, adapter: Path | None) -> Any:
    """`model` with its linear layers in 4 bits, and the adapter of finished stages beside them."""
    require_bitsandbytes(f"model.quantise: {how}")
    from keel.models.quantise import carry, quantise

    model = quantise(model.eval(), double=how == "4bit-double", device=device)
    if adapter is not None:
        carry(model, adapter)
    return model


def save_causal_lm(directory: Path, model: nn.Module, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """A folder that plain transformers loads. Adapters are merged first, with `adapters.merged`."""
    if hasattr(model, "peft_config"):
        raise ValueError("merge adapters before saving, or save them alone with save_adapter")
    inner = transformer(model)
    generation = inner.generation_config
    if generation is not None and not generation.do_sample:
        sampled = (generation.temperature, generation.top_p, generation.top_k)
        generation.do_sample = any(
            value not in (None, 1.0, 50) for value in sampled
        )  # or transformers will not save it
    with quiet():
        inner.save_pretrained(directory)
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)


def eos_ids(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end a response: the tokenizer's, and those of the model's generation settings."""
    configured = getattr(transformer(model).generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in (tokenizer.eos_token_id, *listed) if token is not None}


def hidden_size(model: nn.Module) -> int:
    return transformer(model).config.get_text_config().hidden_size


def context_length(model: nn.Module) -> int | None:
    """Positions that the model was made for; None when its architecture sets no limit."""
    return getattr(transformer(model).config.get_text_config(), "max_position_embeddings", None)


def context_length_of(path: str | Path, trust_remote_code: bool = False) -> int | None:
    """`context_length` of a model folder or hub name, from its config.json alone."""
    return getattr(_config_of(path, trust_remote_code).get_text_config(), "max_position_embeddings", None)


def was_quantised(path: str | Path, trust_remote_code: bool = False) -> bool:
    """Whether these weights, in full precision, were folded out of 4 bits by `adapters.merged`."""
    return getattr(_config_of(path, trust_remote_code), QUANTISED, False)


def _config_of(path: str | Path, trust_remote_code: bool) -> Any:
    check_folder(path)
    try:
        return AutoConfig.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except UNREADABLE as error:
        raise ArtifactError(_unreadable(path, error)) from error


def freeze_embeddings(model: nn.Module) -> None:
    """Take token and position embeddings out of training; an output layer tied to them is frozen with them."""
    for module in transformer(model).base_model.modules():
        if isinstance(module, nn.Embedding):
            module.requires_grad_(False)


def parameters_to_train(model: nn.Module) -> list[nn.Parameter]:
    """What an optimiser should hold; never empty."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise TrainingError(
            "Nothing is left to train: every parameter is frozen. Add LoRA adapters or unfreeze the model."
        )
    return parameters


def torch_dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ConfigError(f"dtype {name!r} is unknown; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def resolve_device(name: str | torch.device) -> torch.device:
    """`auto` is the GPU when there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {name} was asked for, but torch finds no GPU here; use device auto or cpu")
    return device


def check_folder(path: str | Path) -> None:
    """ArtifactError for a local path that is not a model folder; hub names (`owner/name`) pass."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
            raise ArtifactError(
                f"{path} is not a model folder: it has no config.json (it holds {held}). Give a folder that "
                "model.save_pretrained wrote."
            )
    elif folder.exists():
        raise ArtifactError(f"{path} is a file; expected a folder with config.json, model.safetensors and a tokenizer.")
    elif folder.is_absolute() or str(path).startswith(".") or str(path).count("/") > 1:
        raise ArtifactError(
            f"{path} does not exist; expected a folder with config.json, model.safetensors and a tokenizer."
        )


def read_model(kind: Any, path: str | Path, **options: Any) -> Any:
    """A model of an Auto class, from safetensors, with every weight of its architecture."""
    check_folder(path)
    try:
        with quiet():
            model, info = kind.from_pretrained(
                str(path), use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except UNREADABLE as error:
        raise ArtifactError(_unreadable(path, error)) from error
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in info["mismatched_keys"])
    missing = sorted(set(info["missing_keys"]) - set(wrong))
    if wrong or missing:
        what = f"{len(wrong)} weights have the wrong shape" if wrong else f"{len(missing)} weights are missing"
        raise ArtifactError(
            f"{path}: {what}, such as {(wrong or missing)[0]}. The files are damaged, or belong to another kind of "
            "model than config.json says; save the model again."
        )
    return model


def _unreadable(path: str | Path, error: Exception) -> str:
    """What to tell someone whose model does not load."""
    folder = Path(path)
    if folder.is_dir() and not list(folder.glob("*.safetensors")):
        return (
            f"{path} has no *.safetensors file; keel reads no pickled weights. Load it once in transformers and call "
            "save_pretrained, which writes safetensors."
        )
    if "trust_remote_code" in str(error):
        return f"{path} brings its own code. If you trust its authors, set model.trust_remote_code to true."
    if not folder.exists():
        return (
            f"{path} could not be fetched from the Hugging Face hub ({_first_line(error)}). Check the name and the "
            "connection, or give a local folder."
        )
    return f"{path} does not load: {_first_line(error)}. Give a folder that model.save_pretrained wrote."


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Transformers without its progress bars and load reports; what matters is checked and raised instead."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _template(text: str) -> str:
    """The template itself, or the content of the file that holds it."""
    if "{" in text:
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"chat_template: {text} is neither a Jinja template nor a readable file") from error
