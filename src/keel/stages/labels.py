"""Fresh samples in, judged comparisons out: what keeps a reward model honest while its policy moves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keel.core.artifacts import Artifact
from keel.core.errors import DataError
from keel.core.seed import derive
from keel.data.formats import read_comparisons, write_jsonl
from keel.data.formats import DataConfig
from keel.data.records import Comparison
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids
from keel.stages.agreement import agreement_figures
from keel.stages.context import Run, StageContext, StageResult
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.stages.recipe import RLConfig, RoundsConfig
from keel.train.rollout import EncodedPrompt, as_responses, sample_batch

RECORDS = "comparisons.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two responses that wait for a judgment."""

    prompt: str
    a: str
    b: str
    a_finished: bool
    b_finished: bool
    key: int
    """Same for the same pair in every run of the same recipe and seed."""


Labeller = Callable[[Sequence[Pair]], Sequence[Comparison]]


def collect(
    run: Run,
    config: RoundsConfig,
    rl: RLConfig,
    labeller: Labeller,
    labeller_identity: str,
    policy: Artifact,
    policy_files: PolicyFiles,
    reference: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    round: int,
) -> Artifact:
    """Comparisons of fresh policy samples: half against the policy itself, half against the SFT policy."""
    settings = {
        "comparisons": config.comparisons,
        "labeller": labeller_identity,
        "max_new_tokens": rl.max_new_tokens,
        "temperature": rl.temperature,
        "seed": run.seed,
        "round": round,
        "reference": reference.identity,
    }

    def body(context: StageContext) -> StageResult:
        pairs = sample_pairs(context.seed, config, rl, policy_files, reference, prompts, round)
        records = list(labeller(pairs))
        if not records:
            raise DataError(f"rounds.labeller returned no comparison for {len(pairs)} pairs. Return one a pair.")
        return StageResult(
            metrics={"comparisons": len(records), **agreement_figures(records)},
            write=lambda folder: write_jsonl(folder / RECORDS, records),
        )

    return run.stage("labels", settings, [policy], body, kind="comparison_set", label=f"labels {round + 1}")


def sample_pairs(
    seed: int,
    config: RoundsConfig,
    rl: RLConfig,
    policy: PolicyFiles,
    reference: PolicyFiles,
    prompts: Sequence[EncodedPrompt],
    round: int,
) -> list[Pair]:
    """`config.comparisons` pairs on prompts drawn anew each round."""
    draw = derive(seed, "labels", round)
    order = [derive(draw, i) for i in range(config.comparisons)]
    chosen = [prompts[key % len(prompts)] for key in order]
    half = config.comparisons // 2
    first = texts(policy, chosen, rl, derive(draw, "first"))
    second = texts(policy, chosen[:half], rl, derive(draw, "second")) + texts(
        reference, chosen[half:], rl, derive(draw, "reference")
    )
    return [
        Pair(prompt=prompt.text, a=a, b=b, a_finished=a_done, b_finished=b_done, key=key)
        for prompt, (a, a_done), (b, b_done), key in zip(chosen, first, second, order, strict=True)
        if a != b
    ]


def texts(
    files: PolicyFiles, prompts: Sequence[EncodedPrompt], rl: RLConfig, seed: int
) -> list[tuple[str, bool]]:
    """One response a prompt, as text, and whether it ended by itself."""
    if not prompts:
        return []
    model, tokenizer = frozen(load_policy(files)), read_tokenizer(files)
    batch, _, finished = sample_batch(
        InProcessSampler(model, eos_ids(model, tokenizer)),
        prompts,
        samples=1,
        max_new_tokens=rl.max_new_tokens,
        temperature=rl.temperature,
        seed=seed,
    )
    responses = as_responses(
        batch, finished, [p.text for p in prompts], lambda t: tokenizer.decode(list(t), skip_special_tokens=True)
    )
    return list(zip(responses.response_texts, finished.tolist(), strict=True))


def read_set(artifact: Artifact) -> list[Comparison]:
    """The comparisons of a comparison set."""
    return read_comparisons(DataConfig(path=str(artifact.path / RECORDS), holdout=0.0))
