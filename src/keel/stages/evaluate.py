"""The final policy against the SFT policy, on prompts that neither was trained on."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.core.files import atomic_write_json
from keel.core.seed import derive
from keel.data.chat import decode_response
from keel.evaluate.winrate import win_rate
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.stages.sections.evaluate import EvaluateConfig
from keel.stages.sections.prefer import PreferConfig
from keel.stages.sections.rl import RLConfig
from keel.stats.diversity import distinct_n, unique_share
from keel.train.judge import Judge, Responses, numbers
from keel.train.rollout import EncodedPrompt, Reference, as_responses, sample_batch

Preference = Callable[[Sequence[str], Sequence[str], Sequence[bool]], Any]


def evaluate_policy(
    run: Run,
    config: EvaluateConfig,
    sampling: RLConfig | PreferConfig,
    policy: Artifact,
    policy_files: PolicyFiles,
    sft: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    prompt_set: Artifact,
    judge: Judge | None,
    preference: Preference | None,
    preference_identity: str | None,
    *,
    reward_models: Sequence[Artifact] = (),
    aggregation: Mapping[str, Any] | None = None,
) -> Artifact:
    """A report: win-rate by the true preference where there is one, else by the reward model.

    `reward_models` are those of the judge where the policy does not descend from them; `aggregation` makes them one.
    """

    def body(context: StageContext) -> StageResult:
        chosen = [prompts[i % len(prompts)] for i in range(config.prompts)]
        ours, kl = respond(policy_files, chosen, sampling, config, derive(context.seed, "evaluate"), reference=sft)
        theirs, _ = respond(sft, chosen, sampling, config, derive(context.seed, "evaluate sft"))
        metrics: dict[str, Any] = {
            "n": len(chosen),
            "distinct_prompts": len({prompt.key for prompt in chosen}),
            "kl_nats_per_sequence": kl,
            **diversity(ours),
        }
        if preference is not None:
            utilities, columns = judged_by(preference, ours)
            others, other_columns = judged_by(preference, theirs)
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
        if judge is not None:
            a, b = judge.scores(ours).raw, judge.scores(theirs).raw
            rate = win_rate(a.tolist(), b.tolist(), ours.prompt_texts)
            metrics |= {
                "reward_win_rate": rate["rate"],
                "reward_win_rate_low": rate["low"],
                "reward_win_rate_high": rate["high"],
                "score": float(a.mean()),
                "score_sft": float(b.mean()),
            }
            metrics.setdefault("win_rate_by", "reward model")
        context.event("evaluated", **metrics)
        context.event("samples", step=0, samples=side_by_side(ours, theirs))
        return StageResult(metrics=metrics, write=lambda folder: atomic_write_json(folder / "report.json", metrics))

    settings = {
        **config.model_dump(mode="json", exclude={"data"}),
        "preference": preference_identity,
        "max_new_tokens": sampling.max_new_tokens,
        "seed": run.seed,
        "sft": sft.identity,
        **(aggregation or {}),
    }
    return run.stage("evaluate", settings, [policy, prompt_set, *reward_models], body, kind="report")


@torch.no_grad()
def respond(
    files: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    rl: RLConfig | PreferConfig,
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
        max_new_tokens=rl.max_new_tokens,
        temperature=config.temperature,
        seed=seed,
    )
    kl = None
    if reference is not None and config.temperature > 0:
        other = Reference(model=frozen(load_policy(reference)))
        log_ratio = drawn.logprobs - other.logprobs(batch, config.temperature, rl.micro_batch_tokens)
        kl = float(batch.sum_per_response(log_ratio).mean())
    return as_responses(batch, drawn.finished, [p.text for p in prompts], partial(decode_response, tokenizer)), kl


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
