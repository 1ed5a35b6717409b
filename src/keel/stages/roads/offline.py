"""Comparisons in, policy out: DPO and its family."""

from keel.core.artifacts import Artifact
from keel.stages.encode import fitting
from keel.stages.pairs import pair_set
from keel.stages.prefer import PreferenceData, train_on_preferences
from keel.stages.roads.work import Work, required
from keel.stages.sections.prefer import PreferConfig


def prefer(work: Work, config: PreferConfig) -> Artifact:
    """The policy that the comparisons make of the SFT policy."""
    fit, comparisons, made = fitting(work.recipe.data), required(work.comparisons), work.made
    data = PreferenceData(
        artifacts=[comparisons.artifact, *([made.sft] if made.sft else [])],
        train=pair_set(comparisons.train, config.labels, work.tokenizer, fit),
        held_out=pair_set(comparisons.held_out, config.labels, work.tokenizer, fit),
        override=made.agreement.get("override"),
    )
    work.context.events.append(
        "records", stage="prefer", train=len(data.train.pairs), held_out=len(data.held_out.pairs), **fit.report()
    )
    made.prefer = train_on_preferences(work.context, config, work.sft, data)
    return made.prefer
