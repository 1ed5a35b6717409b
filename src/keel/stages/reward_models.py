"""The reward models of a run: trained first, probed on golden comparisons, refreshed with fresh labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keel.core.artifacts import Artifact
from keel.data.records import Comparison
from keel.stages.context import Run
from keel.stages.coverage import joined, read_coverage
from keel.stages.encode import fitting
from keel.stages.inputs import RecordSet
from keel.stages.labels import read_set, replayed
from keel.stages.pairs import PairSet, pair_set
from keel.stages.policy import PolicyFiles
from keel.stages.recipe import Recipe
from keel.stages.reward import (
    RewardData,
    load_scorer,
    on_policy_accuracy,
    probe_golden,
    refuse_unfit,
    train_reward_models,
)
from keel.stages.roles import add_reward_roles
from keel.stages.sections.reward import RewardConfig
from keel.stages.sections.rounds import RoundsConfig
from keel.stages.summary import Made
from keel.stats.coverage import Coverage
from keel.train.judge import Scorer
from keel.train.one_trunk import OneTrunk


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
        replay = replayed(self.seen, round(rounds.replay * len(fresh)), self.recipe.seed, number)
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
