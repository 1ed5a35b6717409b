"""RL on a reward: once, or in rounds with fresh labels in between."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keel.core.artifacts import Artifact
from keel.core.errors import ConfigError
from keel.core.seed import generator
from keel.data.records import Comparison
from keel.stages.align import Aligner
from keel.stages.cast import AlignTask
from keel.stages.context import Run
from keel.stages.coverage import joined, read_coverage
from keel.stages.encode import encode_prompts, fitting
from keel.stages.functions import function_identity, load_function
from keel.stages.gate import best_of_n
from keel.stages.inputs import Inputs, RecordSet, check_agreement
from keel.stages.labels import Collection, Labeller, collect, read_set
from keel.stages.pairs import PairSet, pair_set
from keel.stages.policy import PolicyFiles
from keel.stages.recipe import Recipe
from keel.stages.reward import (
    RewardData,
    aggregation,
    load_external,
    load_scorer,
    model_identity,
    on_policy_accuracy,
    probe_golden,
    refuse_unfit,
    train_reward_models,
)
from keel.stages.roles import add_reward_roles
from keel.stages.sections.reward import RewardConfig
from keel.stages.sections.rl import RLConfig
from keel.stages.sections.rounds import RoundsConfig
from keel.stages.summary import Made
from keel.stats.coverage import Coverage
from keel.train.judge import FunctionScorer, Judge, Scorer
from keel.train.one_trunk import OneTrunk
from keel.train.rollout import EncodedPrompt


@dataclass
class RewardModels:
    """The reward models of a run as they are now, and the labels they have seen."""

    context: Run
    recipe: Recipe
    config: RewardConfig
    sft: PolicyFiles
    tokenizer: Any
    first: Artifact
    """The comparison set of the first models."""
    data: RewardData
    seen: list[Comparison]
    members: Sequence[Artifact]
    probe: tuple[PairSet, Artifact] | None = None
    """The golden comparisons and the set that froze them."""

    @classmethod
    def train(
        cls,
        context: Run,
        recipe: Recipe,
        config: RewardConfig,
        sft: PolicyFiles,
        made: Made,
        tokenizer: Any,
        comparisons: RecordSet,
        golden: RecordSet | None,
    ) -> "RewardModels":
        """The first models of a run."""
        fit = fitting(recipe.data)

        def pairs(records: Sequence[Comparison]) -> PairSet:
            return pair_set(records, config.labels, tokenizer, fit)

        data = RewardData(
            artifacts=[comparisons.artifact, *([made.sft] if made.sft else [])],
            train=pairs(comparisons.train),
            held_out=pairs(comparisons.held_out),
            tokenizer=tokenizer,
            override=made.agreement.get("override"),
        )
        probe = (pairs(golden.held_out), golden.artifact) if golden else None
        context.events.append(
            "records", stage="reward", train=len(data.train.pairs), held_out=len(data.held_out.pairs), **fit.report()
        )
        members = train_reward_models(context, config, sft, data)
        made.reward = members
        models = cls(
            context=context,
            recipe=recipe,
            config=config,
            sft=sft,
            tokenizer=tokenizer,
            first=comparisons.artifact,
            data=data,
            seen=list(comparisons.train),
            members=members,
            probe=probe,
        )
        made.golden = models.probed("golden")
        return models

    def probed(self, label: str) -> Artifact | None:
        """The report of the golden probe on the members as they are now; None without golden comparisons."""
        if self.probe is None:
            return None
        scorer = load_scorer(self.config, self.members, self.recipe.model, self.config.micro_batch_tokens)
        golden, golden_set = self.probe
        return probe_golden(self.context, self.config, scorer, self.members, golden, self.data.train, golden_set, label)

    def refresh(
        self, fresh_set: Artifact, rounds: RoundsConfig, number: int, override: str | None = None
    ) -> dict[str, Any]:
        """Go on with the fresh labels and a replay of earlier ones; return what the round showed.

        `override` is why the fresh labels are used although their raters agree too little.
        """
        fresh, fit = read_set(fresh_set), fitting(self.recipe.data)
        before = on_policy_accuracy(self.scorer(), pair_set(fresh, self.config.labels, self.tokenizer, fit))
        rng = generator(self.recipe.seed, "replay", number)
        replay = [self.seen[i] for i in rng.permutation(len(self.seen))[: round(rounds.replay * len(fresh))]]
        rate = rounds.learning_rate or self.config.optim.learning_rate * 2 / 3
        optim = self.config.optim.model_copy(update={"learning_rate": rate})
        self.members = train_reward_models(
            self.context,
            self.config.model_copy(update={"optim": optim}),
            self.sft,
            RewardData(
                artifacts=[fresh_set, self.first],
                train=pair_set(fresh + replay, self.config.labels, self.tokenizer, fit),
                held_out=self.data.held_out,
                tokenizer=self.tokenizer,
                replay=rounds.replay,
                override=override or self.data.override,
            ),
            start_from=self.members,
            label=f"reward {number + 2}",
        )
        self.seen += fresh
        probed = self.probed(f"golden {number + 2}")
        return {
            "labels": len(fresh),
            "agreement": fresh_set.metrics.get("pairwise_agreement"),
            "krippendorff_alpha": fresh_set.metrics.get("krippendorff_alpha"),
            "on_policy_accuracy_before": before,
            "held_out_accuracy": self.members[0].metrics["accuracy"],
            **({"override": override} if override else {}),
            **({"golden_accuracy": probed.metrics["accuracy"]} if probed else {}),
        }

    def refuse_unfit(self) -> None:
        """Raises GateError for models that RL must not trust."""
        for member in self.members:
            refuse_unfit(member, self.context.thresholds)

    def on(self, trunk: OneTrunk) -> Scorer:
        """The members as one, on the policy's trunk."""
        self.refuse_unfit()
        return add_reward_roles(trunk, self.members, self.sft.identity, self.config)

    def scorer(self) -> Scorer:
        """The members as one, on trunks of their own."""
        self.refuse_unfit()
        return load_scorer(self.config, self.members, self.recipe.model, self.config.micro_batch_tokens)

    def coverage(self) -> Coverage | None:
        """What the members were trained on."""
        return joined([read_coverage(member.path) for member in self.members])


@dataclass
class Optimisation:
    """One recipe's RL: prompts, reference, rewards."""

    context: Run
    recipe: Recipe
    config: RLConfig
    sft: PolicyFiles
    made: Made
    tokenizer: Any
    prompt_set: Artifact
    train: Sequence[EncodedPrompt]
    held_out: Sequence[EncodedPrompt]

    @classmethod
    def of(
        cls, context: Run, recipe: Recipe, sft: PolicyFiles, made: Made, tokenizer: Any, inputs: Inputs
    ) -> "Optimisation | None":
        """None for recipes without RL."""
        if recipe.ppo is None or inputs.prompts is None:
            return None
        fit, length = fitting(recipe.data), recipe.ppo.max_new_tokens
        train = encode_prompts(inputs.prompts.train, tokenizer, fit, length, "ppo")
        held_out = encode_prompts(inputs.prompts.held_out, tokenizer, fit, length, "ppo")
        context.events.append("records", stage="ppo", train=len(train), held_out=len(held_out), **fit.report())
        return cls(
            context=context,
            recipe=recipe,
            config=recipe.ppo,
            sft=sft,
            made=made,
            tokenizer=tokenizer,
            prompt_set=inputs.prompts.artifact,
            train=train,
            held_out=held_out,
        )

    def run(self, rewards: RewardModels | None) -> Artifact:
        """The optimised policy."""
        if rewards is not None and rewards.config.best_of > 1:
            self.made.best_of = self.best_of_n(rewards)
        if self.recipe.rounds is not None and rewards is not None:
            return self.in_rounds(self.recipe.rounds, rewards)
        return self.stage(self.task(self.sft), rewards, None, "ppo")

    def in_rounds(self, rounds: RoundsConfig, rewards: RewardModels) -> Artifact:
        """RL, fresh labels, refreshed reward model, RL again: labels follow the policy (SCIENCE 3)."""
        policy = self.stage(self.task(self.sft), rewards, None, "ppo 1")
        for number in range(1, rounds.count):
            files = self.sft.of_artifact(policy)
            fresh = collect(
                self.context,
                self.config,
                self.collection(rounds.comparisons, number, files, opponent_share=0.5),
                [self.prompt_set, policy],
            )
            reason = check_agreement(self.context, self.recipe, read_set(fresh), number).get("override")
            figures = {"round": number, **rewards.refresh(fresh, rounds, number - 1, reason)}
            self.made.rounds.append(figures)
            self.context.events.append("round", stage="rounds", **figures)
            task = self.task(files, round=number, step_offset=number * self.config.updates, earlier=policy)
            policy = self.stage(task, rewards, policy, f"ppo {number + 1}")
        return policy

    def stage(self, task: AlignTask, rewards: RewardModels | None, earlier: Artifact | None, label: str) -> Artifact:
        """One RL stage."""
        settings = {
            **self.config.model_dump(mode="json", exclude={"micro_batch_tokens"}),
            "reward": aggregation(rewards.config) if rewards else None,
            "functions": [function_identity(part.python, self.context.recipe_folder) for part in self.config.rewards],
            "models": [model_identity(part.model) for part in self.config.rewards],
            "seed": self.recipe.seed,
            "round": task.round,
            "start": task.start.identity,
            "reference": task.reference.identity,
            **self.watching(),
        }
        parents = [self.prompt_set, *(rewards.members if rewards else ())]
        parents += [artifact for artifact in (self.made.sft, earlier) if artifact is not None]
        policy = self.context.stage(
            "ppo",
            settings,
            parents,
            lambda context: Aligner(
                context, self.config, task, partial(self.judge, rewards), self.recipe.guardian, self.live_judge()
            ).run(),
            kind="policy",
            label=label,
        )
        self.made.ppo.append(policy)
        return policy

    def watching(self) -> dict[str, Any]:
        """What of the guardian can change the outcome of a stage."""
        guardian = self.recipe.guardian
        if guardian.mode == "silent":
            return {}
        return {
            "guardian": guardian.model_dump(mode="json"),
            "thresholds": self.recipe.thresholds.model_dump(mode="json"),
            "check": function_identity(guardian.checks.judge, self.context.recipe_folder),
        }

    def live_judge(self) -> Labeller | None:
        """The function that judges pairs while RL runs; None leaves them to people."""
        spec = self.recipe.guardian.checks.judge
        return None if spec is None else load_function(spec, "guardian.checks.judge", self.context.recipe_folder)

    def task(
        self, start: PolicyFiles, *, round: int = 0, step_offset: int = 0, earlier: Artifact | None = None
    ) -> AlignTask:
        count = self.config.evaluate_prompts
        return AlignTask(
            start=start,
            reference=self.sft,
            prompts=self.train,
            held_out=[self.held_out[i % len(self.held_out)] for i in range(count)],
            round=round,
            step_offset=step_offset,
            earlier=earlier,
        )

    def judge(self, rewards: RewardModels | None, trunk: OneTrunk | None = None) -> Judge:
        """The weighted sum that the recipe asks for; its reward model takes its place on `trunk` if there is one."""
        scorers: dict[str, tuple[float, Scorer]] = {}
        coverages: list[Coverage | None] = []
        for part in self.config.rewards:
            if part.python is not None:
                function = load_function(part.python, f"ppo.rewards.{part.name}", self.context.recipe_folder)
                scorer: Scorer = FunctionScorer(function=function, name=part.name)
            elif part.model != "stage" and part.model is not None:
                scorer = load_external(
                    part.model,
                    self.recipe.model,
                    self.tokenizer,
                    self.config.micro_batch_tokens,
                    self.context.thresholds,
                )
                coverages.append(read_coverage(Path(part.model).parent))
            elif rewards is not None:
                scorer = rewards.scorer() if trunk is None else rewards.on(trunk)
                coverages.append(rewards.coverage())
            else:
                raise ConfigError(f"ppo.rewards.{part.name} names the recipe's reward model, but there is none.")
            scorers[part.name] = (part.weight, scorer)
        return Judge(
            scorers=scorers,
            shaping=self.config.shaping,
            max_new_tokens=self.config.max_new_tokens,
            coverage=joined(coverages),
        )

    def collect_first(self) -> Artifact:
        """Judged comparisons of the SFT policy's own samples."""
        count = self.recipe.rounds.first_comparisons if self.recipe.rounds else 0
        parents = [self.prompt_set, *([self.made.sft] if self.made.sft else [])]
        return collect(self.context, self.config, self.collection(count, 0, self.sft, opponent_share=0.0), parents)

    def collection(self, count: int, number: int, policy: PolicyFiles, *, opponent_share: float) -> Collection:
        labeller, identity = self.labeller()
        if labeller is None:
            raise ConfigError("rounds.labeller is missing: nobody could judge the fresh samples.")
        return Collection(
            count=count,
            opponent_share=opponent_share,
            policy=policy,
            reference=self.sft,
            prompts=self.train,
            round=number,
            labeller=labeller,
            labeller_identity=identity,
        )

    def labeller(self) -> tuple[Labeller | None, str | None]:
        spec, folder = self.recipe.rounds.labeller if self.recipe.rounds else None, self.context.recipe_folder
        if spec is None:
            return None, None
        return load_function(spec, "rounds.labeller", folder), function_identity(spec, folder)

    def best_of_n(self, rewards: RewardModels) -> Artifact:
        """The gate before RL; raters judge it where the recipe has some."""
        labeller, identity = self.labeller()
        return best_of_n(
            self.context,
            rewards.config,
            self.config,
            [*rewards.members, self.prompt_set],
            rewards.scorer(),
            self.sft,
            self.held_out,
            labeller,
            identity,
        )
