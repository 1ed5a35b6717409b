"""Reward models: a score for a prompt with a response.

    head       w · hidden state of the last token
    implicit   beta · sum over response tokens of log pi / pi_ref   (Rafailov et al. 2023)
    hybrid     both

On disk the trunk and the head are an `AutoModelForSequenceClassification` with one label, which plain transformers
loads and, for the form `head`, scores identically; `reward.json` beside it holds the rest.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from keel.batch.types import Packed
from keel.core.errors import ArtifactError
from keel.models.adapters import add_lora, merged
from keel.models.load import (
    UNREADABLE,
    check_complete,
    check_folder,
    freeze_embeddings,
    hidden_size,
    load_causal_lm,
    load_tokenizer,
    quiet,
    resolve_device,
    save_causal_lm,
    unreadable,
)
from keel.models.packed import forward_hidden, token_logprobs, transformer
from keel.models.settings import LoraConfig

Form = Literal["head", "implicit", "hybrid"]
RECORD, HEAD, REFERENCE = "reward.json", "lm_head.safetensors", "reference"


class RewardModel(nn.Module):
    """Scores responses. `mean` and `std` are the statistics of its scores on held-out responses.

    `policy` is the trunk with its language-model head, `reference` a frozen policy (None for the form `head`).
    """

    def __init__(
        self,
        policy: nn.Module,
        tokenizer: Any,
        *,
        form: Form,
        beta: float,
        reference: nn.Module | None = None,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        if (reference is None) != (form == "head"):
            raise ValueError(f"a reward model of the form {form} and a reference do not go together")
        self.policy = policy
        self.tokenizer = tokenizer
        self.form: Form = form
        self.beta, self.mean, self.std = beta, mean, std
        inner = transformer(policy)
        self.score_head = nn.Linear(hidden_size(policy), 1, bias=False, dtype=inner.dtype, device=inner.device)
        if form == "implicit":
            nn.init.zeros_(self.score_head.weight).requires_grad_(False)
        self.reference = reference.eval().requires_grad_(False) if reference is not None else None

    @classmethod
    def from_policy(
        cls,
        path: str | Path,
        *,
        form: Form = "head",
        beta: float = 0.1,
        seed: int = 0,
        freeze_embeddings: bool = True,
        lora: LoraConfig | None = None,
        dtype: str = "float32",
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> "RewardModel":
        """A fresh reward model on a policy's trunk; the head is drawn from N(0, 1/(hidden size + 1)), made small.

        The spread is that of Stiennon et al. 2020; scores of the first step then are of order one.
        """
        policy = load_causal_lm(path, dtype, trust_remote_code=trust_remote_code, device=device)
        tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
        reference = None
        if form != "head":
            reference = load_causal_lm(path, dtype, trust_remote_code=trust_remote_code, device=device)
        settle_padding(policy, tokenizer)
        prepare(policy, form, freeze=freeze_embeddings)
        model = cls(
            add_lora(policy, lora) if lora is not None else policy,
            tokenizer,
            form=form,
            beta=beta,
            reference=reference,
        )
        if form != "implicit":
            generator = torch.Generator().manual_seed(seed)
            weight = torch.randn(model.score_head.weight.shape, generator=generator)
            with torch.no_grad():
                model.score_head.weight.copy_(weight / (weight.shape[1] + 1) ** 0.5)
        return model

    def train(self, mode: bool = True) -> "RewardModel":
        """Training mode for what is trained; the reference stays as it is."""
        super().train(mode)
        if self.reference is not None:
            self.reference.eval()
        return self

    def score(self, packed: Packed, ref_logprobs: Tensor | None = None) -> Tensor:
        """[S] float32 scores. `ref_logprobs` [R], at temperature 1, save the reference's forward pass."""
        hidden = forward_hidden(self.policy, packed)
        last = hidden.index_select(0, packed.last.to(hidden.device))
        scores = self.score_head(last).squeeze(-1).float()
        if self.reference is None:
            return scores
        logprobs, _ = token_logprobs(self.policy, packed, hidden=hidden)
        if ref_logprobs is None:
            with torch.no_grad():
                ref_logprobs, _ = token_logprobs(self.reference, packed)
        owner = torch.repeat_interleave(
            torch.arange(len(packed.last)), torch.tensor(response_lengths(packed.layout))
        ).to(scores.device)
        implicit = torch.zeros_like(scores).index_add(0, owner, logprobs - ref_logprobs.to(scores.device))
        return scores + self.beta * implicit

    def save(self, folder: Path) -> None:
        """The folder that `load` and, for trunk and head, plain transformers read."""
        causal = merged(self.policy)
        inner = transformer(causal)
        config = inner.config.__class__.from_dict(inner.config.to_dict())
        config.num_labels = 1
        config.problem_type = "regression"
        config.pad_token_id = self.tokenizer.pad_token_id
        with torch.device("meta"):
            classifier = AutoModelForSequenceClassification.from_config(config)
        classifier.base_model.load_state_dict(inner.base_model.state_dict(), assign=True)
        classifier.score.load_state_dict(self.score_head.state_dict(), assign=True)
        with quiet():
            classifier.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        record: dict[str, Any] = {"form": self.form, "beta": self.beta, "mean": self.mean, "std": self.std}
        if self.reference is not None:
            head = inner.get_output_embeddings()
            if head.weight is not inner.get_input_embeddings().weight:
                save_file({k: v.contiguous() for k, v in head.state_dict().items()}, folder / HEAD)
            save_causal_lm(folder / REFERENCE, self.reference, None)
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "auto", trust_remote_code: bool = False) -> "RewardModel":
        """A reward model that `save` wrote, or any sequence classifier with one label (form `head`, mean 0, std 1)."""
        folder = Path(folder)
        record: dict[str, Any] = {"form": "head", "beta": 0.0, "mean": 0.0, "std": 1.0}
        if (folder / RECORD).is_file():
            record |= json.loads((folder / RECORD).read_text())
        classifier = load_classifier(folder, trust_remote_code=trust_remote_code)
        policy = as_causal_lm(classifier, folder).to(resolve_device(device)).eval()
        reference = None
        if record["form"] != "head":
            reference = load_causal_lm(folder / REFERENCE, dtype_name(policy.dtype), device=device)
        model = cls(
            policy,
            load_tokenizer(folder, trust_remote_code=trust_remote_code),
            form=record["form"],
            beta=record["beta"],
            reference=reference,
            mean=record["mean"],
            std=record["std"],
        )
        with torch.no_grad():
            model.score_head.weight.copy_(classifier.score.weight)
        return model


def prepare(policy: PreTrainedModel, form: Form, *, freeze: bool) -> None:
    """Choose what is trained: not the language-model head of a model that only reads its last token, and by default
    not the embeddings.
    """
    if freeze:
        freeze_embeddings(policy)
    head, embeddings = policy.get_output_embeddings(), policy.get_input_embeddings()
    if form == "head" and head is not None and head.weight is not embeddings.weight:
        head.requires_grad_(False)


def settle_padding(policy: PreTrainedModel, tokenizer: Any) -> None:
    """Give the tokenizer a padding token that no text contains.

    transformers reads a classifier's score at the last token that is not padding. Were padding the same token as the
    end of a response, it would read the token before.
    """
    used = {tokenizer.eos_token_id, tokenizer.bos_token_id}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in used:
        special = [t for t in (tokenizer.unk_token, *tokenizer.all_special_tokens) if t is not None]
        spare = [t for t in special if tokenizer.convert_tokens_to_ids(t) not in used]
        if spare:
            tokenizer.pad_token = spare[0]
        else:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
            if len(tokenizer) > policy.get_input_embeddings().num_embeddings:
                policy.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    policy.config.pad_token_id = tokenizer.pad_token_id


def load_classifier(folder: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """A sequence classifier with one label, checked."""
    check_folder(folder)
    try:
        with quiet():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                str(folder), trust_remote_code=trust_remote_code, use_safetensors=True, output_loading_info=True
            )
    except UNREADABLE as error:
        raise ArtifactError(unreadable(folder, error)) from error
    check_complete(folder, info)
    if model.config.num_labels != 1 or not isinstance(getattr(model, "score", None), nn.Linear):
        raise ArtifactError(
            f"{folder} is no reward model: it has {model.config.num_labels} labels. Expected a sequence classifier with "
            "one label and a linear `score`, as keel's reward stage writes."
        )
    return model


def as_causal_lm(classifier: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The classifier's trunk under a language-model head: its own where it was saved, else the tied or an unused one."""
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(classifier.config, dtype=classifier.dtype)
    setattr(causal, causal.base_model_prefix, classifier.base_model)
    head, embeddings = causal.get_output_embeddings(), causal.get_input_embeddings()
    if (folder / HEAD).is_file():
        head.load_state_dict(load_file(folder / HEAD), assign=True)
    elif causal.config.tie_word_embeddings:
        head.weight = embeddings.weight
    else:
        head.to_empty(device="cpu").requires_grad_(False)
        nn.init.zeros_(head.weight)
    return causal


def response_lengths(layout: Sequence[tuple[int, tuple[int, ...]]]) -> list[int]:
    return [length for _, lengths in layout for length in lengths]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
