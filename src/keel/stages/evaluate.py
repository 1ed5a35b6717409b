"""The final policy against the SFT policy, on prompts that neither was trained on."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.core.files import atomic_write_json
from keel.core.seed import derive
from keel.data.chat import decode_response
from keel.evaluate.winrate import clustered_interval, outcomes, win_rate
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids
from keel.stages.best_of import Drawn, draw, picked
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.stages.sections.evaluate import EvaluateConfig
from keel.stages.sections.sampling import Sampling
from keel.stats.best_of import best_of_kl_bound, expected_best
from keel.stats.diversity import distinct_n, unique_share
from keel.train.judge import Judge, Responses, numbers
from keel.train.rollout import EncodedPrompt, Reference, as_responses, sample_batch

Preference = Callable[[Sequence[str], Sequence[str], Sequence[bool]], Any]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A policy, SFT, and who judges between them."""

    policy: PolicyFiles
    sft: PolicyFiles
    prompts: Sequence[EncodedPrompt]
    sampling: Sampling
    judge: Judge | None
    preference: Preference | None
    n: int = 1
    """The policy answers with the best of n samples by `judge`."""


def evaluate_policy(
    run: Run,
    config: EvaluateConfig,
    contest: Contest,
    parents: Sequence[Artifact],
    known: Mapping[str, Any],
    label: str = "evaluate",
) -> Artifact:
    """A report: win-rate by the true preference where there is one, else by the rewards, and the KL from SFT.

    `known` is what of the judges its parents do not tell.
    """

    def body(context: StageContext) -> StageResult:
        prompts = [contest.prompts[i % len(contest.prompts)] for i in range(config.prompts)]
        seed = derive(context.seed, "evaluate")
        drawn = best_of(contest, config, prompts, seed) if contest.n > 1 else None
        if drawn is not None:
            ours, kl = picked(drawn.responses, drawn.places(drawn.best())), best_of_kl_bound(contest.n)
        else:
            ours, kl = respond(contest.policy, prompts, contest.sampling, config, seed, reference=contest.sft)
        theirs, _ = respond(contest.sft, prompts, contest.sampling, config, derive(context.seed, "evaluate sft"))
        metrics: dict[str, Any] = {
            "n": len(prompts),
            "distinct_prompts": len({prompt.key for prompt in prompts}),
            "kl_nats_per_sequence": kl,
            **({"best_of": contest.n, "kl_is": "an upper bound"} if drawn is not None else {}),
            **diversity(ours),
        }
        if contest.preference is not None:
            utilities, columns = judged_by(contest.preference, ours)
            others, other_columns = judged_by(contest.preference, theirs)
            rate = win_rate(utilities, others, ours.prompt_texts)
            metrics |= {
                "win_rate_by": "true preference",
                "true_win_rate": rate["rate"],
                "true_win_rate_low": rate["low"],
                "true_win_rate_high": rate["high"],
                "utility": mean(utilities),
                "utility_sft": mean(others),
                **{name: mean(values) for name, values in columns.items()},
                **{f"{name}_sft": mean(values) for name, values in other_columns.items()},
            }
        if contest.judge is not None:
            a, b = contest.judge.scores(ours).raw, contest.judge.scores(theirs).raw
            rate = win_rate(a.tolist(), b.tolist(), ours.prompt_texts)
            metrics |= {
                "reward_win_rate": rate["rate"],
                "reward_win_rate_low": rate["low"],
                "reward_win_rate_high": rate["high"],
                "score": float(a.mean()),
                "score_sft": float(b.mean()),
            }
            metrics.setdefault("win_rate_by", "reward model")
        if drawn is not None:
            metrics["by_n"] = by_n(drawn, contest.preference, theirs)
        context.event("evaluated", **metrics)
        context.event("samples", step=0, samples=side_by_side(ours, theirs))
        return StageResult(metrics=metrics, write=lambda folder: atomic_write_json(folder / "report.json", metrics))

    settings = {
        **config.model_dump(mode="json", exclude={"data"}),
        **known,
        "max_new_tokens": contest.sampling.max_new_tokens,
        "seed": run.seed,
        "sft": contest.sft.identity,
        **({"best_of": contest.n} if contest.n > 1 else {}),
    }
    return run.stage("evaluate", settings, parents, body, kind="report", label=label)


def best_of(contest: Contest, config: EvaluateConfig, prompts: Sequence[EncodedPrompt], seed: int) -> Drawn:
    """Sample the policy n times for each prompt; the judge scores."""
    judge = contest.judge
    if judge is None:
        raise ValueError("nobody says which of n samples is best")
    return draw(
        contest.policy,
        prompts,
        contest.n,
        max_new_tokens=contest.sampling.max_new_tokens,
        temperature=config.temperature,
        seed=seed,
        score=lambda responses: judge.scores(responses).raw,
    )


def by_n(drawn: Drawn, preference: Preference | None, theirs: Responses) -> list[dict[str, float]]:
    """What the best of 1, 2, 4, … samples comes to, averaged over all subsets of those drawn: unbiased for each n."""
    scores = drawn.scores.double().numpy()
    wins = None
    if preference is not None:
        utilities = np.array(judged_by(preference, drawn.responses)[0]).reshape(scores.shape)
        wins = outcomes(utilities - np.array(judged_by(preference, theirs)[0])[:, None])
    rows = []
    for n in sorted({2**k for k in range(drawn.n.bit_length())} | {drawn.n}):
        row = {"n": n, "kl_nats_per_sequence": best_of_kl_bound(n), "score": float(expected_best(scores, n).mean())}
        if wins is not None:
            each = expected_best(scores, n, wins)
            low, high = clustered_interval(each, theirs.prompt_texts)
            row |= {"true_win_rate": float(each.mean()), "true_win_rate_low": low, "true_win_rate_high": high}
        rows.append(row)
    return rows


@torch.no_grad()
def respond(
    files: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    sampling: Sampling,
    config: EvaluateConfig,
    seed: int,
    reference: PolicyFiles | None = None,
) -> tuple[Responses, float | None]:
    """One response a prompt, and their KL from `reference` in nats per sequence (None when greedy or without one)."""
    model, tokenizer = frozen(load_policy(files)), read_tokenizer(files)
    batch, drawn = sample_batch(
        InProcessSampler(model, eos_ids(model, tokenizer)),
        prompts,
        samples=1,
        max_new_tokens=sampling.max_new_tokens,
        temperature=config.temperature,
        seed=seed,
    )
    kl = None
    if reference is not None and config.temperature > 0:
        other = Reference(model=frozen(load_policy(reference)))
        log_ratio = drawn.logprobs - other.logprobs(batch, config.temperature, sampling.micro_batch_tokens)
        kl = float(batch.sum_per_response(log_ratio).mean())
    return as_responses(batch, drawn.finished, prompts, partial(decode_response, tokenizer)), kl


def judged_by(preference: Preference, responses: Responses) -> tuple[list[float], Mapping[str, Sequence[float]]]:
    """Utilities [N] and further columns of a preference function, which returns numbers or named lists of them."""
    count = len(responses.response_texts)
    answer = preference(responses.prompt_texts, responses.response_texts, responses.finished.tolist())
    named = dict(answer) if isinstance(answer, Mapping) else {"utility": answer}
    if "utility" not in named:
        raise TrainingError(
            f"evaluate.preference returned lists named {', '.join(map(str, named)) or 'nothing'}; one of them must be "
            f"`utility`, with one number a response ({count} here)."
        )
    columns = {str(name): numbers(values, count, f"evaluate.preference ({name})") for name, values in named.items()}
    if bad := [i for i, utility in enumerate(columns["utility"]) if not math.isfinite(utility)]:
        raise TrainingError(
            f"evaluate.preference says {columns['utility'][bad[0]]} of the response "
            f"{responses.response_texts[bad[0]][:80]!r}. A utility must be a finite number for every response."
        )
    return columns.pop("utility"), columns


def diversity(responses: Responses) -> dict[str, float]:
    """How different the responses are, and how long."""
    batch = responses.batch
    pieces = [piece.tolist() for piece in batch.response_tokens.split(batch.response_lengths.tolist())]
    return {
        "distinct_2": distinct_n(pieces, 2),
        "unique_share": unique_share([tuple(piece) for piece in pieces]),
        "response_tokens_mean": float(batch.response_lengths.float().mean()),
        "finished_share": float(responses.finished.float().mean()),
    }


def side_by_side(ours: Responses, theirs: Responses, count: int = 12) -> list[dict[str, str]]:
    return [
        {"prompt": prompt, "response": after, "before": before}
        for prompt, after, before in list(
            zip(ours.prompt_texts, ours.response_texts, theirs.response_texts, strict=True)
        )[:count]
    ]


def mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))
