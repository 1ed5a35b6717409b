"""Adapters as a stage leaves them for the next one: to go on with, or to act beside others on one trunk."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from keel.core.artifacts import Artifact
from keel.core.errors import ArtifactError
from keel.models.roles import role_tensors
from keel.models.settings import LoraConfig
from keel.stages.sections.reward import RewardConfig
from keel.train.judge import EnsembleScorer, Scorer, TrunkScorer
from keel.train.one_trunk import OneTrunk
from keel.train.resume import load_tensors

WEIGHTS, RECORD = "role.safetensors", "role.json"
HEAD = "head"


@dataclass(frozen=True, kw_only=True)
class SavedRole:
    """An adapter, the settings it was made with, and the weights that it belongs to."""

    tensors: dict[str, Tensor]
    lora: LoraConfig
    base: str
    """Identity of the model below, as `PolicyFiles` has it."""
    head: Tensor | None
    """[1, H] of a reward model's score."""


def write_role(folder: Path, model: nn.Module, lora: LoraConfig, base: str, head: Tensor | None = None) -> None:
    """The adapter of `model` as it is trained; what `adapter/` holds is for others."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in role_tensors(model).items()}
    save_file(tensors | ({} if head is None else {HEAD: head.detach().cpu().contiguous()}), folder / WEIGHTS)
    record = {"base": base, "lora": lora.model_dump(mode="json")}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read_role(artifact: Artifact, base: str) -> SavedRole:
    """The adapter that an artifact holds; ArtifactError when it has none, or one of other weights than `base`."""
    if not (artifact.path / WEIGHTS).is_file():
        raise ArtifactError(
            f"{artifact.path} holds no adapter to go on with ({WEIGHTS} is missing): it was trained in full, or by an "
            "older keel. Delete that folder and run the same command again to make it anew."
        )
    try:
        record = json.loads((artifact.path / RECORD).read_text(encoding="utf-8"))
        lora, made_on = LoraConfig(**record["lora"]), record["base"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{artifact.path / RECORD} is damaged ({error}). Delete {artifact.path.name} and run the same command "
            "again to make it anew."
        ) from error
    if made_on != base:
        raise ArtifactError(
            f"{artifact.path} is an adapter of other weights than those of this policy. Train both on the same SFT "
            "policy, or set ppo.layout to separate."
        )
    tensors = load_tensors(artifact.path / WEIGHTS)
    head = tensors.pop(HEAD, None)
    return SavedRole(tensors=tensors, lora=lora, base=base, head=head)


def add_reward_roles(trunk: OneTrunk, members: Sequence[Artifact], base: str, config: RewardConfig) -> Scorer:
    """The recipe's reward model on the policy's own trunk: an adapter and a head a member."""
    scorers: list[Scorer] = []
    for artifact in members:
        saved = read_role(artifact, base)
        if saved.head is None:
            raise ArtifactError(f"{artifact.path} has no head. Set ppo.layout to separate, or reward.form to head.")
        place = trunk.add_reward(saved.lora, saved.tensors, saved.head.squeeze(0))
        mean, std = artifact.metrics["score_mean"], max(artifact.metrics["score_std"], 1e-8)
        scorers.append(TrunkScorer(place, mean, std))
    return scorers[0] if len(scorers) == 1 else EnsembleScorer(scorers, config.aggregate, config.std_weight)
