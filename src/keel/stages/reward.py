"""Comparisons in, reward model out, with a report that decides whether RL may trust it."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from keel.algorithms.reward import RewardModelling
from keel.batch.collate import EncodedPair
from keel.core.artifacts import RECORD, Artifact, load_artifact
from keel.core.errors import ConfigError, GateError
from keel.core.files import atomic_write_json, tree_sha256
from keel.core.seed import derive, generator
from keel.data.records import Comparison, prompt_key
from keel.evaluate.reward_report import accuracy_figures, reward_figures, score_pairs
from keel.models.reward import RewardModel
from keel.models.roles import set_role
from keel.models.settings import ModelConfig
from keel.monitor.bands import reward_collapse, reward_model_accuracy, reward_model_scores
from keel.monitor.probe import golden_probe
from keel.monitor.thresholds import Thresholds
from keel.monitor.verdict import Verdict
from keel.stages.agreement import overriding
from keel.stages.context import Run, StageContext, StageResult, warn_of_rate
from keel.stages.coverage import covered, write_coverage
from keel.stages.pairs import PairSet, pair_batches
from keel.stages.policy import PolicyFiles
from keel.stages.roles import read_role, write_role
from keel.stages.sections.reward import RewardConfig
from keel.stats.coverage import Coverage
from keel.train.judge import EnsembleScorer, RewardModelScorer, Scorer
from keel.train.loop import LoopConfig, fit
from keel.train.optim import Optimizer, ParameterGroup, trainable

MODEL = "model"
TRAIN_PROBE = 512
"""Training pairs that stand beside the golden ones."""


@dataclass(frozen=True, kw_only=True)
class RewardData:
    """What a reward model is trained on and judged by."""

    artifacts: Sequence[Artifact]
    train: PairSet
    held_out: PairSet
    tokenizer: Any
    """The one that made the token ids."""
    replay: float | None = None
    """Share of earlier comparisons in `train`, for a refresh."""
    override: str | None = None
    """Why they are trained on although their raters hardly agree."""


def train_reward_models(
    run: Run,
    config: RewardConfig,
    policy: PolicyFiles,
    data: RewardData,
    *,
    start_from: Sequence[Artifact] = (),
    label: str = "reward",
) -> list[Artifact]:
    """One artifact a member; `start_from` (a member each) refreshes earlier models instead of starting anew."""
    base = (
        policy if config.base is None else PolicyFiles.of_model(policy.config.model_copy(update={"path": config.base}))
    )
    out = []
    for member in range(config.members):
        earlier = [start_from[member]] if start_from else []
        settings = config.model_dump(
            mode="json",
            exclude={"members", "aggregate", "std_weight", "best_of", "best_of_prompts", "micro_batch_tokens"},
        )
        out.append(
            run.stage(
                "reward",
                {
                    **settings,
                    "seed": run.seed,
                    "member": member,
                    "base": base.identity,
                    "replay": data.replay,
                    **overriding(data.override),
                },
                [*data.artifacts, *earlier],
                lambda context, member=member, earlier=earlier: train_member(
                    context, config, base, data, member, earlier[0] if earlier else None
                ),
                kind="reward_model",
                label=label if config.members == 1 else f"{label} {member + 1}",
            )
        )
    return out


def train_member(
    context: StageContext,
    config: RewardConfig,
    base: PolicyFiles,
    data: RewardData,
    member: int,
    earlier: Artifact | None,
) -> StageResult:
    """Train one reward model and measure it."""
    seed = derive(context.seed, "reward", member)
    torch.manual_seed(seed)
    if earlier is not None and config.lora is None:
        model = RewardModel.load(
            earlier.path / MODEL,
            device=base.config.device,
            trust_remote_code=base.config.trust_remote_code,
            gradient_checkpointing=base.config.gradient_checkpointing,
        )
    else:
        model = RewardModel.from_policy(
            base.weights,
            form=config.form,
            beta=config.beta,
            seed=seed,
            freeze_embeddings=config.freeze_embeddings,
            lora=config.lora,
            **base.reading,
        )
        if earlier is not None:
            go_on(model, earlier, base.identity)
    require_same_tokens(model.tokenizer, data.tokenizer, "reward.base")
    warn_of_rate(context, "reward", config.optim, model, lora=config.lora is not None)
    per_epoch = math.ceil(len(data.train.pairs) / config.batch)
    total = config.epochs * per_epoch
    optimizer = Optimizer([ParameterGroup(parameters=trainable(model))], config.optim, total)
    start = 0
    if checkpoint := context.checkpoints.latest():
        checkpoint.restore({"reward_model": model}, optimizer)
        start = checkpoint.step
        context.resumed(start, checkpoint.state)
    progress = context.run.progress
    progress.start(context.name, total, "steps")
    progress.advance(start)
    source = pair_batches(data.train.pairs, config.batch, seed, start, total)
    loop = LoopConfig(micro_batch_tokens=config.micro_batch_tokens, seed=seed)
    algorithm = RewardModelling(model, config.loss)
    clock, tokens = time.perf_counter(), 0.0
    model.train()
    for step, metrics in enumerate(fit(source, algorithm, optimizer, loop, start=start), start + 1):
        tokens += metrics.pop("tokens")
        progress.advance(1, loss=metrics["loss"], accuracy=metrics["accuracy"])
        if step % max(1, total // 200) == 0 or step == total:
            context.event(
                "step", step=step, of=total, tokens_per_second=tokens / (time.perf_counter() - clock), **metrics
            )
        if context.checkpoint_due():
            context.checkpoints.save(
                step, modules={"reward_model": model}, optimizer=optimizer, state={"seconds": context.seconds}
            )
    model.eval()
    scorer = RewardModelScorer(model=model, mean=0.0, std=1.0, micro_batch_tokens=config.micro_batch_tokens)
    metrics = measure(context, scorer, data)
    progress.finish(
        f"held-out accuracy {metrics['accuracy']:.3f} ({metrics['accuracy_low']:.3f} to {metrics['accuracy_high']:.3f})"
    )
    model.mean, model.std = metrics["score_mean"], max(metrics["score_std"], 1e-8)
    return StageResult(
        metrics={**metrics, "form": config.form, "training_pairs": len(data.train.pairs)},
        write=lambda folder: write(folder, model, config, base.identity, covered(data.train.pairs, earlier)),
    )


def go_on(model: RewardModel, earlier: Artifact, base: str) -> None:
    """Give a fresh model the adapter and the head of an earlier one."""
    saved = read_role(earlier, base)
    set_role(model.network, saved.tensors)
    if saved.head is not None:
        with torch.no_grad():
            model.head.weight.copy_(saved.head)


def write(folder: Path, model: RewardModel, config: RewardConfig, base: str, coverage: Coverage | None = None) -> None:
    """The model whole, for everyone; with lora its adapter too, for a refresh and for ppo.layout: one_trunk."""
    model.save(folder / MODEL)
    write_coverage(folder, coverage)
    if config.lora is not None:
        write_role(folder, model.network, config.lora, base, model.head.weight)


def measure(context: StageContext, scorer: Scorer, data: RewardData) -> dict[str, Any]:
    """The report's figures, each verdict recorded."""
    metrics = reward_figures(scorer, data.held_out.pairs, data.held_out.records, data.train.records)
    verdict = reward_model_accuracy(
        metrics["accuracy"],
        metrics["accuracy_low"],
        metrics["accuracy_high"],
        baseline=max(metrics["baseline_longer"], metrics["baseline_bag_of_words"]),
        thresholds=context.run.thresholds,
    )
    metrics["verdict"] = verdict.figures["verdict"]
    context.run.verdict(context.name, verdict)
    context.run.verdict(context.name, scores_verdict(metrics, context.run.thresholds))
    return metrics


def probe_golden(
    run: Run,
    config: RewardConfig,
    scorer: Scorer,
    members: Sequence[Artifact],
    golden: PairSet,
    train: PairSet,
    golden_set: Artifact,
    label: str = "golden",
) -> Artifact:
    """A report: accuracy on comparisons that seniors judged and nothing was trained on, beside that on training pairs.

    `passed` is what a promotion asks for.
    """

    def accuracy(pairs: Sequence[EncodedPair]) -> dict[str, float]:
        return accuracy_figures(*score_pairs(scorer, pairs), [pair.preference for pair in pairs])

    def body(context: StageContext) -> StageResult:
        found = accuracy(golden.pairs)
        rng = generator(context.seed, "golden")
        trained = accuracy([train.pairs[i] for i in rng.permutation(len(train.pairs))[:TRAIN_PROBE]])
        verdict = golden_probe(
            found["accuracy"],
            found["accuracy_low"],
            found["accuracy_high"],
            int(found["decided_pairs"]),
            train_accuracy=trained["accuracy"],
            train_low=trained["accuracy_low"],
            seen=len(what_is_compared(golden.records) & what_is_compared(train.records)),
            thresholds=context.run.thresholds,
        )
        context.run.verdict(context.name, verdict)
        more = {name: verdict.figures[name] for name in ("train_accuracy", "overfit", "seen")}
        metrics = {**found, **more, "passed": verdict.level in ("ok", "watch"), "said": verdict.message}
        return StageResult(metrics=metrics, write=lambda folder: atomic_write_json(folder / "report.json", metrics))

    settings = {**aggregation(config), "train_pairs": TRAIN_PROBE}
    return run.stage("golden", settings, [*members, golden_set], body, kind="report", label=label)


def what_is_compared(records: Sequence[Comparison]) -> set[tuple[str, frozenset[str]]]:
    """Prompt and responses of each comparison, whichever stands first."""
    return {(prompt_key(record.prompt), frozenset((record.a, record.b))) for record in records}


def aggregation(config: RewardConfig) -> dict[str, Any]:
    """The settings that make one score of several members."""
    return config.model_dump(mode="json", include={"aggregate", "std_weight"})


def load_scorer(
    config: RewardConfig, members: Sequence[Artifact], model_config: ModelConfig, micro_batch_tokens: int
) -> Scorer:
    """The reward model that members make together."""
    scorers: list[Scorer] = []
    for artifact in members:
        model = RewardModel.load(
            artifact.path / MODEL,
            device=model_config.device,
            trust_remote_code=model_config.trust_remote_code,
        )
        model.eval().requires_grad_(False)
        scorers.append(
            RewardModelScorer(model=model, mean=model.mean, std=model.std, micro_batch_tokens=micro_batch_tokens)
        )
    if len(scorers) == 1:
        return scorers[0]
    return EnsembleScorer(scorers, config.aggregate, config.std_weight)


def scores_verdict(metrics: Mapping[str, Any], thresholds: Thresholds) -> Verdict:
    return reward_model_scores(
        metrics["score_std"], metrics["score_abs_max"], metrics["score_abs_mean"], thresholds=thresholds
    )


def refuse_unfit(artifact: Artifact, thresholds: Thresholds) -> None:
    """A collapsed or saturated reward model teaches nothing or anything: RL does not start on it."""
    verdict = scores_verdict(artifact.metrics, thresholds)
    if verdict.level in ("act", "stop"):
        raise GateError(f"{artifact.path.name}: {verdict.message} {verdict.remedy}")


def load_external(
    path: str, config: ModelConfig, tokenizer: Any, micro_batch_tokens: int, thresholds: Thresholds
) -> Scorer:
    """A reward model that another run made, or any sequence classifier with one label.

    Raises GateError for one whose own record says that it has collapsed or saturated.
    """
    folder = Path(path)
    if (folder.parent / RECORD).is_file():
        refuse_unfit(load_artifact(folder.parent, "reward_model"), thresholds)
    model = RewardModel.load(folder, device=config.device, trust_remote_code=config.trust_remote_code)
    model.eval().requires_grad_(False)
    require_same_tokens(model.tokenizer, tokenizer, path)
    verdict = reward_collapse(model.std, thresholds)
    if verdict.level == "stop":
        raise GateError(f"{path}: {verdict.message} {verdict.remedy}")
    return RewardModelScorer(model=model, mean=model.mean, std=model.std, micro_batch_tokens=micro_batch_tokens)


def require_same_tokens(own: Any, other: Any, where: str) -> None:
    """Raise ConfigError when a reward model's tokenizer would read the policy's token ids as other text.

    Tokens that only one of them has, such as a padding token added for the reward model, do no harm.
    """
    mine, theirs = own.get_vocab(), other.get_vocab()
    differing = [token for token, index in theirs.items() if mine.get(token, index) != index]
    if differing or len(mine.keys() & theirs.keys()) < len(theirs):
        example = differing[0] if differing else next(iter(theirs.keys() - mine.keys()))
        raise ConfigError(
            f"{where}: the reward model's tokenizer differs from the policy's (for example at {example!r}), and keel "
            "hands token ids from one to the other. Choose a reward model of the same family, or train one here."
        )


def model_identity(path: str | None) -> str | None:
    """What a stage's hash sees of a reward model that the recipe names: its content when it is a folder."""
    return tree_sha256(Path(path)) if path is not None and Path(path).is_dir() else path


def on_policy_accuracy(scorer: Scorer, fresh: PairSet) -> float:
    """Accuracy on labels of the present policy's own samples: far below held-out accuracy, the model has drifted."""
    a, b = score_pairs(scorer, fresh.pairs)
    return accuracy_figures(a, b, [pair.preference for pair in fresh.pairs])["accuracy"]
