"""Best of n before any RL: what does this reward model pick when it may choose? (SCIENCE: held-out accuracy does not
predict safety under optimisation.)
"""

from collections.abc import Sequence
from typing import Any

from keel.core.artifacts import Artifact
from keel.core.errors import GateError
from keel.core.files import atomic_write_json
from keel.core.seed import derive
from keel.monitor.verdict import Figure, Verdict
from keel.stages.best_of import draw
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.labels import Labeller, Pair, ask
from keel.stages.policy import PolicyFiles
from keel.stages.reward import aggregation
from keel.stages.sections.reward import RewardConfig
from keel.stages.sections.rl import RLConfig
from keel.stats.best_of import best_of_kl_bound
from keel.stats.intervals import wilson
from keel.train.judge import Scorer
from keel.train.rollout import EncodedPrompt

LENGTH_RATIO_WATCH = 1.3
"""Chosen responses this much longer than the average hint at a taste for length."""


def best_of_n(
    run: Run,
    config: RewardConfig,
    rl: RLConfig,
    parents: Sequence[Artifact],
    scorer: Scorer,
    policy: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    labeller: Labeller | None,
    labeller_identity: str | None,
) -> Artifact:
    """A report: the reward model's favourite among n samples against a random one, judged by raters if there are any.

    `parents` are the members of the reward model and the prompts. Raises GateError when raters like the favourites less
    than random samples: RL would only make that worse.
    """
    settings = {
        "n": config.best_of,
        "prompts": config.best_of_prompts,
        "max_new_tokens": rl.max_new_tokens,
        "temperature": rl.temperature,
        "labeller": labeller_identity,
        "policy": policy.identity,
        "seed": run.seed,
        **aggregation(config),
    }

    def body(context: StageContext) -> StageResult:
        context.run.progress.start(context.name, None, "samples")
        chosen = [prompts[i % len(prompts)] for i in range(config.best_of_prompts)]
        metrics, pairs = favourites(config, rl, scorer, policy, chosen, derive(run.seed, "best of n"))
        if labeller is not None and pairs:
            metrics |= judged(labeller, pairs)
        verdict = best_of_n_verdict(metrics)
        context.run.verdict(context.name, verdict)
        if verdict.level == "stop":
            raise GateError(f"{verdict.message} {verdict.remedy}")
        context.run.progress.finish(verdict.message if verdict.level == "ok" else verdict.level)
        return StageResult(metrics=metrics, write=lambda folder: atomic_write_json(folder / "report.json", metrics))

    return run.stage("best_of_n", settings, parents, body, kind="report", label=f"best of {config.best_of}")


def favourites(
    config: RewardConfig,
    rl: RLConfig,
    scorer: Scorer,
    policy: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    seed: int,
) -> tuple[dict[str, Any], list[Pair]]:
    """Figures of the best of n by score, and pairs of each best response (a) with a random one (b)."""
    n = config.best_of
    drawn = draw(
        policy,
        prompts,
        n,
        max_new_tokens=rl.max_new_tokens,
        temperature=rl.temperature,
        seed=seed,
        score=scorer.score,
    )
    scores, responses, best = drawn.scores, drawn.responses, drawn.best()
    lengths = responses.batch.response_lengths.float().view(-1, n)
    metrics = {
        "n": n,
        "prompts": len(prompts),
        "gain": float((scores.max(1).values - scores.mean(1)).mean()),
        "gain_in_std": float((scores.max(1).values - scores.mean(1)).mean() / max(scorer.std, 1e-8)),
        "kl_nats_per_sequence_bound": best_of_kl_bound(n),
        "length_ratio": float(lengths.gather(1, best[:, None]).mean() / lengths.mean()),
    }
    pairs = []
    for i, prompt in enumerate(prompts):
        top, other = i * n + int(best[i]), i * n
        a, b = responses.response_texts[top], responses.response_texts[other]
        if a != b and a.strip() and b.strip():
            pairs.append(
                Pair(
                    prompt=prompt.prompt,
                    a=a,
                    b=b,
                    a_finished=bool(responses.finished[top]),
                    b_finished=bool(responses.finished[other]),
                    key=derive(seed, "pair", i),
                )
            )
    return metrics, pairs


def judged(labeller: Labeller, pairs: Sequence[Pair]) -> dict[str, float]:
    """How often raters prefer the favourite, ties counting half, with a 95 % interval."""
    swapped = {(pair.b, pair.a) for pair in pairs} - {(pair.a, pair.b) for pair in pairs}
    preferences = [
        1 - record.preference if (record.a, record.b) in swapped else record.preference
        for record in ask(labeller, pairs)
    ]
    wins = sum(preferences)
    low, high = wilson(wins, len(preferences))
    return {
        "win_rate": wins / len(preferences),
        "win_rate_low": low,
        "win_rate_high": high,
        "labels": len(preferences),
    }


def best_of_n_verdict(metrics: dict[str, Any]) -> Verdict:
    """Whether what the reward model likes best is also what raters like."""
    n, ratio = metrics["n"], metrics["length_ratio"]
    figures: dict[str, Figure] = {name: value for name, value in metrics.items() if isinstance(value, float | int)}
    if "win_rate" in metrics:
        found = (
            f"Raters prefer the reward model's favourite of {n} to a random sample in {metrics['win_rate']:.0%} of "
            f"{metrics['labels']} pairs ({metrics['win_rate_low']:.0%} to {metrics['win_rate_high']:.0%})."
        )
        if metrics["win_rate_high"] < 0.5:
            remedy = "Do not optimise this reward model: collect labels on what it likes, and train it again."
            return Verdict("stop", "best_of_n", found, figures, remedy)
        if metrics["win_rate_low"] <= 0.5:
            remedy = "RL may gain nothing: collect more labels, or go on and watch the win-rate of fresh samples."
            return Verdict("watch", "best_of_n", found, figures, remedy)
        return Verdict("ok", "best_of_n", found, figures)
    found = (
        f"The reward model's favourite of {n} scores {metrics['gain_in_std']:.2f} standard deviations above the mean "
        f"and is {ratio:.2f} times as long; no rater has judged it."
    )
    if ratio > LENGTH_RATIO_WATCH:
        return Verdict("watch", "best_of_n", found, figures, "Read some favourites: length alone may be what it likes.")
    return Verdict("ok", "best_of_n", found, figures)
