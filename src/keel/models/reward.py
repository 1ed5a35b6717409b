"""Reward models: a score for a prompt with a response.

    head       w · hidden state of the last token
    implicit   beta · sum over response tokens of log pi / pi_ref   (Rafailov et al. 2023)
    hybrid     both

On disk a reward model is an `AutoModelForSequenceClassification` with one label, which plain transformers loads; for
the form `head` it scores identically there, for `hybrid` it gives the head's part, for `implicit` zero. `reward.json`
beside it holds the form and the statistics; the other forms keep their output layer (when it is not the embedding) and
the reference policy in the same folder.
"""

import copy
import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from keel.batch.types import Packed
from keel.core.errors import ArtifactError
from keel.models.adapters import add_lora, merged
from keel.models.load import (
    eos_ids,
    freeze_embeddings,
    hidden_size,
    load_causal_lm,
    load_tokenizer,
    quiet,
    read_model,
    resolve_device,
    save_causal_lm,
)
from keel.models.packed import forward_hidden, token_logprobs, transformer, verify_packed
from keel.models.recompute import recompute_layers
from keel.models.settings import LoraConfig

Form = Literal["head", "implicit", "hybrid"]
RECORD, OUTPUT_LAYER, REFERENCE = "reward.json", "lm_head.safetensors", "reference"


class RewardModel(nn.Module):
    """Scores responses. `mean` and `std` are the statistics of its scores on held-out responses.

    `network` is a trunk for the form `head`, else a causal language model; `reference` is a frozen one.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        *,
        form: Form,
        beta: float,
        reference: nn.Module | None = None,
        freeze: bool = True,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        if (reference is None) != (form == "head"):
            raise ValueError(
                f"form {form} and {'no' if reference is None else 'a'} reference policy contradict each other"
            )
        inner = transformer(network)
        self.network, self.tokenizer, self.form, self.beta = network, tokenizer, form, beta
        self.mean, self.std, self.freeze = mean, std, freeze
        # In float32 whatever the trunk: small updates and small differences of scores would be lost to rounding.
        self.head = nn.Linear(hidden_size(network), 1, bias=False, dtype=torch.float32, device=inner.device)
        nn.init.zeros_(self.head.weight).requires_grad_(form != "implicit")
        self.reference = None if reference is None else reference.eval().requires_grad_(False)
        if freeze:
            freeze_embeddings(network)

    @classmethod
    def from_policy(
        cls,
        path: str | Path,
        *,
        form: Form = "head",
        beta: float = 0.1,
        seed: int = 0,
        head_scale: float = 1.0,
        freeze_embeddings: bool = True,
        lora: LoraConfig | None = None,
        dtype: str = "float32",
        device: str = "auto",
        trust_remote_code: bool = False,
        quantise: str | None = None,
        adapter: Path | None = None,
        gradient_checkpointing: bool = False,
    ) -> "RewardModel":
        """A fresh reward model on a policy's trunk.

        The head is drawn from head_scale · N(0, 1/(H + 1)), H the hidden size (Stiennon et al. 2020, 2009.01325), so
        that first scores are of order head_scale; 0 begins with equal scores. `freeze_embeddings` keeps the embeddings,
        and an output layer tied to them, as the policy's. `quantise`, `adapter` and `gradient_checkpointing` are those
        of `load_causal_lm`.
        """
        policy = load_causal_lm(
            path,
            dtype,
            trust_remote_code=trust_remote_code,
            device=device,
            quantise=quantise,
            adapter=adapter,
            gradient_checkpointing=gradient_checkpointing,
        )
        tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
        settle_padding(policy, tokenizer)
        reference = None if form == "head" else copy.deepcopy(policy)
        network = policy.base_model if form == "head" else policy
        model = cls(
            network if lora is None else add_lora(network, lora),
            tokenizer,
            form=form,
            beta=beta,
            reference=reference,
            freeze=freeze_embeddings,
        )
        if form != "implicit":
            drawn = torch.randn(model.head.weight.shape, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                model.head.weight.copy_(drawn * head_scale / (drawn.shape[1] + 1) ** 0.5)
        return model.eval()

    def train(self, mode: bool = True) -> "RewardModel":
        """Training mode for what is trained; the reference stays as it is."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def score(self, packed: Packed, ref_logprobs: Tensor | None = None) -> Tensor:
        """[S] float32 scores. `ref_logprobs` [R], the reference's at temperature 1, save its forward pass."""
        if self.reference is None:
            return self.head(forward_hidden(self.network, packed, packed.last).float()).squeeze(-1)
        hidden = forward_hidden(self.network, packed, torch.cat([packed.source.clamp(min=0), packed.last]))
        before, last = hidden.split([len(packed.source), len(packed.last)])
        scores = self.head(last.float()).squeeze(-1)
        logprobs, _ = token_logprobs(self.network, packed, hidden=before)
        if ref_logprobs is None:
            with torch.no_grad():
                ref_logprobs, _ = token_logprobs(self.reference, packed)
        lengths = torch.tensor([length for _, responses in packed.layout for length in responses])
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(scores.device)
        log_ratio = logprobs - ref_logprobs.to(scores.device)
        return scores + self.beta * torch.zeros_like(scores).index_add(0, owner, log_ratio)

    def save(self, folder: Path) -> None:
        """The folder that `load` and plain transformers read. Adapters are merged; the model itself stays as it is."""
        inner = transformer(merged(self.network))
        config = copy.deepcopy(inner.config)
        config.num_labels, config.problem_type, config.pad_token_id = 1, "regression", self.tokenizer.pad_token_id
        with torch.device("meta"):
            classifier: Any = AutoModelForSequenceClassification.from_config(config)
        classifier.base_model.load_state_dict(inner.base_model.state_dict(), assign=True)
        classifier.score.load_state_dict({"weight": self.head.weight.detach().to(inner.dtype)}, assign=True)
        with quiet():
            classifier.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        if self.reference is not None:
            layer = inner.get_output_embeddings()
            if layer.weight is not inner.get_input_embeddings().weight:
                save_file({name: x.contiguous() for name, x in layer.state_dict().items()}, folder / OUTPUT_LAYER)
            save_causal_lm(folder / REFERENCE, merged(self.reference), None)
        record = {name: getattr(self, name) for name in ("form", "beta", "mean", "std", "freeze")}
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        gradient_checkpointing: bool = False,
    ) -> "RewardModel":
        """A reward model that `save` wrote, or any sequence classifier with one label (form `head`, mean 0, std 1)."""
        record: dict[str, Any] = {"form": "head", "beta": 0.0}
        written = Path(folder) / RECORD
        if written.is_file():
            record = _read_record(written)
        classifier = _load_classifier(folder, trust_remote_code=trust_remote_code)
        weight = classifier.score.weight
        network, reference = classifier.base_model, None
        if record["form"] != "head":
            network = _as_causal_lm(classifier, Path(folder) / OUTPUT_LAYER, trust_remote_code=trust_remote_code)
            name = str(network.dtype).removeprefix("torch.")
            reference = load_causal_lm(
                Path(folder) / REFERENCE, name, device=device, trust_remote_code=trust_remote_code, verify=False
            )
        network = network.to(resolve_device(device)).eval()
        if gradient_checkpointing:
            recompute_layers(network.base_model)
        verify_packed(network)
        tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
        model = cls(network, tokenizer, reference=reference, **record)
        with torch.no_grad():
            model.head.weight.copy_(weight)
        return model.eval()


def settle_padding(policy: Any, tokenizer: Any) -> None:
    """Give `tokenizer` and `policy` a padding token that ends no response.

    transformers reads a classifier's score at the last token that is not padding; were padding the token that ends
    responses, it would read the one before. Tokens made for padding or kept in reserve come first, then the unknown
    token, then a new one.
    """
    used = eos_ids(policy, tokenizer) | {tokenizer.bos_token_id}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in used:
        added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        named = [token for word in ("pad", "reserved", "unused") for token in added if word in token.lower()]
        spare = [*named, *([tokenizer.unk_token] if tokenizer.unk_token else [])]
        free = [token for token in spare if tokenizer.convert_tokens_to_ids(token) not in used]
        tokenizer.add_special_tokens({"pad_token": free[0] if free else "<|pad|>"})
        if len(tokenizer) > policy.get_input_embeddings().weight.shape[0]:
            policy.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    tokenizer.padding_side = "right"
    policy.config.pad_token_id = tokenizer.pad_token_id


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {
            "form": {"head": "head", "implicit": "implicit", "hybrid": "hybrid"}[record["form"]],
            **{name: float(record[name]) for name in ("beta", "mean", "std")},
            "freeze": bool(record["freeze"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error!r}). Train the reward model again, or restore the file."
        ) from error


def _load_classifier(folder: Path | str, *, trust_remote_code: bool) -> Any:
    """A sequence classifier with one label, checked."""
    model = read_model(AutoModelForSequenceClassification, folder, trust_remote_code=trust_remote_code)
    if model.config.num_labels != 1 or not isinstance(getattr(model, "score", None), nn.Linear):
        raise ArtifactError(
            f"{folder} is no reward model: it has {model.config.num_labels} labels. Expected a sequence classifier "
            "with one label and a linear layer `score`, as keel's reward stage writes."
        )
    return model


def _as_causal_lm(classifier: Any, output_layer: Path, *, trust_remote_code: bool) -> Any:
    """The classifier's trunk below an output layer: the one in the file, else the embedding."""
    with torch.device("meta"):
        causal: Any = AutoModelForCausalLM.from_config(classifier.config, trust_remote_code=trust_remote_code)
    setattr(causal, causal.base_model_prefix, classifier.base_model)
    causal.config = classifier.config
    layer = causal.get_output_embeddings()
    if output_layer.is_file():
        layer.load_state_dict(load_file(output_layer), assign=True)
    elif classifier.config.get_text_config().tie_word_embeddings:
        layer.weight = causal.get_input_embeddings().weight
    else:
        raise ArtifactError(f"{output_layer} is missing, so the reward model cannot compute log-probabilities.")
    return causal
