"""Where all roads start: SFT on demonstrations, comparisons, and reward models on them."""

from keel.stages.encode import encode_demonstrations, fitting
from keel.stages.inputs import check_agreement
from keel.stages.reward_models import RewardModels
from keel.stages.roads.feedback import labelled_anew
from keel.stages.roads.fresh import collect_feedback, collect_first, held_apart
from keel.stages.roads.work import Work, required
from keel.stages.sections.reward import RewardConfig
from keel.stages.sections.sft import SFTConfig
from keel.stages.sft import train_sft


def fine_tune(work: Work, config: SFTConfig) -> None:
    """SFT: its policy is the one that every road starts from, and the reference."""
    fit = fitting(work.recipe.data)
    records = required(work.inputs.demonstrations)
    train = encode_demonstrations(records.train, work.tokenizer, fit)
    held_out = encode_demonstrations(records.held_out, work.tokenizer, fit) if records.held_out else []
    work.context.events.append("records", stage="sft", train=len(train), held_out=len(held_out), **fit.report())
    work.made.sft = train_sft(work.context, config, work.base, records.artifact, train, held_out)
    work.sft = work.base.of_artifact(work.made.sft)


def compare(work: Work) -> None:
    """The comparisons to learn from: those of the data section, or the first that the labeller or an AI judges."""
    comparisons, feedback = work.inputs.comparisons, work.recipe.feedback
    if feedback is not None and feedback.pairs is not None:
        comparisons = labelled_anew(work, feedback, feedback.pairs)
    elif feedback is not None and feedback.comparisons:
        comparisons = held_apart(work, collect_feedback(work, feedback.comparisons))
    elif comparisons is None:
        comparisons = held_apart(work, collect_first(work, required(work.recipe.rounds)))
    work.comparisons = comparisons
    work.made.agreement = check_agreement(work.context, work.recipe, [*comparisons.train, *comparisons.held_out])


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
