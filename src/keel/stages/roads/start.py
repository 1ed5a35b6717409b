"""Where all roads start: SFT on demonstrations, comparisons, and reward models on them."""

from keel.core.artifacts import Artifact
from keel.data.split import split
from keel.stages.encode import encode_demonstrations, fitting
from keel.stages.inputs import RecordSet, check_agreement, prompt_source
from keel.stages.labels import read_set
from keel.stages.reward_models import RewardModels
from keel.stages.roads.work import Work, required
from keel.stages.sections.reward import RewardConfig
from keel.stages.sections.sft import SFTConfig
from keel.stages.sft import train_sft

FIRST_HOLDOUT = 0.15
"""Share of prompts whose collected comparisons measure the reward model instead of training it."""


def fine_tune(work: Work, config: SFTConfig) -> None:
    """SFT: its policy is the one that every road starts from, and the reference."""
    fit = fitting(work.recipe.data)
    records = required(work.inputs.demonstrations)
    train = encode_demonstrations(records.train, work.tokenizer, fit)
    held_out = encode_demonstrations(records.held_out, work.tokenizer, fit) if records.held_out else []
    work.context.events.append("records", stage="sft", train=len(train), held_out=len(held_out), **fit.report())
    work.made.sft = train_sft(work.context, config, work.base, records.artifact, train, held_out)
    work.sft = work.base.of_artifact(work.made.sft)


def compare(work: Work, collected: Artifact | None) -> None:
    """The comparisons to learn from: those of the data section, or freshly `collected` ones."""
    comparisons = work.inputs.comparisons or held_apart(work, required(collected))
    work.comparisons = comparisons
    work.made.agreement = check_agreement(work.context, work.recipe, [*comparisons.train, *comparisons.held_out])


def held_apart(work: Work, collected: Artifact) -> RecordSet:
    """Collected comparisons on both sides of a split by prompt."""
    # Prompts below the first threshold never reached the labellers, so the share is taken of what lies above it.
    outside = prompt_source(work.recipe).holdout
    train, held_out = split(read_set(collected), outside + FIRST_HOLDOUT * (1 - outside))
    return RecordSet(train=train, held_out=held_out, artifact=collected)


def model_reward(work: Work, config: RewardConfig) -> None:
    """Reward models on the comparisons."""
    work.rewards = RewardModels.train(
        work.context,
        work.recipe,
        config,
        work.sft,
        work.made,
        work.tokenizer,
        required(work.comparisons),
        work.inputs.golden,
    )
