"""Best of n: as a way to sample, and as demonstrations to fine-tune on."""

from keel.core.artifacts import Artifact
from keel.stages.encode import encode_demonstrations, fitting
from keel.stages.rejection import Selection, read_selection, select
from keel.stages.roads.fresh import within_training
from keel.stages.roads.judges import known_by, weighted_sum
from keel.stages.roads.work import Work
from keel.stages.sections.best_of import BestOfConfig
from keel.stages.sft import train_sft

HOLDOUT = 0.1
"""Share of the prompts whose best responses measure the fine-tuning instead of training it."""


def reject(work: Work, config: BestOfConfig) -> Artifact:
    """Rejection sampling (Touvron et al. 2023, 2307.09288; RAFT, Dong et al. 2023, 2304.06767): sample n a prompt, keep
    the best, fine-tune on them, and again from the policy that this made.
    """
    policy: Artifact | None = None
    members = work.rewards.members if work.rewards else ()
    for number in range(1, config.rounds + 1):
        begins = policy or work.made.sft
        task = Selection(
            policy=work.policy(policy),
            prompts=work.prompts.train,
            round=number,
            judge=lambda: weighted_sum(work, "best_of", config.rewards, config),
            holdout=within_training(work, HOLDOUT),
        )
        parents = [*([begins] if begins else []), work.prompts.artifact, *members]
        known = known_by(work, config.rewards)
        chosen = select(work.context, config, task, parents, known, f"selection {number}")
        policy = fine_tune(work, config, chosen, policy, number)
        work.made.rejection.append((chosen, policy))
    if policy is None:
        raise RuntimeError("rejection sampling has at least one round")
    return policy


def fine_tune(work: Work, config: BestOfConfig, chosen: Artifact, policy: Artifact | None, number: int) -> Artifact:
    """SFT of this policy on the best responses."""
    fit = fitting(work.recipe.data)
    train, held_out = (
        encode_demonstrations(records, work.tokenizer, fit, every_turn=False) if records else []
        for records in read_selection(chosen)
    )
    label = f"rejection {number}"
    work.context.events.append("records", stage=label, train=len(train), held_out=len(held_out), **fit.report())
    return train_sft(work.context, config.train, work.policy(policy), chosen, train, held_out, label)
