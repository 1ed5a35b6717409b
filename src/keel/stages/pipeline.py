"""A recipe, stage by stage: data, SFT, reward model, RL (in rounds or at once), evaluation, report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from keel.core.artifacts import Artifact
from keel.core.config import to_yaml
from keel.core.errors import ConfigError
from keel.core.events import EventLog
from keel.core.files import RunLock, atomic_write_json, atomic_write_text
from keel.core.progress import Progress
from keel.core.seed import generator
from keel.data.formats import read_prompts
from keel.data.split import split
from keel.report.html import write_report
from keel.stages.align import AlignTask, Aligner
from keel.stages.context import Run, available_cores
from keel.stages.encode import encode_comparisons, encode_demonstrations, encode_prompts, fitting
from keel.stages.evaluate import evaluate_policy
from keel.stages.functions import function_identity, load_function
from keel.stages.inputs import RecordSet, check_agreement, read_inputs
from keel.stages.labels import Collection, collect, read_set
from keel.stages.policy import PolicyFiles, read_tokenizer
from keel.stages.recipe import Recipe, RewardConfig, RLConfig
from keel.stages.reward import (
    PairSet,
    RewardData,
    load_external,
    load_scorer,
    on_policy_accuracy,
    train_reward_models,
)
from keel.stages.sft import train_sft
from keel.stages.summary import Made, summarise
from keel.train.judge import FunctionScorer, Judge, Scorer
from keel.train.rollout import EncodedPrompt

STAGES = ("sft", "reward", "ppo", "evaluate")

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
    with RunLock(directory):
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
        )
        begun = time.monotonic()
        pipeline = Pipeline(recipe, context)
        pipeline.run(only)
        summary = summarise(recipe, pipeline.made, time.monotonic() - begun, threads)
        atomic_write_json(directory / "summary.json", summary)
        write_report(directory)
        return summary


def settle_threads(recipe: Recipe, directory: Path) -> int:
    """CPU threads of this run; a folder keeps the number it began with, because sums depend on it to the last bit."""
    note = directory / "threads"
    if note.is_file():
        return int(note.read_text())
    threads = recipe.threads or available_cores()
    atomic_write_text(note, str(threads))
    return threads


@dataclass
class Pipeline:
    """The stages of one recipe in one run folder."""

    recipe: Recipe
    context: Run

    def run(self, only: str | None) -> None:
        """Every stage in order, each working on what the earlier ones made."""
        self.made = Made()
        recipe = self.recipe
        base = PolicyFiles.of_model(recipe.model)
        self.tokenizer = read_tokenizer(base)
        self.inputs = read_inputs(self.context, recipe)
        self.sft_files, self.sft_artifact = base, None
        if recipe.sft is not None:
            self.sft_artifact = self.fine_tune(base)
            self.sft_files = base.of_artifact(self.sft_artifact)
            self.made.sft = self.sft_artifact
        if only == "sft":
            return
        self.members: list[Artifact] = []
        if recipe.reward is not None:
            self.comparisons = self.inputs.comparisons or self.collect_first()
            records = [*self.comparisons.train, *self.comparisons.held_out]
            self.made.agreement = check_agreement(self.context, recipe, records)
            self.reward_data = self.encode_reward_data()
            self.members = train_reward_models(self.context, recipe.reward, self.sft_files, self.reward_data)
            self.made.reward = self.members
        if only == "reward" or recipe.ppo is None:
            return
        self.encode_rl_prompts(recipe.ppo)
        policy = self.align_in_rounds(recipe.ppo) if recipe.rounds else self.align(recipe.ppo)
        if only == "ppo" or recipe.evaluate is None:
            return
        spec = recipe.evaluate.preference
        preference = load_function(spec, "evaluate.preference", self.context.recipe_folder) if spec else None
        self.made.evaluate = evaluate_policy(
            self.context,
            recipe.evaluate,
            recipe.ppo,
            policy,
            base.of_artifact(policy),
            self.sft_files,
            self.evaluation_prompts(recipe),
            self.judge(recipe.ppo),
            preference,
            function_identity(spec, self.context.recipe_folder),
        )

    def fine_tune(self, base: PolicyFiles) -> Artifact:
        recipe, inputs = self.recipe, self.inputs
        fit = fitting(recipe.data)
        train = encode_demonstrations(inputs.demonstrations.train, self.tokenizer, fit)
        held_out = (
            encode_demonstrations(inputs.demonstrations.held_out, self.tokenizer, fit)
            if inputs.demonstrations.held_out
            else []
        )
        self.context.events.append("records", stage="sft", train=len(train), held_out=len(held_out), **fit.report())
        return train_sft(self.context, recipe.sft, base, inputs.demonstrations.artifact, train, held_out)

    def encode_reward_data(self) -> RewardData:
        recipe, inputs = self.recipe, self.inputs
        fit = fitting(recipe.data)

        def pair_set(records: Sequence) -> PairSet:
            return PairSet.of(records, encode_comparisons(records, self.tokenizer, fit))

        data = RewardData(
            artifacts=[self.comparisons.artifact, *([self.sft_artifact] if self.sft_artifact else [])],
            train=pair_set(self.comparisons.train),
            held_out=pair_set(self.comparisons.held_out),
            golden=pair_set(inputs.golden) if inputs.golden else None,
        )
        self.context.events.append(
            "records", stage="reward", train=len(data.train.pairs), held_out=len(data.held_out.pairs), **fit.report()
        )
        return data

    def encode_rl_prompts(self, config: RLConfig) -> None:
        fit = fitting(self.recipe.data)
        prompts = self.inputs.prompts
        self.train_prompts = encode_prompts(prompts.train, self.tokenizer, fit, config.max_new_tokens)
        self.held_out_prompts = encode_prompts(prompts.held_out, self.tokenizer, fit, config.max_new_tokens)
        self.context.events.append(
            "records", stage="ppo", train=len(self.train_prompts), held_out=len(self.held_out_prompts), **fit.report()
        )

    def collect_first(self) -> RecordSet:
        """Comparisons of the SFT policy's own samples, for recipes that bring no comparisons."""
        self.encode_rl_prompts(self.recipe.ppo)
        task = self.collection(self.recipe.rounds.first_comparisons, 0, self.sft_files, opponent_share=0.0)
        parents = [a for a in (self.sft_artifact,) if a is not None]
        artifact = collect(self.context, self.recipe.ppo, task, parents)
        train, held_out = split(read_set(artifact), FIRST_HOLDOUT)
        return RecordSet(train=train, held_out=held_out, artifact=artifact)

    def collection(self, count: int, number: int, policy: PolicyFiles, *, opponent_share: float) -> Collection:
        spec, folder = self.recipe.rounds.labeller, self.context.recipe_folder
        return Collection(
            count=count,
            opponent_share=opponent_share,
            policy=policy,
            reference=self.sft_files,
            prompts=self.train_prompts,
            round=number,
            labeller=load_function(spec, "rounds.labeller", folder),
            labeller_identity=function_identity(spec, folder),
        )

    def align(self, config: RLConfig) -> Artifact:
        """RL in one go."""
        return self.rl_stage(config, AlignTask(**self.task(), start=self.sft_files), None, "ppo")

    def align_in_rounds(self, config: RLConfig) -> Artifact:
        """RL, fresh labels, refreshed reward model, RL again: labels follow the policy (SCIENCE 3)."""
        recipe, rounds = self.recipe, self.recipe.rounds
        policy: Artifact | None = None
        seen = list(self.comparisons.train)
        for number in range(rounds.count):
            start = self.sft_files if policy is None else self.sft_files.of_artifact(policy)
            task = AlignTask(
                **self.task(), start=start, round=number, step_offset=number * config.updates, earlier=policy
            )
            policy = self.rl_stage(config, task, policy, f"ppo {number + 1}")
            if number == rounds.count - 1:
                break
            files = self.sft_files.of_artifact(policy)
            task = self.collection(rounds.comparisons, number + 1, files, opponent_share=0.5)
            fresh_set = collect(self.context, config, task, [policy])
            fresh = read_set(fresh_set)
            seen = self.refresh(fresh_set, fresh, seen, number)
        return policy

    def refresh(self, fresh_set: Artifact, fresh: list, seen: list, number: int) -> list:
        """Train the reward model on the fresh labels and a replay of earlier ones; return all labels so far."""
        recipe, rounds = self.recipe, self.recipe.rounds
        rng = generator(self.recipe.seed, "replay", number)
        replay = [seen[i] for i in rng.permutation(len(seen))[: round(rounds.replay * len(fresh))]]
        fit = fitting(recipe.data)
        fresh_pairs = PairSet.of(fresh, encode_comparisons(fresh, self.tokenizer, fit))
        before = on_policy_accuracy(self.scorer(), fresh_pairs)
        mixed = fresh + replay
        data = RewardData(
            artifacts=[fresh_set, self.comparisons.artifact],
            train=PairSet.of(mixed, encode_comparisons(mixed, self.tokenizer, fit)),
            held_out=self.reward_data.held_out,
            golden=self.reward_data.golden,
        )
        rate = rounds.learning_rate or recipe.reward.optim.learning_rate * 2 / 3
        config = recipe.reward.model_copy(
            update={"optim": recipe.reward.optim.model_copy(update={"learning_rate": rate})}
        )
        self.members = train_reward_models(
            self.context, config, self.sft_files, data, start_from=self.members, label=f"reward {number + 2}"
        )
        figures = {
            "labels": len(fresh),
            "agreement": fresh_set.metrics.get("pairwise_agreement"),
            "krippendorff_alpha": fresh_set.metrics.get("krippendorff_alpha"),
            "on_policy_accuracy_before": before,
            "held_out_accuracy": self.members[0].metrics["accuracy"],
        }
        self.made.rounds.append({"round": number + 1, **figures})
        self.context.events.append("round", stage="rounds", round=number + 1, **figures)
        return seen + fresh

    def evaluation_prompts(self, recipe: Recipe) -> list[EncodedPrompt]:
        if recipe.evaluate.data is None:
            return self.held_out_prompts
        prompts = read_prompts(recipe.evaluate.data)
        return encode_prompts(prompts, self.tokenizer, fitting(recipe.data), recipe.ppo.max_new_tokens)

    def task(self) -> dict[str, Any]:
        config = self.recipe.ppo
        held_out = [self.held_out_prompts[i % len(self.held_out_prompts)] for i in range(config.evaluate_prompts)]
        return {"reference": self.sft_files, "prompts": self.train_prompts, "held_out": held_out}

    def rl_stage(self, config: RLConfig, task: AlignTask, earlier: Artifact | None, label: str) -> Artifact:
        settings = {
            **config.model_dump(mode="json"),
            "reward": self.recipe.reward.model_dump(mode="json", include={"aggregate", "std_weight"})
            if self.recipe.reward
            else None,
            "functions": [function_identity(part.python, self.context.recipe_folder) for part in config.rewards],
            "seed": self.recipe.seed,
            "round": task.round,
            "start": task.start.identity,
        }
        parents = [self.inputs.prompts.artifact, *self.members]
        parents += [a for a in (self.sft_artifact, earlier) if a is not None]
        made = self.context.stage(
            "ppo",
            settings,
            parents,
            lambda context: Aligner(context, config, task, self.judge(config)).run(),
            kind="policy",
            label=label,
        )
        self.made.ppo.append(made)
        return made

    def scorer(self) -> Scorer:
        reward, rl = self.recipe.reward or RewardConfig(), self.recipe.ppo
        return load_scorer(reward, self.members, self.recipe.model.device, rl.micro_batch_tokens)

    def judge(self, config: RLConfig) -> Judge:
        """The weighted sum that the recipe asks for."""
        scorers: dict[str, tuple[float, Scorer]] = {}
        for part in config.rewards:
            if part.python is not None:
                function = load_function(part.python, f"ppo.rewards.{part.name}", self.context.recipe_folder)
                scorer: Scorer = FunctionScorer(function=function, name=part.name)
            elif part.model == "stage":
                scorer = self.scorer()
            else:
                scorer = load_external(part.model, self.recipe.model, config.micro_batch_tokens)
            scorers[part.name] = (part.weight, scorer)
        return Judge(scorers=scorers, shaping=config.shaping, max_new_tokens=config.max_new_tokens)
