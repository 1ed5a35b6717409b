"""AI feedback: revisions by a constitution in front of everything, an AI judge in front of what learns from pairs."""

from collections.abc import Sequence
from pathlib import Path

from keel.core.artifacts import Artifact
from keel.core.errors import DataError
from keel.core.seed import generator
from keel.data.formats import DataConfig, read_comparisons, read_demonstrations, write_jsonl
from keel.data.records import Comparison, Demonstration, Prompt
from keel.data.split import split
from keel.stages.context import StageContext, StageResult
from keel.stages.encode import encode_demonstrations, encode_prompts, fitting
from keel.stages.feedback.calibrate import admitted, as_pair, calibrate
from keel.stages.feedback.judging import AILabeller
from keel.stages.feedback.opening import open_labeller, open_revision, refuse_own_answers
from keel.stages.feedback.revise import revise
from keel.stages.inputs import RecordSet, content_digest, freeze_held_out, prompt_source
from keel.stages.labels import RECORDS, JudgeOfPairs, read_set, sound, texts
from keel.stages.roads.work import Work, required
from keel.stages.sections.constitution import ConstitutionConfig, read_constitution
from keel.stages.sections.feedback import FeedbackConfig
from keel.stages.sections.sft import SFTConfig
from keel.stages.sft import train_sft


def constitute(work: Work, config: ConstitutionConfig) -> None:
    """The policy learns its own answers as they are once they were criticised and revised by principles."""
    constitution = read_constitution(Path(config.path))
    start, records = work.sft, required(work.inputs.prompts)
    revision = open_revision(work.context, config, constitution, work.recipe.model, start)
    fit = fitting(work.recipe.data)
    encoded = encode_prompts(records.train, work.tokenizer, fit, config.max_new_tokens, "constitution")
    order = generator(work.recipe.seed, "constitution").permutation(len(encoded))
    chosen = [encoded[at] for at in order[: config.prompts]]

    def drafts() -> list[tuple[Prompt, str]]:
        said = texts(start, chosen, config, work.recipe.seed)
        return [(one.prompt, text) for one, (text, _) in zip(chosen, said, strict=True) if text.strip()]

    settings = {
        "prompts": config.prompts,
        "max_new_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "policy": start.identity,
    }
    parents = [records.artifact, *([work.made.sft] if work.made.sft else [])]
    replayed = replay(work, config, len(chosen))
    made = revise(work.context, revision, settings, parents, drafts, replayed, prompt_source(work.recipe).holdout)
    work.before, work.made.before, work.made.revisions = start, work.made.sft, made
    learn_revisions(work, config.sft or work.recipe.sft or SFTConfig(), made)


def replay(work: Work, config: ConstitutionConfig, num_prompts: int) -> Sequence[Demonstration]:
    """Demonstrations that are learned beside the revisions."""
    known = work.inputs.demonstrations
    if known is None or not config.replay:
        return []
    order = generator(work.recipe.seed, "constitution replay").permutation(len(known.train))
    return [known.train[at] for at in order[: round(config.replay * num_prompts)]]


def learn_revisions(work: Work, config: SFTConfig, revisions: Artifact) -> None:
    """SFT on the revisions; its policy is the one that every road starts from now."""
    fit = fitting(work.recipe.data)
    sides = [read_side(revisions, name) for name in ("train", "held_out")]
    train, held_out = (encode_demonstrations(side, work.tokenizer, fit) if side else [] for side in sides)
    work.context.events.append(
        "records", stage="constitution", train=len(train), held_out=len(held_out), **fit.report()
    )
    policy = train_sft(work.context, config, work.sft, revisions, train, held_out, label="constitution")
    work.made.sft = policy
    work.sft = work.base.of_artifact(policy)


def read_side(revisions: Artifact, side: str) -> list[Demonstration]:
    """The demonstrations of one side; none where the file is empty."""
    path = revisions.path / f"{side}.jsonl"
    return read_demonstrations(DataConfig(path=str(path), holdout=0.0)) if path.stat().st_size else []


def ai_labeller(work: Work) -> AILabeller:
    """The recipe's AI judge, held against people's golden votes first. GateError for one that may not judge."""
    if work.judge is None:
        config, by = required(work.recipe.feedback), work.recipe.constitution
        if config.pairs is not None:
            unlabelled(work, config, config.pairs)  # what is wrong with them is told before anything is asked
        principles = read_constitution(Path(by.path)) if by else None
        labeller = open_labeller(work.context, config, work.recipe.model, principles)
        labeller.per_pair = by.preferences if by else "one"
        work.made.judge = golden_report(work, config, labeller)
        labeller.temperature = admitted(work.context, config, work.made.judge)
        work.judge = labeller
    return work.judge


def ai_judge(work: Work) -> JudgeOfPairs:
    """The same as a judge of fresh pairs, with what it is worth as a parent of what it judges."""
    labeller = ai_labeller(work)
    parents = (work.made.judge,) if work.made.judge else ()
    return JudgeOfPairs(judge=labeller, identity=labeller.identity, parents=parents)


def golden_report(work: Work, config: FeedbackConfig, labeller: AILabeller) -> Artifact | None:
    """What the judge is worth on golden comparisons; None where there are none."""
    golden = work.inputs.golden
    if config.golden is not None:
        golden = freeze_held_out(work.context, work.recipe.data, "comparisons", config.golden, "golden judge")
    return None if golden is None else calibrate(work.context, labeller, golden)


def unlabelled(work: Work, config: FeedbackConfig, pairs: DataConfig) -> list[Comparison]:
    """The pairs to label. GateError for answers of the judge, DataError where nothing would be left to measure on."""
    records = read_comparisons(pairs)
    refuse_own_answers(config, {name for record in records for name in record.models}, pairs.path)
    if work.recipe.learns_from_comparisons:
        train, held_out = split(records, pairs.holdout)
        if not train or not held_out:
            raise DataError(
                f"{pairs.path}: {len(train)} comparisons are left to learn from and {len(held_out)} to measure on "
                f"(holdout={pairs.holdout:g}); both are needed. Change feedback.pairs.holdout, or add prompts."
            )
    return records


def labelled_anew(work: Work, config: FeedbackConfig, pairs: DataConfig) -> RecordSet:
    """A file of comparisons with the judge's preferences in the place of its own."""
    records = unlabelled(work, config, pairs)
    judge, labeller = ai_judge(work), ai_labeller(work)

    def body(context: StageContext) -> StageResult:
        made = sound(
            labeller([as_pair(record, number) for number, record in enumerate(records)]), len(records), "feedback"
        )
        return StageResult(
            metrics={"comparisons": len(made), **labeller.account()},
            write=lambda folder: write(folder, labeller, made),
        )

    settings = {"pairs": content_digest(records), "labeller": judge.identity}
    artifact = work.context.stage("labels", settings, judge.parents, body, kind="comparison_set", label="labels 0")
    train, held_out = split(read_set(artifact), pairs.holdout)
    return RecordSet(train=train, held_out=held_out, artifact=artifact)


def write(folder: Path, labeller: AILabeller, records: Sequence[Comparison]) -> None:
    """The comparisons and every verdict behind them."""
    write_jsonl(folder / RECORDS, records)
    labeller.write(folder)
