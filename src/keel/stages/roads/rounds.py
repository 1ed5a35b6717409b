"""Rounds: fresh samples are judged, what learns from judgments goes on with them, and again."""

from typing import Any

from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.data.records import Comparison
from keel.stages.inputs import RecordSet, check_agreement
from keel.stages.labels import read_set, replayed
from keel.stages.roads.evaluation import against_sft
from keel.stages.roads.fresh import collect_round, held_apart
from keel.stages.roads.offline import learn, prefer
from keel.stages.roads.online import Optimisation
from keel.stages.roads.work import Work, required
from keel.stages.sections.prefer import PreferConfig
from keel.stages.sections.rounds import RoundsConfig

OF_A_ROUND = ("true_win_rate", "reward_win_rate", "kl_nats_per_sequence", "score")
"""What a round says of its policy against SFT, where it is known."""


def reinforce(work: Work, rl: Optimisation, rounds: RoundsConfig) -> Artifact:
    """RL, fresh labels, refreshed reward model, RL again: labels follow the policy (SCIENCE 3)."""
    policy = rl.stage(rl.task(work.sft), None, "ppo 1")
    for number in range(1, rounds.count):
        fresh = collect_round(work, rounds, rl.config, number, policy)
        reason = check_agreement(work.context, work.recipe, read_set(fresh), number).get("override")
        note(work, {"round": number, **required(work.rewards).refresh(fresh, rounds, number - 1, reason)})
        step_offset = number * rl.config.updates
        task = rl.task(work.policy(policy), round=number, step_offset=step_offset, earlier=policy)
        policy = rl.stage(task, policy, f"ppo {number + 1}")
    return policy


def prefer_in_rounds(work: Work, config: PreferConfig, rounds: RoundsConfig) -> Artifact:
    """Iterative DPO and its kin: sample, judge, learn, compare with SFT, and again (Xiong et al. 2023, 2312.11456).

    Each round goes on from the policy of the one before. The first learns from the comparisons that there are, or from
    fresh ones; the later ones from fresh ones and a replay of earlier ones.
    """
    policy: Artifact | None = None
    seen: list[Comparison] = []
    sets: list[Artifact] = []
    for number in range(rounds.count):
        label = f"prefer {number + 1}"
        if number == 0 and config.pairs == "data":
            policy = prefer(work, config, label=label)
            judged = work.comparisons
        else:
            policy, judged = prefer_fresh(work, config, rounds, number, policy, seen, sets, label=label)
        if judged is not None:  # ratings are not replayed beside comparisons
            seen += judged.train
            sets.append(judged.artifact)
        figures = {
            "round": number + 1,
            "labels": policy.metrics["training_pairs"],
            "held_out_accuracy": policy.metrics.get("accuracy"),
            **(told_of(judged.artifact, policy) if judged and number else {}),
        }
        if work.recipe.evaluate is not None and number + 1 < rounds.count:
            report = against_sft(work, work.recipe.evaluate, config, policy, label=f"evaluate {number + 1}")
            figures |= {name: report.metrics[name] for name in OF_A_ROUND if name in report.metrics}
        note(work, figures)
    return required(policy)


def prefer_fresh(
    work: Work,
    config: PreferConfig,
    rounds: RoundsConfig,
    number: int,
    policy: Artifact | None,
    seen: list[Comparison],
    sets: list[Artifact],
    *,
    label: str = "prefer",
) -> tuple[Artifact, RecordSet]:
    """What fresh, judged pairs make of `policy` (None: of the SFT policy), and the pairs held apart."""
    fresh = collect_round(work, rounds, config, number, policy)
    records = read_set(fresh)
    reason = check_agreement(work.context, work.recipe, records, number).get("override")
    judged = held_apart(work, fresh)
    if not judged.train or not judged.held_out:
        raise TrainingError(
            f"rounds: of {len(records)} judged pairs {len(judged.train)} are left to train on and "
            f"{len(judged.held_out)} to measure with, split by prompt. Raise rounds.comparisons, or add prompts."
        )
    replay = replayed(seen, round(rounds.replay * len(judged.train)), work.recipe.seed, number)
    mixed = RecordSet(train=[*judged.train, *replay], held_out=judged.held_out, artifact=fresh)
    if policy is not None and label != "prefer":
        rate = rounds.learning_rate or config.optim.learning_rate * 2 / 3
        config = config.model_copy(update={"optim": config.optim.model_copy(update={"learning_rate": rate})})
    reference = work.sft if rounds.reference == "sft" and policy is not None else None
    learned = learn(
        work,
        config,
        mixed,
        policy,
        reference=reference,
        parents=sets if replay else (),
        override=reason or work.made.agreement.get("override"),
        replay=rounds.replay if replay else None,
        label=label,
    )
    return learned, judged


def prefer_after(work: Work, config: PreferConfig, rounds: RoundsConfig, policy: Artifact) -> Artifact:
    """Prefer on fresh pairs of what RL made; comparisons that there were before are replayed beside them."""
    seen = list(work.comparisons.train) if work.comparisons else []
    sets = [work.comparisons.artifact] if work.comparisons else []
    return prefer_fresh(work, config, rounds, rounds.count, policy, seen, sets)[0]


def told_of(fresh: Artifact, policy: Artifact) -> dict[str, Any]:
    """What judges made of a fresh set, and how often the reward that the policy implied before agreed with them."""
    said = fresh.metrics
    return {
        "on_policy_accuracy_before": policy.metrics["accuracy_before"],
        "labels": said["comparisons"],
        "agreement": said.get("pairwise_agreement"),
        "krippendorff_alpha": said.get("krippendorff_alpha"),
    }


def note(work: Work, figures: dict[str, Any]) -> None:
    """What a round showed, for the summary and the report."""
    work.made.rounds.append(figures)
    work.context.events.append("round", stage="rounds", **figures)
