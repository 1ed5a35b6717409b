"""Fresh samples in, judged comparisons out: what keeps a reward model honest while its policy moves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.core.seed import derive, generator
from keel.data.chat import decode_response
from keel.data.formats import DataConfig, read_comparisons, write_jsonl
from keel.data.records import Comparison, Prompt
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids
from keel.stages.agreement import agreement_figures
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.stages.sections.sampling import Sampling
from keel.train.rollout import EncodedPrompt, as_responses, sample_batch

RECORDS = "comparisons.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two responses that wait for a judgment."""

    prompt: Prompt
    a: str
    b: str
    a_finished: bool
    b_finished: bool
    key: int
    """Same for the same pair in every run of the same recipe and seed."""


Labeller = Callable[[Sequence[Pair]], Sequence[Comparison]]


@runtime_checkable
class Accountable(Protocol):
    """A labeller that knows more of the last pairs than their comparisons."""

    def account(self) -> dict[str, Any]:
        """Figures."""
        ...

    def write(self, folder: Path) -> None:
        """Files beside the comparisons."""
        ...


@dataclass(frozen=True, kw_only=True)
class JudgeOfPairs:
    """Somebody who judges fresh pairs."""

    judge: Labeller
    identity: str | None
    """What a stage's hash sees."""
    parents: Sequence[Artifact] = ()
    """What the judge is known by, besides."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What one round of labelling samples from, and by whom it is judged."""

    count: int
    opponent_share: float
    """Share of pairs whose second response comes from the reference; the rest come from the policy itself."""
    policy: PolicyFiles
    reference: PolicyFiles
    prompts: Sequence[EncodedPrompt]
    round: int
    labeller: Labeller
    labeller_identity: str | None


def collect(run: Run, sampling: Sampling, task: Collection, parents: Sequence[Artifact]) -> Artifact:
    """Judged comparisons of fresh samples, as a comparison set."""
    settings = {
        "count": task.count,
        "opponent_share": task.opponent_share,
        "labeller": task.labeller_identity,
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "seed": run.seed,
        "round": task.round,
        "policy": task.policy.identity,
        "reference": task.reference.identity,
    }

    def body(context: StageContext) -> StageResult:
        context.run.progress.start(context.name, None, "pairs")
        pairs = sample_pairs(context.seed, sampling, task)
        if not pairs:
            raise TrainingError(
                f"none of {task.count} pairs of samples has two different, non-empty responses, so there is nothing to "
                "judge: the policy repeats itself. Raise temperature or max_new_tokens of the section that samples, or "
                "train SFT less."
            )
        records = ask(task.labeller, pairs)
        figures = agreement_figures(records)
        told = task.labeller if isinstance(task.labeller, Accountable) else None
        context.run.progress.finish(f"{len(records)} pairs judged")

        def write(folder: Path) -> None:
            write_jsonl(folder / RECORDS, records)
            if told is not None:
                told.write(folder)

        return StageResult(
            metrics={"comparisons": len(records), **figures, **(told.account() if told else {})}, write=write
        )

    return run.stage("labels", settings, parents, body, kind="comparison_set", label=f"labels {task.round}")


def ask(labeller: Labeller, pairs: Sequence[Pair]) -> list[Comparison]:
    """What the labeller says of the pairs, at most one comparison each. Raises TrainingError for any other answer."""
    return sound(labeller(pairs), len(pairs), "rounds.labeller")


def sound(answer: object, num_pairs: int, field: str) -> list[Comparison]:
    """The answer of the function that the setting `field` names, if it is what a labeller returns."""
    wanted = f"Return a list of at most one keel.data.records.Comparison a pair ({num_pairs} here), and not none."
    if not isinstance(answer, list | tuple):
        raise TrainingError(f"{field} returned {answer!r:.80}. {wanted}")
    if not 0 < len(answer) <= num_pairs:
        raise TrainingError(f"{field} returned {len(answer)} comparisons for {num_pairs} pairs. {wanted}")
    for record in answer:
        if not isinstance(record, Comparison) or not 0 <= record.preference <= 1:
            raise TrainingError(
                f"{field} returned {record!r:.200}, which is no Comparison with a preference between 0 and 1. {wanted}"
            )
    return list(answer)


def sample_pairs(seed: int, sampling: Sampling, task: Collection) -> list[Pair]:
    """Pairs of different responses on prompts drawn anew each round; nobody can judge an empty one, so none is in."""
    draw = derive(seed, "labels", task.round)
    order = [derive(draw, i) for i in range(task.count)]
    chosen = [task.prompts[key % len(task.prompts)] for key in order]
    own = task.count - round(task.opponent_share * task.count)
    first = texts(task.policy, chosen, sampling, derive(draw, "first"))
    second = texts(task.policy, chosen[:own], sampling, derive(draw, "second"))
    second += texts(task.reference, chosen[own:], sampling, derive(draw, "reference"))
    return [
        Pair(prompt=prompt.prompt, a=a, b=b, a_finished=a_done, b_finished=b_done, key=key)
        for prompt, (a, a_done), (b, b_done), key in zip(chosen, first, second, order, strict=True)
        if a != b and a.strip() and b.strip()
    ]


def texts(
    files: PolicyFiles, prompts: Sequence[EncodedPrompt], sampling: Sampling, seed: int
) -> list[tuple[str, bool]]:
    """One response a prompt, as text, and whether it ended by itself."""
    if not prompts:
        return []
    model, tokenizer = frozen(load_policy(files)), read_tokenizer(files)
    batch, drawn = sample_batch(
        InProcessSampler(model, eos_ids(model, tokenizer)),
        prompts,
        samples=1,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        seed=seed,
    )
    responses = as_responses(batch, drawn.finished, [p.text for p in prompts], partial(decode_response, tokenizer))
    return list(zip(responses.response_texts, drawn.finished.tolist(), strict=True))


def read_set(artifact: Artifact) -> list[Comparison]:
    """The comparisons of a comparison set."""
    return read_comparisons(DataConfig(path=str(artifact.path / RECORDS), holdout=0.0))


def replayed(seen: Sequence[Comparison], count: int, seed: int, number: int) -> list[Comparison]:
    """`count` earlier comparisons (all, where there are fewer), drawn anew for each round."""
    order = generator(seed, "replay", number).permutation(len(seen))
    return [seen[i] for i in order[:count]]
