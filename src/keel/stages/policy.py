"""Where a policy's files lie, and how they are read and written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from keel.core.artifacts import Artifact
from keel.core.config import digest
from keel.core.errors import ConfigError, TrainingError
from keel.core.files import tree_sha256
from keel.models.adapters import is_adapted, merged, save_adapter
from keel.models.load import load_causal_lm, load_tokenizer, save_causal_lm, was_quantised
from keel.models.packed import outputs_finite
from keel.models.settings import ModelConfig

MODEL = "model"
ADAPTER = "adapter"


@dataclass(frozen=True, kw_only=True)
class PolicyFiles:
    """A policy on disk or on the hub."""

    path: str
    identity: str
    """What a stage's hash sees: the artifact's id, or the folder's content (the hub name) and how it is read."""
    config: ModelConfig
    adapter: Path | None = None
    """Of a policy over a model in 4 bits: the policy is `config.path`, quantised, with this adapter."""

    @classmethod
    def of_model(cls, config: ModelConfig) -> "PolicyFiles":
        """The model that the recipe starts from."""
        local = Path(config.path)
        if config.quantise and was_quantised(config.path, config.trust_remote_code):
            raise ConfigError(
                f"{config.path} was trained with model.quantise, which would round nearly all of that training away if "
                "it quantised it again. Put the stages into one recipe that starts from the original model, where "
                "adapters are carried beside the 4 bits, or leave model.quantise out."
            )
        content = tree_sha256(local) if local.is_dir() else config.path
        reading = {
            "content": content,
            "dtype": config.dtype,
            "quantise": config.quantise,
            "chat_template": config.chat_template,
        }
        return cls(path=config.path, identity=digest(reading), config=config)

    def of_artifact(self, artifact: Artifact) -> "PolicyFiles":
        """The policy that a stage made, with the settings of this one."""
        adapter = artifact.path / ADAPTER if self.config.quantise else None
        return PolicyFiles(path=str(artifact.path / MODEL), identity=artifact.id, config=self.config, adapter=adapter)

    @property
    def weights(self) -> str:
        """The folder or hub name that weights are read from."""
        return self.path if self.adapter is None else self.config.path

    @property
    def reading(self) -> dict[str, Any]:
        """How weights are read: arguments of `load_causal_lm`."""
        c = self.config
        return {
            "dtype": c.dtype,
            "trust_remote_code": c.trust_remote_code,
            "device": c.device,
            "quantise": c.quantise,
            "adapter": self.adapter,
            "gradient_checkpointing": c.gradient_checkpointing,
        }


def load_policy(files: PolicyFiles) -> nn.Module:
    """The causal language model, on the configured device, ready for packed batches."""
    return load_causal_lm(files.weights, **files.reading)


def read_tokenizer(files: PolicyFiles) -> Any:
    c = files.config
    return load_tokenizer(files.path, chat_template=c.chat_template, trust_remote_code=c.trust_remote_code)


def write_policy(folder: Path, model: nn.Module, tokenizer: Any) -> None:
    """`model/` for plain transformers, and `adapter/` for peft when the policy was trained with adapters.

    Raises TrainingError for a policy whose outputs are not finite numbers.
    """
    if not outputs_finite(model):
        raise TrainingError(
            "the policy's outputs are not finite numbers, so it is not saved: training diverged. Lower "
            "optim.learning_rate."
        )
    if is_adapted(model):
        save_adapter(model, folder / ADAPTER)
        model = merged(model)
    save_causal_lm(folder / MODEL, model, tokenizer)


def frozen(model: nn.Module) -> nn.Module:
    """The model for inference only."""
    return model.eval().requires_grad_(False)
