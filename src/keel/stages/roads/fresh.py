"""Fresh pairs: sampled from a policy as it is, judged, and held apart by prompt."""

from keel.core.artifacts import Artifact
from keel.data.split import split
from keel.stages.inputs import RecordSet, prompt_source
from keel.stages.labels import Collection, JudgeOfPairs, collect, read_set
from keel.stages.roads.feedback import ai_judge
from keel.stages.roads.judges import labeller_of, pair_judge
from keel.stages.roads.work import Work
from keel.stages.sections.rounds import RoundsConfig
from keel.stages.sections.sampling import Sampling

FIRST_HOLDOUT = 0.15
"""Share of prompts whose collected comparisons measure what learns from the others."""


def collect_first(work: Work, rounds: RoundsConfig) -> Artifact:
    """Judged comparisons of the SFT policy's own samples, for recipes that bring none."""
    judge = ai_judge(work) if rounds.labeller is None and rounds.judge == "feedback" else labeller_of(work, rounds)
    return judged_pairs(work, work.sampling[1], judge, rounds.first_comparisons, 0, None, opponent_share=0.0)


def collect_feedback(work: Work, count: int) -> Artifact:
    """Pairs of the SFT policy's own samples, compared by the AI judge."""
    return judged_pairs(work, work.sampling[1], ai_judge(work), count, 0, None, opponent_share=0.0)


def collect_round(
    work: Work, rounds: RoundsConfig, sampling: Sampling, number: int, policy: Artifact | None
) -> Artifact:
    """Judged pairs of this policy, half of them against SFT."""
    judge = ai_judge(work) if rounds.judge == "feedback" else pair_judge(work, rounds)
    return judged_pairs(work, sampling, judge, rounds.comparisons, number, policy, opponent_share=0.5)


def judged_pairs(
    work: Work,
    sampling: Sampling,
    judge: JudgeOfPairs,
    count: int,
    number: int,
    policy: Artifact | None,
    *,
    opponent_share: float,
) -> Artifact:
    """A comparison set of `count` pairs; `number` decides prompts and random numbers."""
    task = Collection(
        count=count,
        opponent_share=opponent_share,
        policy=work.policy(policy),
        reference=work.sft,
        prompts=work.prompts.train,
        round=number,
        labeller=judge.judge,
        labeller_identity=judge.identity,
    )
    parent = policy or work.made.sft
    parents = [work.prompts.artifact, *([parent] if parent else []), *judge.parents]
    return collect(work.context, sampling, task, parents)


def held_apart(work: Work, collected: Artifact) -> RecordSet:
    """Collected comparisons on both sides of a split by prompt."""
    train, held_out = split(read_set(collected), within_training(work, FIRST_HOLDOUT))
    return RecordSet(train=train, held_out=held_out, artifact=collected)


def within_training(work: Work, share: float) -> float:
    """The holdout that parts off this share of the training prompts."""
    # Prompts below the first threshold are held out already, so the share is taken of what lies above it.
    outside = prompt_source(work.recipe).holdout
    return outside + share * (1 - outside)
