"""Fresh pairs: sampled from a policy as it is, judged, and held apart by prompt."""

from keel.core.artifacts import Artifact
from keel.data.split import split
from keel.stages.inputs import RecordSet, prompt_source
from keel.stages.labels import Collection, collect, read_set
from keel.stages.roads.judges import PairJudge, labeller_of, pair_judge
from keel.stages.roads.work import Work
from keel.stages.sections.rounds import RoundsConfig
from keel.stages.sections.sampling import Sampling

FIRST_HOLDOUT = 0.15
"""Share of prompts whose collected comparisons measure what learns from the others."""


def collect_first(work: Work, rounds: RoundsConfig) -> Artifact:
    """Judged comparisons of the SFT policy's own samples, for recipes that bring none."""
    judge = labeller_of(work, rounds)
    return judged_pairs(work, work.sampling[1], judge, rounds.first_comparisons, 0, None, opponent_share=0.0)


def collect_round(
    work: Work, rounds: RoundsConfig, sampling: Sampling, number: int, policy: Artifact | None
) -> Artifact:
    """Judged pairs of this policy, half of them against SFT."""
    judge = pair_judge(work, rounds)
    return judged_pairs(work, sampling, judge, rounds.comparisons, number, policy, opponent_share=0.5)


def judged_pairs(
    work: Work,
    sampling: Sampling,
    judge: PairJudge,
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
    return collect(work.context, sampling, task, [work.prompts.artifact, *([parent] if parent else [])])


def held_apart(work: Work, collected: Artifact) -> RecordSet:
    """Collected comparisons on both sides of a split by prompt."""
    # Prompts below the first threshold never reached the judges, so the share is taken of what lies above it.
    outside = prompt_source(work.recipe).holdout
    train, held_out = split(read_set(collected), outside + FIRST_HOLDOUT * (1 - outside))
    return RecordSet(train=train, held_out=held_out, artifact=collected)
