"""Judgments in, policy out: DPO and its family."""

from collections.abc import Sequence
from typing import Any

from keel.annotate.consensus import resolve
from keel.core.artifacts import Artifact
from keel.data.records import Comparison
from keel.stages.encode import fitting
from keel.stages.inputs import RecordSet
from keel.stages.pairs import PairSet, pair_set
from keel.stages.policy import PolicyFiles
from keel.stages.prefer import train_on_preferences
from keel.stages.ratings import RatingSet, rating_set
from keel.stages.referred import PreferenceData
from keel.stages.roads.work import Work, required
from keel.stages.sections.prefer import PreferConfig


def prefer(work: Work, config: PreferConfig, label: str = "prefer") -> Artifact:
    """The policy that the comparisons, or for KTO the ratings, make of the SFT policy."""
    judged = required(work.inputs.ratings or work.comparisons)
    return learn(work, config, judged, None, override=work.made.agreement.get("override"), label=label)


def learn(
    work: Work,
    config: PreferConfig,
    judged: RecordSet,
    start: Artifact | None,
    *,
    reference: PolicyFiles | None = None,
    parents: Sequence[Artifact] = (),
    override: str | None = None,
    replay: float | None = None,
    label: str = "prefer",
) -> Artifact:
    """The policy that these judgments make of `start` (None: of the SFT policy), which is also the reference where no
    other is named. `parents` are what else the judgments come from.
    """
    fit, made = fitting(work.recipe.data), work.made

    def encoded(records: Sequence[Any], side: str) -> PairSet | RatingSet:
        if config.algorithm != "kto":
            return pair_set(records, config.labels, work.tokenizer, fit)
        if config.labels != "given" and isinstance(records[0], Comparison):
            records = resolve(records, config.labels)
        return rating_set(records, work.tokenizer, fit, side)

    begins = start or made.sft
    data = PreferenceData(
        artifacts=[judged.artifact, *parents, *([begins] if begins else [])],
        train=encoded(judged.train, "training"),
        held_out=encoded(judged.held_out, "held-out"),
        override=override,
        replay=replay,
    )
    work.context.events.append(
        "records", stage=label, train=len(data.train), held_out=len(data.held_out), **fit.report()
    )
    policy = train_on_preferences(work.context, config, work.policy(start), data, reference=reference, label=label)
    made.prefer.append(policy)
    return policy
