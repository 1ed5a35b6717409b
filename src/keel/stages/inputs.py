"""The records of a run: read once, split by prompt, frozen as artifacts with the hash of their content."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keel.core.artifacts import Artifact
from keel.core.config import digest
from keel.core.errors import DataError, GateError
from keel.data.dialects import Kind
from keel.data.formats import DataConfig, read, to_values, write_jsonl
from keel.data.records import Comparison, Record
from keel.data.split import split
from keel.monitor.bands import agreement_gate
from keel.stages.agreement import agreement_figures
from keel.stages.context import Run, StageResult
from keel.stages.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class RecordSet:
    """Records on both sides of the split, and the artifact that froze them."""

    train: Sequence[Any]
    held_out: Sequence[Any]
    artifact: Artifact


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything a recipe's data section gives; what no stage needs is None."""

    demonstrations: RecordSet | None = None
    comparisons: RecordSet | None = None
    golden: Sequence[Comparison] | None = None
    prompts: RecordSet | None = None


def read_inputs(run: Run, recipe: Recipe) -> Inputs:
    """Read, split and freeze what the recipe's stages need."""
    data = recipe.data
    demonstrations = None
    if recipe.sft and data.demonstrations:
        demonstrations = freeze(run, "demonstrations", data.demonstrations)
    comparisons = freeze(run, "comparisons", data.comparisons) if recipe.reward and data.comparisons else None
    golden = read(data.golden, "comparisons").records if data.golden and recipe.reward else None
    prompts = None
    if recipe.ppo is not None:
        source = prompt_source(recipe)
        prompts = freeze(run, "prompts", source)
        for side, records in (("training", prompts.train), ("held-out", prompts.held_out)):
            if not records:
                raise DataError(
                    f"{source.path}: no {side} prompt is left after splitting off holdout={source.holdout}. "
                    "Choose another holdout, or add prompts."
                )
    return Inputs(demonstrations=demonstrations, comparisons=comparisons, golden=golden, prompts=prompts)


def prompt_source(recipe: Recipe) -> DataConfig:
    """Where the prompts of RL come from."""
    data = recipe.data
    source = data.prompts or data.demonstrations or data.comparisons
    if source is None:
        raise DataError("ppo needs prompts: give data.prompts, data.demonstrations or data.comparisons.")
    return source


def check_agreement(run: Run, recipe: Recipe, records: Sequence[Comparison]) -> dict[str, Any]:
    """How far the raters agree; nothing when no pair has two votes.

    Raises GateError when Krippendorff's alpha is below data.min_agreement.
    """
    figures = agreement_figures(records)
    if not figures:
        return {}
    run.events.append("agreement", stage="data", **figures)
    alpha, wanted = figures["krippendorff_alpha"], recipe.data.min_agreement
    verdict = agreement_gate(
        alpha,
        figures["krippendorff_alpha_low"],
        figures["krippendorff_alpha_high"],
        num_items=figures["num_shared_items"],
        num_raters=figures["num_raters"],
    )
    run.verdict("data", verdict)
    if wanted is not None and alpha is not None and alpha < wanted:
        raise GateError(
            f"{verdict.message} A reward model trained on it would be confidently wrong. {verdict.remedy} To go on all "
            f"the same, set data.min_agreement (now {wanted}) lower or to null; the recipe then records it."
        )
    return figures


def freeze(run: Run, what: Kind, config: DataConfig) -> RecordSet:
    """The records as an artifact of two files, named by the hash of what they say."""
    reading = read(config, what)
    train, held_out = split(reading.records, config.holdout)
    if not train:
        raise DataError(f"{config.path}: all {len(held_out)} records were held out; lower holdout={config.holdout}.")

    def body(_: object) -> StageResult:
        return StageResult(
            metrics={
                "train": len(train),
                "held_out": len(held_out),
                "format": reading.format,
                "why": reading.why,
                "dropped": reading.dropped,
            },
            write=lambda folder: write_sides(folder, train, held_out),
        )

    artifact = run.stage(
        "data",
        {"kind": what, "content": content_digest(reading.records), "holdout": config.holdout},
        [],
        body,
        kind=f"{what.rstrip('s')}_set",
        label=f"data {what}",
    )
    return RecordSet(train=train, held_out=held_out, artifact=artifact)


def content_digest(records: Sequence[Record]) -> str:
    """Hash of what the records say, in their order."""
    return digest([to_values(record) for record in records])


def write_sides(folder: Path, train: Sequence[Record], held_out: Sequence[Record]) -> None:
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "held_out.jsonl", held_out)
