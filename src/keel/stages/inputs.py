"""The records of a run: read once, split by prompt, frozen as artifacts with the hash of their content."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile as copy_file
from typing import Any, Literal

from keel.core.artifacts import Artifact
from keel.core.config import digest
from keel.core.errors import ArtifactError, DataError, GateError
from keel.core.files import atomic_write_json, file_sha256
from keel.data.dialect import Kind
from keel.data.formats import DataConfig, Reading, read, to_values, write_jsonl
from keel.data.prompt_records import PromptRecord, read_prompt_records
from keel.data.records import Comparison, Record
from keel.data.snapshot import MANIFEST, RECORDS, read_snapshot, snapshot_at
from keel.data.split import split
from keel.stages.agreement import checked_agreement
from keel.stages.context import Run, StageResult
from keel.stages.place import Place, names_place
from keel.stages.recipe import Recipe
from keel.stages.rewards import check_records
from keel.stages.sections.data import DataSection
from keel.stages.sections.prefer import learns_from_ratings
from keel.stages.studio_snapshots import copy_lines, looked_up, opened, without_secret


@dataclass(frozen=True, kw_only=True)
class RecordSet:
    """Records on both sides of the split, and the artifact that froze them."""

    train: Sequence[Any]
    held_out: Sequence[Any]
    artifact: Artifact
    records: Mapping[str, PromptRecord] = field(default_factory=dict)
    """By `prompt_key`, what stands beside the prompts; read where a reward can ask for it."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything a recipe's data section gives; what no stage needs is None."""

    demonstrations: RecordSet | None = None
    comparisons: RecordSet | None = None
    ratings: RecordSet | None = None
    golden: RecordSet | None = None
    """Only ever held out."""
    prompts: RecordSet | None = None


def read_inputs(run: Run, recipe: Recipe) -> Inputs:
    """Read, split and freeze what the recipe's stages need."""
    data = recipe.data
    demonstrations = None
    if recipe.sft and data.demonstrations:
        demonstrations = freeze(run, data, "demonstrations", data.demonstrations)
    comparisons, rated = None, learns_from_ratings(recipe.prefer, data)
    if recipe.learns_from_comparisons and data.comparisons:
        comparisons = freeze(run, data, "comparisons", data.comparisons)
        check_held_out(comparisons, "comparison", data.comparisons)
    ratings = None
    if rated and data.ratings:
        ratings = freeze(run, data, "ratings", data.ratings)
        check_held_out(ratings, "rating", data.ratings)
    golden = None
    probed = recipe.feedback is not None and recipe.feedback.golden is None
    if (recipe.reward or probed) and data.golden:
        golden = freeze_held_out(run, data, "comparisons", data.golden, "golden")
    prompts = None
    compared = recipe.prefer is not None and recipe.evaluate is not None and recipe.evaluate.data is None
    sampled = recipe.constitution or (recipe.feedback and recipe.feedback.comparisons)
    if recipe.ppo or recipe.best_of or recipe.rounds or compared or sampled:
        source = prompt_source(recipe)
        prompts = freeze(run, data, "prompts", source, beside=asks_for_records(recipe))
        check_judged(recipe, prompts, source)
        for side, records in (("training", prompts.train), ("held-out", prompts.held_out)):
            if not records:
                raise DataError(
                    f"{source.path}: no {side} prompt is left after splitting off holdout={source.holdout}. "
                    "Choose another holdout, or add prompts."
                )
    return Inputs(
        demonstrations=demonstrations, comparisons=comparisons, ratings=ratings, golden=golden, prompts=prompts
    )


def check_held_out(records: RecordSet, what: str, config: DataConfig) -> None:
    """Raise DataError when nothing is left to measure on."""
    if not records.held_out:
        raise DataError(
            f"{config.path}: no {what} is held out, so what is learned could not be measured ({len(records.train)} "
            f"{what}s, holdout={config.holdout}). Raise data.{what}s.holdout, or add prompts."
        )


def asks_for_records(recipe: Recipe) -> bool:
    """Whether a reward may look at what stands beside a prompt: all but reward models may."""
    sections = (recipe.ppo, recipe.best_of, recipe.rounds)
    return any(part.reads_records for section in sections if section for part in section.rewards)


def check_judged(recipe: Recipe, prompts: RecordSet, config: DataConfig) -> None:
    """Raise DataError for a prompt without the answer or the tests that a reward compares with."""
    for name in ("ppo", "best_of", "rounds"):
        section = getattr(recipe, name)
        for part in section.rewards if section else ():
            every = [*prompts.train, *prompts.held_out]
            check_records(part, f"{name}.rewards.{part.name}", every, prompts.records, config.path)


def prompt_source(recipe: Recipe) -> DataConfig:
    """Where the prompts of RL and evaluation come from."""
    data = recipe.data
    source = data.prompts or data.demonstrations or data.comparisons or data.ratings
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


def freeze(run: Run, section: DataSection, what: Kind, config: DataConfig, *, beside: bool = False) -> RecordSet:
    """The records as an artifact of two files, named by the hash of what they say and how long they may be.

    With `beside`, what stands beside prompts in their file belongs to them.
    """
    config, sources = frozen_source(run, config)
    reading = read(config, what)
    train, held_out = split(reading.records, config.holdout)
    if not train:
        raise DataError(f"{config.path}: all {len(held_out)} records were held out; lower holdout={config.holdout}.")
    records = read_prompt_records(config) if beside else {}
    return record_set(
        run, section, what, reading, train, held_out, {"holdout": config.holdout}, sources, records=records
    )


def freeze_held_out(
    run: Run,
    section: DataSection,
    what: Literal["comparisons", "prompts"],
    config: DataConfig,
    name: str,
    *,
    beside: bool = False,
) -> RecordSet:
    """Records that nothing is trained on, whatever `config.holdout` says; `name` is what people see."""
    config, sources = frozen_source(run, config)
    reading = read(config, what)
    records = read_prompt_records(config) if beside else {}
    return record_set(run, section, what, reading, [], reading.records, {"use": name}, sources, name, records)


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
    records: Mapping[str, PromptRecord] | None = None,
) -> RecordSet:
    """Both sides as an artifact. The limits on length count towards its hash, since every stage cuts by them."""

    def write(folder: Path) -> None:
        write_sides(folder, train, held_out)
        if records:
            atomic_write_json(folder / "beside.json", dict(records))

    def body(_: object) -> StageResult:
        return StageResult(
            metrics={
                "train": len(train),
                "held_out": len(held_out),
                "format": reading.format,
                "why": reading.why,
                "dropped": reading.dropped,
            },
            write=write,
        )

    artifact = run.stage(
        "data",
        {
            "kind": what,
            "content": content_digest(reading.records),
            "max_tokens": section.max_tokens,
            "too_long": section.too_long,
            **({"beside": digest(dict(records))} if records else {}),
            **settings,
        },
        sources,
        body,
        kind=f"{what.rstrip('s')}_set",
        label=f"data {name or what}",
    )
    return RecordSet(train=train, held_out=held_out, artifact=artifact, records=records or {})


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
