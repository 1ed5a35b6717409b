"""A recipe, stage by stage: data, SFT, reward model, preferences or RL (in rounds or at once), evaluation, report."""

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from keel.core.artifacts import Artifact
from keel.core.config import to_yaml
from keel.core.errors import ConfigError, KeelError
from keel.core.events import EventLog, plain
from keel.core.files import RunLock, atomic_write_json, atomic_write_text
from keel.core.progress import Progress
from keel.data.formats import DataConfig
from keel.data.split import split
from keel.models.extras import require_bitsandbytes
from keel.models.load import context_length_of
from keel.report.html import write_report
from keel.stages.context import Observer, Run, available_cores, unobserved
from keel.stages.encode import encode_demonstrations, encode_prompts, fitting
from keel.stages.evaluate import Preference, evaluate_policy
from keel.stages.functions import function_identity, load_function
from keel.stages.inputs import Inputs, RecordSet, check_agreement, freeze_held_out, prompt_source, read_inputs
from keel.stages.labels import read_set
from keel.stages.optimise import Optimisation, RewardModels
from keel.stages.pairs import pair_set
from keel.stages.paths import locate
from keel.stages.policy import PolicyFiles, read_tokenizer
from keel.stages.prefer import PreferenceData, train_on_preferences
from keel.stages.recipe import Recipe
from keel.stages.reward import aggregation
from keel.stages.sections.evaluate import EvaluateConfig
from keel.stages.sections.prefer import PreferConfig
from keel.stages.sections.sft import SFTConfig
from keel.stages.sft import train_sft
from keel.stages.summary import Made, summarise
from keel.stages.trackers.follow import tracking
from keel.train.judge import Judge
from keel.train.rollout import EncodedPrompt
from keel.train.settings import ShapingConfig

T = TypeVar("T")

FIRST_HOLDOUT = 0.15
"""Share of prompts whose collected comparisons measure the reward model instead of training it."""


def run(
    recipe: Recipe,
    directory: Path,
    progress: Progress,
    *,
    only: str | None = None,
    recipe_folder: Path = Path(),
    observe: Observer = unobserved,
) -> dict[str, Any]:
    """Run a recipe in `directory` up to and including the stage `only` (None: all), and return the summary.

    `observe` sees every rollout of RL; what it learns stays with it.

    Finished stages are reused, an interrupted one resumes from its last checkpoint. Raises ArtifactError when another
    process works in the folder.
    """
    recipe = locate(recipe, recipe_folder)
    with RunLock(directory):
        recipe = within_context(recipe, progress)
        threads = settle_threads(recipe, directory)
        torch.set_num_threads(threads)
        atomic_write_text(directory / "recipe.yaml", to_yaml(recipe))
        context = Run(
            directory=directory,
            seed=recipe.seed,
            events=EventLog(directory / "events.jsonl"),
            progress=progress,
            checkpoint_every_seconds=recipe.checkpoint.every_seconds,
            recipe_folder=recipe_folder,
            thresholds=recipe.thresholds,
            observe=observe,
        )
        begun = time.monotonic()
        try:
            with tracking(recipe, directory, context.events, progress):
                made = run_stages(recipe, context, only)
        except KeelError:
            if context.events.path.is_file():  # a run that was refused or broke off is one to look at
                with suppress(KeelError):  # on a full disk there is no page, and the first message is the one to read
                    write_report(directory)
            raise
        summary = plain(summarise(recipe, made, time.monotonic() - begun, threads))
        atomic_write_json(directory / "summary.json", summary)
        write_report(directory)
        return summary


def within_context(recipe: Recipe, progress: Progress) -> Recipe:
    """The recipe with data.max_tokens no longer than any of its models reads."""
    parts = recipe.ppo.rewards if recipe.ppo else ()
    bought = [part.model for part in parts if part.model not in (None, "stage")]
    models = [recipe.model.path, *([recipe.reward.base] if recipe.reward and recipe.reward.base else []), *bought]
    reads = {path: context_length_of(path, recipe.model.trust_remote_code) for path in models if path is not None}
    shortest = min(reads, key=lambda path: reads[path] or sys.maxsize)
    limit = reads[shortest] or sys.maxsize
    wanted = recipe.data.max_tokens
    if limit < wanted:
        progress.say(f"data.max_tokens is {limit} instead of {wanted}: {shortest} reads no more.")
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"max_tokens": limit})})
    for name, section in (("ppo", recipe.ppo), ("prefer", recipe.prefer if recipe.evaluate else None)):
        if section is not None and section.max_new_tokens >= recipe.data.max_tokens:
            raise ConfigError(
                f"{name}.max_new_tokens={section.max_new_tokens} leaves no room for a prompt within data.max_tokens="
                f"{recipe.data.max_tokens}. Lower the first, or raise the second as far as the model reads."
            )
    return recipe


def check_functions(recipe: Recipe, folder: Path, only: str | None) -> None:
    """Load every Python function that the stages up to `only` will call, so that a mistake costs no training."""
    named: list[tuple[str, str | None]] = []
    if only != "sft" and recipe.rounds is not None:
        named.append(("rounds.labeller", recipe.rounds.labeller))
    if only not in ("sft", "reward") and recipe.ppo is not None:
        named += [(f"ppo.rewards.{part.name}", part.python) for part in recipe.ppo.rewards]
        named.append(("guardian.checks.judge", recipe.guardian.checks.judge))
    if only in (None, "evaluate") and recipe.evaluate is not None:
        named.append(("evaluate.preference", recipe.evaluate.preference))
    for field, spec in named:
        if spec is not None:
            load_function(spec, field, folder)


def check_libraries(recipe: Recipe) -> None:
    """Look for the optional libraries that settings ask for, so that a missing one costs no training."""
    if recipe.model.quantise is not None:
        require_bitsandbytes(f"model.quantise: {recipe.model.quantise}")
    for name in Recipe.model_fields:
        optim = getattr(getattr(recipe, name), "optim", None)
        if optim is not None and optim.name == "adamw8bit":
            require_bitsandbytes(f"{name}.optim.name: adamw8bit")


def settle_threads(recipe: Recipe, directory: Path) -> int:
    """CPU threads of this run; a folder keeps the number it began with, because sums depend on it to the last bit."""
    note = directory / "threads"
    if note.is_file():
        return int(note.read_text())
    threads = recipe.threads or available_cores()
    atomic_write_text(note, str(threads))
    return threads


def run_stages(recipe: Recipe, context: Run, only: str | None) -> Made:
    """Every stage in order, each working on what the earlier ones made."""
    made = Made()
    check_functions(recipe, context.recipe_folder, only)
    check_libraries(recipe)
    base = PolicyFiles.of_model(recipe.model)
    tokenizer = read_tokenizer(base)
    inputs = read_inputs(context, recipe)

    sft = base
    if recipe.sft is not None:
        made.sft = fine_tune(context, recipe, recipe.sft, base, tokenizer, inputs)
        sft = base.of_artifact(made.sft)
    if only == "sft":
        return made

    rl = Optimisation.of(context, recipe, sft, made, tokenizer, inputs)
    rewards: RewardModels | None = None
    if recipe.reward is not None or recipe.prefer is not None:
        comparisons = inputs.comparisons or collected(recipe, rl)
        made.agreement = check_agreement(context, recipe, [*comparisons.train, *comparisons.held_out])
        if recipe.reward is not None:
            rewards = RewardModels.train(
                context, recipe, recipe.reward, sft, made, tokenizer, comparisons, inputs.golden
            )
        if recipe.prefer is not None and only != "reward":
            made.prefer = prefer(context, recipe, recipe.prefer, sft, made, tokenizer, comparisons)
    if only == "reward":
        return made

    if rl is not None:
        policy = rl.run(rewards)
        if only != "ppo" and recipe.evaluate is not None:
            made.evaluate = compare_with_sft(recipe, recipe.evaluate, rl, policy, rewards)
    elif recipe.prefer is not None and made.prefer is not None and only != "prefer" and recipe.evaluate is not None:
        made.evaluate = compare_preferred(
            context, recipe, recipe.evaluate, recipe.prefer, made.prefer, sft, tokenizer, inputs, rewards
        )
    return made


def fine_tune(
    context: Run, recipe: Recipe, config: SFTConfig, base: PolicyFiles, tokenizer: Any, inputs: Inputs
) -> Artifact:
    fit = fitting(recipe.data)
    records = required(inputs.demonstrations)
    train = encode_demonstrations(records.train, tokenizer, fit)
    held_out = encode_demonstrations(records.held_out, tokenizer, fit) if records.held_out else []
    context.events.append("records", stage="sft", train=len(train), held_out=len(held_out), **fit.report())
    return train_sft(context, config, base, records.artifact, train, held_out)


def prefer(
    context: Run,
    recipe: Recipe,
    config: PreferConfig,
    sft: PolicyFiles,
    made: Made,
    tokenizer: Any,
    comparisons: RecordSet,
) -> Artifact:
    """The policy that the comparisons make of the SFT policy."""
    fit = fitting(recipe.data)
    data = PreferenceData(
        artifacts=[comparisons.artifact, *([made.sft] if made.sft else [])],
        train=pair_set(comparisons.train, config.labels, tokenizer, fit),
        held_out=pair_set(comparisons.held_out, config.labels, tokenizer, fit),
        override=made.agreement.get("override"),
    )
    context.events.append(
        "records", stage="prefer", train=len(data.train.pairs), held_out=len(data.held_out.pairs), **fit.report()
    )
    return train_on_preferences(context, config, sft, data)


def collected(recipe: Recipe, rl: Optimisation | None) -> RecordSet:
    """Comparisons of the SFT policy's own samples, for recipes that bring none."""
    artifact = required(rl).collect_first()
    # Prompts below the first threshold never reached the labellers, so the share is taken of what lies above it.
    outside = prompt_source(recipe).holdout
    train, held_out = split(read_set(artifact), outside + FIRST_HOLDOUT * (1 - outside))
    return RecordSet(train=train, held_out=held_out, artifact=artifact)


def compare_with_sft(
    recipe: Recipe, config: EvaluateConfig, rl: Optimisation, policy: Artifact, rewards: RewardModels | None
) -> Artifact:
    # Behind those that chose the checkpoint, where there are more: choosing flatters.
    prompts: Sequence[EncodedPrompt] = rl.held_out[rl.config.evaluate_prompts :] or rl.held_out
    prompt_set = rl.prompt_set
    if config.data is not None:
        prompts, prompt_set = evaluation_prompts(
            rl.context, recipe, config.data, rl.tokenizer, rl.config.max_new_tokens, "ppo"
        )
    preference, identity = true_preference(config, rl.context.recipe_folder)
    return evaluate_policy(
        rl.context,
        config,
        rl.config,
        policy,
        rl.sft.of_artifact(policy),
        rl.sft,
        prompts,
        prompt_set,
        rl.judge(rewards),
        preference,
        identity,
    )


def compare_preferred(
    context: Run,
    recipe: Recipe,
    config: EvaluateConfig,
    sampling: PreferConfig,
    policy: Artifact,
    sft: PolicyFiles,
    tokenizer: Any,
    inputs: Inputs,
    rewards: RewardModels | None,
) -> Artifact:
    """The win-rate by whatever judges: a true preference, the recipe's reward model, or both; else only distances."""
    if config.data is not None:
        prompts, prompt_set = evaluation_prompts(
            context, recipe, config.data, tokenizer, sampling.max_new_tokens, "prefer"
        )
    else:
        records = required(inputs.prompts)
        prompt_set, fit = records.artifact, fitting(recipe.data)
        prompts = encode_prompts(records.held_out, tokenizer, fit, sampling.max_new_tokens, "prefer")
    judge: Judge | None = None
    if rewards is not None:
        scorers = {"reward_model": (1.0, rewards.scorer())}
        judge = Judge(scorers=scorers, shaping=ShapingConfig(), max_new_tokens=sampling.max_new_tokens)
    preference, identity = true_preference(config, context.recipe_folder)
    return evaluate_policy(
        context,
        config,
        sampling,
        policy,
        sft.of_artifact(policy),
        sft,
        prompts,
        prompt_set,
        judge,
        preference,
        identity,
        reward_models=rewards.members if rewards else (),
        aggregation=aggregation(rewards.config) if rewards else {},
    )


def evaluation_prompts(
    context: Run, recipe: Recipe, data: DataConfig, tokenizer: Any, max_new_tokens: int, section: str
) -> tuple[list[EncodedPrompt], Artifact]:
    """Prompts of a file of their own, and the artifact that froze them."""
    records = freeze_held_out(context, recipe.data, "prompts", data, "evaluation")
    prompts = encode_prompts(records.held_out, tokenizer, fitting(recipe.data), max_new_tokens, section)
    return prompts, records.artifact


def true_preference(config: EvaluateConfig, folder: Path) -> tuple[Preference | None, str | None]:
    """The function that knows what people prefer, and its identity."""
    if config.preference is None:
        return None, None
    preference: Preference = load_function(config.preference, "evaluate.preference", folder)
    return preference, function_identity(config.preference, folder)


def required(value: T | None) -> T:
    """What the recipe's own checks promise to be there."""
    if value is None:
        raise RuntimeError("a stage was reached without what the recipe's checks promise")
    return value
