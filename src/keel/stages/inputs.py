"""The records of a run: read once, split by prompt, frozen as artifacts with the hash of their content."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile as copy_file
from typing import Any, Literal

from keel.core.artifacts import Artifact
from keel.core.config import digest
from keel.core.errors import ArtifactError, DataError, GateError
from keel.core.files import atomic_write_json, file_sha256
from keel.data.dialect import Kind
from keel.data.formats import DataConfig, Reading, read, to_values, write_jsonl
from keel.data.records import Comparison, Record
from keel.data.snapshot import MANIFEST, RECORDS, read_snapshot, snapshot_at
from keel.data.split import split
from keel.stages.agreement import checked_agreement
from keel.stages.context import Run, StageResult
from keel.stages.place import Place, names_place
from keel.stages.recipe import Recipe
from keel.stages.sections.data import DataSection
from keel.stages.studio_snapshots import copy_lines, looked_up, opened, without_secret


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
    golden: RecordSet | None = None
    """Only ever held out."""
    prompts: RecordSet | None = None


def read_inputs(run: Run, recipe: Recipe) -> Inputs:
    """Read, split and freeze what the recipe's stages need."""
    data = recipe.data
    demonstrations = None
    if recipe.sft and data.demonstrations:
        demonstrations = freeze(run, data, "demonstrations", data.demonstrations)
    comparisons = None
    if (recipe.reward or recipe.prefer) and data.comparisons:
        comparisons = freeze(run, data, "comparisons", data.comparisons)
        if not comparisons.held_out:
            raise DataError(
                f"{data.comparisons.path}: no comparison is held out, so what is learned could not be measured "
                f"({len(comparisons.train)} comparisons, holdout={data.comparisons.holdout}). Raise "
                "data.comparisons.holdout, or add prompts."
            )
    golden = None
    if recipe.reward and data.golden:
        golden = freeze_held_out(run, data, "comparisons", data.golden, "golden")
    prompts = None
    compared = recipe.prefer is not None and recipe.evaluate is not None and recipe.evaluate.data is None
    if recipe.ppo is not None or compared:
        source = prompt_source(recipe)
        prompts = freeze(run, data, "prompts", source)
        for side, records in (("training", prompts.train), ("held-out", prompts.held_out)):
            if not records:
                raise DataError(
                    f"{source.path}: no {side} prompt is left after splitting off holdout={source.holdout}. "
                    "Choose another holdout, or add prompts."
                )
    return Inputs(demonstrations=demonstrations, comparisons=comparisons, golden=golden, prompts=prompts)


def prompt_source(recipe: Recipe) -> DataConfig:
    """Where the prompts of RL and evaluation come from."""
    data = recipe.data
    source = data.prompts or data.demonstrations or data.comparisons
    if source is None:
        raise DataError("ppo needs prompts: give data.prompts, data.demonstrations or data.comparisons.")
    return source


def check_agreement(
    run: Run, recipe: Recipe, records: Sequence[Comparison], round: int | None = None
) -> dict[str, Any]:
    """How far the raters agree; nothing when no pair has two votes. `override` is the reason for going on all the same.

    Raises GateError, with the raters and items responsible, when Krippendorff's alpha is below
    thresholds.agreement_block and data.override_agreement gives no reason. `round` is that of fresh labels.
    """
    found = checked_agreement(records, run.thresholds, recipe.data.override_agreement)
    if found.report is None:
        return {}
    reason = found.verdict.figures.get("override")
    figures = found.report.to_dict() | ({"override": reason} if reason else {})
    stage = "data" if round is None else "rounds"
    run.events.append("agreement", stage=stage, **({} if round is None else {"round": round}), **figures)
    run.verdict(stage, found.verdict)
    if not found.passed:
        raise GateError(
            f"{found.verdict.message} What is trained on it would be confidently wrong. {found.verdict.remedy} To go "
            "on all the same, say why: data.override_agreement. It is kept in what is trained and in the report."
        )
    return figures


def freeze(run: Run, section: DataSection, what: Kind, config: DataConfig) -> RecordSet:
    """The records as an artifact of two files, named by the hash of what they say and how long they may be."""
    config, sources = frozen_source(run, config)
    reading = read(config, what)
    train, held_out = split(reading.records, config.holdout)
    if not train:
        raise DataError(f"{config.path}: all {len(held_out)} records were held out; lower holdout={config.holdout}.")
    return record_set(run, section, what, reading, train, held_out, {"holdout": config.holdout}, sources)


def freeze_held_out(
    run: Run, section: DataSection, what: Literal["comparisons", "prompts"], config: DataConfig, name: str
) -> RecordSet:
    """Records that nothing is trained on, whatever `config.holdout` says; `name` is what people see."""
    config, sources = frozen_source(run, config)
    reading = read(config, what)
    return record_set(run, section, what, reading, [], reading.records, {"use": name}, sources, name)


def record_set(
    run: Run,
    section: DataSection,
    what: Kind,
    reading: Reading[Any],
    train: Sequence[Record],
    held_out: Sequence[Record],
    settings: dict[str, Any],
    sources: Sequence[Artifact] = (),
    name: str = "",
) -> RecordSet:
    """Both sides as an artifact. The limits on length count towards its hash, since every stage cuts by them."""

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
        {
            "kind": what,
            "content": content_digest(reading.records),
            "max_tokens": section.max_tokens,
            "too_long": section.too_long,
            **settings,
        },
        sources,
        body,
        kind=f"{what.rstrip('s')}_set",
        label=f"data {name or what}",
    )
    return RecordSet(train=train, held_out=held_out, artifact=artifact)


def frozen_source(run: Run, config: DataConfig) -> tuple[DataConfig, Sequence[Artifact]]:
    """Where to read, and the snapshot that it comes from as an artifact of the run; none for ordinary files.

    The artifact holds the records and the manifest: guide versions, raters by pseudonym, generators. It is a parent of
    the set that is trained on, so every model's lineage ends in it, whatever becomes of the studio.
    """
    if names_place(config.path):
        place = without_secret(Place.of(config.path))
        with opened(place) as store:
            found = looked_up(store, place)
            manifest = {**found.manifest, "name": found.name, "content_hash": found.content_hash}
            artifact = snapshot_artifact(run, manifest, lambda target: copy_lines(store, found, target))
    elif snapshot_at(config.path):
        folder = read_snapshot(config.path)
        artifact = snapshot_artifact(run, folder.manifest, lambda target: copy_file(folder.records, target))
    else:
        return config, ()
    records = artifact.path / RECORDS
    if file_sha256(records) != artifact.config["content_hash"]:
        raise ArtifactError(
            f"{records}: changed since it was frozen. Remove {artifact.path} and give the same command again."
        )
    return config.model_copy(update={"path": str(records)}), [artifact]


def snapshot_artifact(run: Run, manifest: Mapping[str, Any], copy: Callable[[Path], object]) -> Artifact:
    """A snapshot inside the run: its records, checked by hash, and its manifest."""

    def write(folder: Path) -> None:
        copy(folder / RECORDS)
        atomic_write_json(folder / MANIFEST, dict(manifest))

    about = {"name": manifest["name"], "content_hash": manifest["content_hash"]}
    known = {name: manifest[name] for name in ("project", "guide_version", "labels") if name in manifest}
    return run.stage(
        "snapshot",
        about,
        [],
        lambda _: StageResult(metrics=known, write=write),
        kind="snapshot",
        label=f"snapshot {manifest['name']}",
    )


def content_digest(records: Sequence[Record]) -> str:
    """Hash of what the records say, in their order."""
    return digest([to_values(record) for record in records])


def write_sides(folder: Path, train: Sequence[Record], held_out: Sequence[Record]) -> None:
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "held_out.jsonl", held_out)
