"""Rejection sampling: the best of n samples a prompt become demonstrations."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.core.files import atomic_write_text
from keel.core.seed import derive
from keel.data.formats import DataConfig, read_demonstrations, write_jsonl
from keel.data.records import Demonstration, prompt_key
from keel.data.split import split
from keel.stages.best_of import Drawn, draw
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.policy import PolicyFiles
from keel.stages.sections.best_of import BestOfConfig
from keel.stats.best_of import best_of_kl_bound
from keel.train.judge import Judge
from keel.train.loop import shuffled
from keel.train.rollout import EncodedPrompt

TRAIN, HELD_OUT, SCORES = "train.jsonl", "held_out.jsonl", "scores.jsonl"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What one round samples from, and who says what is best."""

    policy: PolicyFiles
    prompts: Sequence[EncodedPrompt]
    round: int
    judge: Callable[[], Judge]
    holdout: float
    """Prompts whose hash lies below it measure the fine-tuning instead of training it."""


def select(
    run: Run, config: BestOfConfig, task: Selection, parents: Sequence[Artifact], known: dict[str, Any], label: str
) -> Artifact:
    """A demonstration set: of each prompt the response that the judge likes best.

    `parents` are the policy, the prompts and the reward models; `known` is what else decides the scores.
    """
    sampled = {"algorithm", "rounds", "micro_batch_tokens", "train"}
    settings = {
        **config.model_dump(mode="json", exclude=sampled),
        **known,
        "policy": task.policy.identity,
        "round": task.round,
        "holdout": task.holdout,
        "seed": run.seed,
    }

    def body(context: StageContext) -> StageResult:
        context.run.progress.start(context.name, None, "samples")
        seed, judge = derive(context.seed, "rejection", task.round), task.judge()
        prompts = drawn_anew(task.prompts, config.prompts, seed)
        drawn = draw(
            task.policy,
            prompts,
            config.n,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=seed,
            score=lambda responses: judge.scores(responses).raw,
        )
        allowed = usable(drawn, config)
        chosen = kept(drawn, allowed, config)
        texts = drawn.responses.response_texts
        best = drawn.places(drawn.best(allowed)).tolist()
        records = [Demonstration(prompts[i].prompt, texts[best[i]]) for i in chosen]
        train, held_out = split(records, task.holdout)
        if not train:
            train, held_out = records, []
        metrics = figures(drawn, allowed, chosen)
        context.event("selected", round=task.round, **metrics)
        context.run.progress.finish(
            f"{len(records)} responses kept, score {metrics['score_kept']:.3f} against {metrics['score_mean']:.3f}"
        )

        def write(folder: Path) -> None:
            write_jsonl(folder / TRAIN, train)
            write_jsonl(folder / HELD_OUT, held_out)
            lines = provenance(prompts, drawn, allowed, set(chosen))
            atomic_write_text(folder / SCORES, "".join(json.dumps(line) + "\n" for line in lines))

        return StageResult(metrics=metrics, write=write)

    return run.stage("rejection", settings, parents, body, kind="demonstration_set", label=label)


def drawn_anew(prompts: Sequence[EncodedPrompt], count: int, seed: int) -> list[EncodedPrompt]:
    """`count` prompts of a shuffle; where there are fewer, all of them again in another order."""
    chosen: list[EncodedPrompt] = []
    while len(chosen) < count:
        order = shuffled(len(prompts), 1, derive(seed, "prompts", len(chosen)))[0]
        chosen += [prompts[i] for i in order[: count - len(chosen)].tolist()]
    return chosen


def usable(drawn: Drawn, config: BestOfConfig) -> Tensor:
    """[P, n] bool: responses that say something, and that ended by themselves where the recipe asks for it."""
    said = torch.tensor([bool(text.strip()) for text in drawn.responses.response_texts])
    if config.unfinished == "drop":
        said &= drawn.responses.finished
    if not said.any():
        raise TrainingError(
            f"none of {len(said)} responses can be trained on: {int((~drawn.responses.finished).sum())} were cut off "
            f"at best_of.max_new_tokens={config.max_new_tokens}, the others are empty. Raise that, or set "
            "best_of.unfinished: keep where no response is meant to end."
        )
    return said.view_as(drawn.scores)


def kept(drawn: Drawn, allowed: Tensor, config: BestOfConfig) -> list[int]:
    """The prompts whose best response is trained on, in the order of sampling."""
    if bool((drawn.scores == drawn.scores[:, :1]).all()):
        raise TrainingError(
            f"the rewards give the {drawn.n} responses of each of {len(drawn.scores)} prompts the same score, so none "
            "is best and nothing would be learned. Look at best_of.rewards, or raise best_of.n or best_of.temperature."
        )
    best = drawn.scores.masked_fill(~allowed, -torch.inf).max(1).values
    chosen = allowed.any(1)
    if config.threshold is not None:
        chosen &= best >= config.threshold
    places = chosen.nonzero()[:, 0]
    if not len(places):
        raise TrainingError(
            f"no best response reaches best_of.threshold={config.threshold}; the highest score is "
            f"{float(drawn.scores[allowed].max()):.4g}. Lower the threshold, or raise best_of.n."
        )
    count = max(1, round(config.share * len(places)))
    highest = places[best[places].argsort(descending=True, stable=True)[:count]]
    return sorted(highest.tolist())


def figures(drawn: Drawn, allowed: Tensor, chosen: Sequence[int]) -> dict[str, float]:
    """What was drawn and what was taken of it."""
    scores, best = drawn.scores, drawn.best(allowed)
    lengths = drawn.responses.batch.response_lengths.float().view_as(scores)
    taken = scores.gather(1, best[:, None])[:, 0][list(chosen)]
    return {
        "n": drawn.n,
        "prompts": len(scores),
        "kept": len(chosen),
        "score_mean": float(scores.mean()),
        "score_kept": float(taken.mean()),
        "equal_share": float((scores == scores[:, :1]).all(1).float().mean()),
        "unusable_share": float((~allowed).float().mean()),
        "length_ratio": float(lengths.gather(1, best[:, None])[:, 0][list(chosen)].mean() / lengths.mean()),
        "kl_nats_per_sequence_bound": best_of_kl_bound(drawn.n),
    }


def provenance(
    prompts: Sequence[EncodedPrompt], drawn: Drawn, allowed: Tensor, chosen: set[int]
) -> Iterator[dict[str, object]]:
    """For each prompt all scores, which sample is the best, and whether it was kept."""
    best = drawn.best(allowed).tolist()
    for i, (prompt, scores) in enumerate(zip(prompts, drawn.scores.tolist(), strict=True)):
        yield {"prompt": prompt_key(prompt.prompt), "scores": scores, "best": best[i], "kept": i in chosen}


def read_selection(artifact: Artifact) -> tuple[list[Demonstration], list[Demonstration]]:
    """(train, held out) of a demonstration set."""
    sides = []
    for name in (TRAIN, HELD_OUT):
        path = artifact.path / name
        sides.append(read_demonstrations(DataConfig(path=str(path), holdout=0.0)) if path.stat().st_size else [])
    return sides[0], sides[1]
