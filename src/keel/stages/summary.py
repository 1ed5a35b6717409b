"""RUN/summary.json: the figures of a run, under names that do not change."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from keel import __version__
from keel.core.artifacts import Artifact
from keel.stages.context import peak_rss_bytes
from keel.stages.methods import method_of
from keel.stages.recipe import Recipe


@dataclass
class Made:
    """The artifacts of a run, as far as it went."""

    sft: Artifact | None = None
    """The policy that all roads start from: with a constitution the one that learned the revisions."""
    before: Artifact | None = None
    """SFT before a constitution."""
    revisions: Artifact | None = None
    """What a constitution made of the policy's answers."""
    judge: Artifact | None = None
    """What the AI judge is worth on golden comparisons."""
    reward: Sequence[Artifact] = ()
    """The first reward models, one a member."""
    golden: Artifact | None = None
    best_of: Artifact | None = None
    prefer: list[Artifact] = field(default_factory=list)
    """One policy a round."""
    rejection: list[tuple[Artifact, Artifact]] = field(default_factory=list)
    """The best responses of a round, and the policy that was fine-tuned on them."""
    ppo: list[Artifact] = field(default_factory=list)
    """One policy a round."""
    evaluate: Artifact | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    agreement: dict[str, Any] = field(default_factory=dict)


def summarise(recipe: Recipe, made: Made, seconds: float, threads: int) -> dict[str, Any]:
    """Everything a script or a report asks of a finished run."""
    stages: dict[str, Any] = {}
    first = made.before if made.revisions else made.sft
    if made.judge is not None:
        stages["judge"] = figures(made.judge)
    if first is not None:
        stages["sft"] = figures(first)
    if made.revisions is not None:
        learned = figures(made.sft) if made.sft else {}
        stages["constitution"] = {**learned, "revisions": figures(made.revisions)}
    if made.reward:
        stages["reward"] = figures(made.reward[0])
        if len(made.reward) > 1:
            stages["reward"]["members"] = [figures(member) for member in made.reward]
        if made.golden is not None:
            stages["reward"] |= {f"golden_{name}": value for name, value in made.golden.metrics.items()}
        if made.best_of is not None:
            stages["reward"]["best_of_n"] = made.best_of.metrics
    if made.prefer:
        stages["prefer"] = figures(made.prefer[-1])
        if len(made.prefer) > 1:
            stages["prefer"] |= in_sum(made.prefer, "seconds", "steps") | {"rounds": len(made.prefer)}
    if made.rejection:
        chosen, policies = ([pair[i] for pair in made.rejection] for i in range(2))
        stages["rejection"] = {
            **figures(policies[-1]),
            **in_sum([*chosen, *policies], "seconds"),
            "rounds": [artifact.metrics for artifact in chosen],
        }
    if made.ppo:
        stages["ppo"] = over_rounds(made.ppo)
    if made.evaluate is not None:
        stages["evaluate"] = figures(made.evaluate)
        if len(made.ppo) > 1 and "score_sft" in stages["evaluate"]:
            # Each round had its own reward model; before and after by the last one are on one scale.
            stages["ppo"]["score_before"] = stages["evaluate"]["score_sft"]
            stages["ppo"]["score_after"] = stages["evaluate"]["score"]
            stages["ppo"]["score_scale_changed"] = False
    return {
        "name": recipe.name,
        "method": method_of(recipe),
        "seed": recipe.seed,
        "model": recipe.model.path,
        "keel_version": __version__,
        "stages": stages,
        "rounds": made.rounds,
        "agreement": made.agreement,
        "seconds": seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "threads": threads,
    }


def figures(artifact: Artifact) -> dict[str, Any]:
    return {**artifact.metrics, "artifact": artifact.path.name, "id": artifact.id}


def in_sum(artifacts: Sequence[Artifact], *names: str) -> dict[str, float]:
    """These figures, summed over all artifacts."""
    return {name: sum(artifact.metrics[name] for artifact in artifacts) for name in names}


def over_rounds(policies: Sequence[Artifact]) -> dict[str, Any]:
    """The last round's figures; before is before the first round, updates and seconds are summed.

    Scores before and after are the first and the last round's own: between rounds the reward model was refreshed, so
    with rounds the two are on different scales, and `score_scale_changed` says so.
    """
    first, last = policies[0].metrics, figures(policies[-1])
    return {
        **last,
        "score_before": first["score_before"],
        "distinct_2_before": first["distinct_2_before"],
        "entropy_before": first["entropy_before"],
        "response_tokens_before": first["response_tokens_before"],
        **in_sum(policies, "updates", "seconds"),
        "rounds": len(policies),
        "score_scale_changed": len(policies) > 1,
    }
