"""A recipe, stage by stage: data, SFT, reward model, RL (in rounds or at once), evaluation, report."""

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
from keel.data.split import split
from keel.models.extras import require_bitsandbytes
from keel.models.load import context_length_of
from keel.report.html import write_report
from keel.stages.context import Run, available_cores
from keel.stages.encode import encode_demonstrations, encode_prompts, fitting
from keel.stages.evaluate import Preference, evaluate_policy
from keel.stages.functions import function_identity, load_function
from keel.stages.inputs import Inputs, RecordSet, check_agreement, freeze_held_out, prompt_source, read_inputs
from keel.stages.labels import read_set
from keel.stages.optimise import Optimisation, RewardModels
from keel.stages.paths import locate
from keel.stages.policy import PolicyFiles, read_tokenizer
from keel.stages.recipe import EvaluateConfig, Recipe, SFTConfig
from keel.stages.sft import train_sft
from keel.stages.summary import Made, summarise
from keel.train.rollout import EncodedPrompt

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
) -> dict[str, Any]:
    """Run a recipe in `directory` up to and including the stage `only` (None: all), and return the summary.

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
        )
        begun = time.monotonic()
        try:
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
    if recipe.ppo is not None and recipe.ppo.max_new_tokens >= recipe.data.max_tokens:
        raise ConfigError(
            f"ppo.max_new_tokens={recipe.ppo.max_new_tokens} leaves no room for a prompt within data.max_tokens="
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
    if recipe.reward is not None:
        comparisons = inputs.comparisons or collected(recipe, rl)
        records = [*comparisons.train, *comparisons.held_out]
        made.agreement = check_agreement(context, recipe, records)
        rewards = RewardModels.train(context, recipe, recipe.reward, sft, made, tokenizer, comparisons, inputs.golden)
    if only == "reward" or rl is None:
        return made

    policy = rl.run(rewards)
    if only == "ppo" or recipe.evaluate is None:
        return made
    made.evaluate = compare_with_sft(recipe, recipe.evaluate, rl, policy, rewards)
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
    folder = rl.context.recipe_folder
    preference: Preference | None = None
    if config.preference is not None:
        preference = load_function(config.preference, "evaluate.preference", folder)
    # Behind those that chose the checkpoint, where there are more: choosing flatters.
    prompts: Sequence[EncodedPrompt] = rl.held_out[rl.config.evaluate_prompts :] or rl.held_out
    prompt_set = rl.prompt_set
    if config.data is not None:
        records = freeze_held_out(rl.context, recipe.data, "prompts", config.data, "evaluation")
        prompt_set, fit = records.artifact, fitting(recipe.data)
        prompts = encode_prompts(records.held_out, rl.tokenizer, fit, rl.config.max_new_tokens)
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
        function_identity(config.preference, folder),
    )


def required(value: T | None) -> T:
    """What the recipe's own checks promise to be there."""
    if value is None:
        raise RuntimeError("a stage was reached without what the recipe's checks promise")
    return value
