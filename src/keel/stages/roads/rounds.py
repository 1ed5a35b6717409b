"""Rounds: fresh samples are judged, what learns from judgments goes on with them, and again."""

from keel.core.artifacts import Artifact
from keel.core.errors import ConfigError
from keel.stages.inputs import check_agreement
from keel.stages.labels import Collection, collect, read_set
from keel.stages.policy import PolicyFiles
from keel.stages.roads.online import Optimisation
from keel.stages.roads.work import required
from keel.stages.sections.rounds import RoundsConfig


def reinforce_in_rounds(rl: Optimisation, rounds: RoundsConfig) -> Artifact:
    """RL, fresh labels, refreshed reward model, RL again: labels follow the policy (SCIENCE 3)."""
    work, rewards = rl.work, required(rl.work.rewards)
    policy = rl.stage(rl.task(work.sft), None, "ppo 1")
    for number in range(1, rounds.count):
        files = work.sft.of_artifact(policy)
        task = collection(rl, rounds.comparisons, number, files, opponent_share=0.5)
        fresh = collect(work.context, rl.config, task, [rl.prompts.artifact, policy])
        reason = check_agreement(work.context, work.recipe, read_set(fresh), number).get("override")
        figures = {"round": number, **rewards.refresh(fresh, rounds, number - 1, reason)}
        work.made.rounds.append(figures)
        work.context.events.append("round", stage="rounds", **figures)
        step_offset = number * rl.config.updates
        policy = rl.stage(
            rl.task(files, round=number, step_offset=step_offset, earlier=policy), policy, f"ppo {number + 1}"
        )
    return policy


def collect_first(rl: Optimisation) -> Artifact:
    """Judged comparisons of the SFT policy's own samples, for recipes that bring none."""
    work = rl.work
    count = work.recipe.rounds.first_comparisons if work.recipe.rounds else 0
    parents = [rl.prompts.artifact, *([work.made.sft] if work.made.sft else [])]
    return collect(work.context, rl.config, collection(rl, count, 0, work.sft, opponent_share=0.0), parents)


def collection(rl: Optimisation, count: int, number: int, policy: PolicyFiles, *, opponent_share: float) -> Collection:
    """What one round asks the labeller about."""
    labeller, identity = rl.work.labeller()
    if labeller is None:
        raise ConfigError("rounds.labeller is missing: nobody could judge the fresh samples.")
    return Collection(
        count=count,
        opponent_share=opponent_share,
        policy=policy,
        reference=rl.work.sft,
        prompts=rl.prompts.train,
        round=number,
        labeller=labeller,
        labeller_identity=identity,
    )
