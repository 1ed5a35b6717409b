"""What the reference says of judged responses, once, before any training."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from keel.batch.types import PairBatch, RatingBatch, TokenBatch
from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.pairs import PairSet
from keel.stages.policy import PolicyFiles, frozen, load_policy
from keel.stages.ratings import RatingSet
from keel.stages.sections.prefer import PreferConfig
from keel.train.rollout import Reference

REFERENCE = "reference.safetensors"
AT_ONCE = 512
"""Pairs of a reference pass between two signs of life."""


@dataclass(frozen=True, kw_only=True)
class PreferenceData:
    """What a policy is trained on and judged by, both sides of one kind."""

    artifacts: Sequence[Artifact]
    train: PairSet | RatingSet
    held_out: PairSet | RatingSet
    override: str | None = None
    """Why the pairs are trained on although their raters hardly agree."""
    replay: float | None = None
    """Earlier comparisons in `train`, as a share of the fresh ones; None outside rounds."""

    @property
    def mixed(self) -> dict[str, float]:
        """What a stage's hash sees of it, besides the artifacts."""
        return {} if self.replay is None else {"replay": self.replay}


@dataclass(frozen=True, kw_only=True)
class Referred:
    """Judged responses and what the reference says of them: `said` [2N], sums of log-probabilities, a's before b's.

    `said` is None for methods without a reference.
    """

    records: PairSet | RatingSet
    said: Tensor | None

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, chosen: Sequence[int]) -> PairBatch | RatingBatch:
        """These records, ready for an algorithm."""
        if isinstance(self.records, PairSet):
            return self.records.batch(chosen, self.said)
        assert self.said is not None
        return self.records.batch(chosen, self.said)


def refer(
    run: Run, config: PreferConfig, base: PolicyFiles, data: PreferenceData, label: str = "reference"
) -> Artifact:
    """What the policy says of all responses before any training, once: it is the reference, also of adapters to come.

    The network is loaded for this pass alone, so that training never holds a second one.
    """

    def body(context: StageContext) -> StageResult:
        model, progress = frozen(load_policy(base)), context.run.progress
        sides = {"train": data.train, "held_out": data.held_out}
        total = sum(len(records) for records in sides.values())
        progress.start(context.name, total, "pairs")
        said: dict[str, Tensor] = {}
        for side, records in sides.items():
            unknown, parts = torch.zeros(2 * len(records)), []
            for at in range(0, len(records), AT_ONCE):
                some = range(at, min(at + AT_ONCE, len(records)))
                batch = records.batch(some, unknown)
                parts.append(sequence_logprobs(model, batch, config.micro_batch_tokens))
                progress.advance(len(some))
            said[side] = torch.cat(parts)
        if not all(values.isfinite().all() for values in said.values()):
            raise TrainingError("the reference gives log-probabilities that are not finite; its training diverged.")
        progress.finish(f"{total} pairs")
        return StageResult(metrics={"pairs": total}, write=lambda folder: save_file(said, folder / REFERENCE))

    settings: dict[str, object] = {"policy": base.identity, "labels": config.labels, **data.mixed}
    if isinstance(data.train, RatingSet):
        settings["pairs"] = "each rated response and one to another prompt"
    return run.stage("reference", settings, data.artifacts, body, kind="reference", label=label)


def said_before(reference: Artifact | None, data: PreferenceData) -> tuple[Referred, Referred]:
    """Both sides with what the reference says of them."""
    said: dict[str, Tensor] = load_file(reference.path / REFERENCE) if reference is not None else {}
    return (
        Referred(records=data.train, said=said.get("train")),
        Referred(records=data.held_out, said=said.get("held_out")),
    )


@torch.no_grad()
def sequence_logprobs(model: nn.Module, batch: TokenBatch, micro_batch_tokens: int) -> Tensor:
    """[S] log-probabilities of whole responses."""
    return batch.sum_per_response(Reference(model=model).logprobs(batch, 1.0, micro_batch_tokens))
