"""keel's side of a comparison: `python keel_side.py JOB RECORD`.

Runs the functions that the stages of a recipe run, with their events, metrics and verdicts; the clock sits where the
progress bar sits.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import Job, Meter, Shape, matmul_flops_per_second, write_record

from keel.algorithms.settings import KLConfig, PPOConfig, RLOOConfig
from keel.batch.collate import EncodedPair, EncodedResponse
from keel.core.events import EventLog
from keel.core.progress import Silent
from keel.core.seed import derive
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids, load_causal_lm, load_tokenizer
from keel.models.reward import RewardModel
from keel.models.settings import LoraConfig, ModelConfig
from keel.stages.align import Aligner, AlignTask
from keel.stages.context import Run, StageContext
from keel.stages.policy import PolicyFiles
from keel.stages.recipe import RewardConfig, RLConfig, SFTConfig
from keel.stages.reward import PairSet, RewardData, train_member
from keel.stages.sft import fine_tune
from keel.train.judge import Judge, RewardModelScorer
from keel.train.optim import OptimConfig
from keel.train.resume import Checkpoints
from keel.train.rollout import EncodedPrompt
from keel.train.settings import ShapingConfig

Group = tuple[int, Sequence[int]]  # prompt tokens, tokens of each response


class StepsOver(Exception):  # noqa: N818  # no error: the way out of a stage
    """The last step is over; what the stage would do next is not measured."""


class Clock(Silent):
    """A progress bar that measures."""

    def __init__(self, meter: Meter, tokens: Sequence[int]) -> None:
        self.meter, self.tokens = meter, tokens

    def start(self, stage: str, total: int | None, unit: str) -> None:
        self.meter.begin()

    def advance(self, n: int = 1, **figures: Any) -> None:
        if n and self.meter.step(self.tokens[len(self.meter.tokens)], figures["loss"]):
            raise StepsOver


def main(job: Job) -> dict[str, Any]:
    torch.set_num_threads(job.threads)
    runs = {"sft": sft, "reward": reward, "rloo": online, "ppo": online, "rollout": rollout}
    with tempfile.TemporaryDirectory() as folder:
        meter, flops, tokens = runs[job.stage](job, Path(folder))
    shape = Shape.of(load_causal_lm(job.model, verify=False))
    rate = matmul_flops_per_second(tokens, shape.hidden, shape.inner)
    return meter.record("keel", flops=flops, matmul_flops_per_second=rate, floor_cpu_seconds=flops / rate)


def context(job: Job, folder: Path, meter: Meter, tokens: Sequence[int]) -> StageContext:
    run = Run(
        directory=folder,
        seed=job.seed,
        events=EventLog(folder / "events.jsonl"),
        progress=Clock(meter, tokens),
        checkpoint_every_seconds=float("inf"),
        recipe_folder=folder,
    )
    return StageContext(run=run, name=job.stage, checkpoints=Checkpoints(folder / "checkpoints"), seed=job.seed)


def measured(stage: Callable[[], object]) -> None:
    try:
        stage()
    except StepsOver:
        return
    raise RuntimeError("the stage ended before its last step was measured")


def files(job: Job) -> PolicyFiles:
    return PolicyFiles(path=job.model, identity="base", config=ModelConfig(path=job.model, device="cpu"))


def lora(job: Job) -> LoraConfig | None:
    return LoraConfig(rank=job.lora_rank, alpha=2 * job.lora_rank) if job.lora_rank else None


def optim(job: Job) -> OptimConfig:
    return OptimConfig(learning_rate=job.learning_rate, schedule="constant", warmup_share=0.0)


def batches(job: Job, rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [rows[i * job.batch : (i + 1) * job.batch] for i in range(job.total)]


def training_flops(shape: Shape, measured: Sequence[Sequence[Group]], *, scored: bool) -> float:
    """Three forward passes a step; with `scored` every response token goes through the output layer."""
    return sum(3 * shape.forward_flops(groups, sum(sum(r) for _, r in groups) if scored else 0) for groups in measured)


def sft(job: Job, folder: Path) -> tuple[Meter, float, int]:
    demos = [(r["prompt"], EncodedResponse(tokens=r["chosen"])) for r in job.read_records()]
    groups = [(len(r["prompt"]), [len(r["chosen"])]) for r in job.in_order()]
    steps = batches(job, groups)
    tokens = [sum(p + sum(r) for p, r in step) for step in steps]
    meter = Meter(job)
    config = SFTConfig(
        epochs=1, batch=job.batch, micro_batch_tokens=job.micro_batch_tokens, lora=lora(job), optim=optim(job)
    )
    measured(lambda: fine_tune(context(job, folder, meter, tokens), config, files(job), demos, []))
    shape = Shape.of(load_causal_lm(job.model, verify=False))
    return meter, training_flops(shape, steps[job.warmup :], scored=True), max(tokens)


def reward(job: Job, folder: Path) -> tuple[Meter, float, int]:
    pairs = [
        EncodedPair(prompt=r["prompt"], a=r["chosen"], b=r["rejected"], preference=1.0) for r in job.read_records()
    ]
    groups = [(len(r["prompt"]), [len(r["chosen"]), len(r["rejected"])]) for r in job.in_order()]
    steps = batches(job, groups)
    tokens = [sum(2 * p + sum(r) for p, r in step) for step in steps]
    meter = Meter(job)
    config = RewardConfig(
        epochs=1,
        batch=job.batch,
        micro_batch_tokens=job.micro_batch_tokens,
        freeze_embeddings=False,
        lora=lora(job),
        optim=optim(job),
    )
    data = RewardData(artifacts=[], train=PairSet(records=[], pairs=pairs), held_out=PairSet(records=[], pairs=[]))
    measured(lambda: train_member(context(job, folder, meter, tokens), config, files(job), data, 0, None))
    shape = Shape.of(load_causal_lm(job.model, verify=False))
    return meter, training_flops(shape, steps[job.warmup :], scored=False), max(tokens)


def prompts_of(job: Job) -> list[EncodedPrompt]:
    return [
        EncodedPrompt(prompt=r["prompt_text"], tokens=tuple(r["prompt"]), key=derive(job.seed, "key", i))
        for i, r in enumerate(job.read_records())
    ]


def online(job: Job, folder: Path) -> tuple[Meter, float, int]:
    config = RLConfig(
        algorithm="ppo" if job.stage == "ppo" else "rloo",
        updates=job.total,
        prompts=job.batch,
        samples=job.samples,
        max_new_tokens=job.max_new_tokens,
        micro_batch_tokens=job.micro_batch_tokens,
        kl=KLConfig(controller="fixed", initial=0.05),
        shaping=ShapingConfig(normalise="none", clip=None, missing_eos_ceiling=None),
        ppo=PPOConfig(
            epochs=job.epochs, minibatches=1, stop_at_kl=None, critic="trunk" if job.setting == "trunk" else "separate"
        ),
        rloo=RLOOConfig(epochs=job.epochs, minibatches=1, stop_at_kl=None),
        lora=lora(job),
        optim=optim(job),
    )
    model = RewardModel.load(job.reward_model, device="cpu").eval().requires_grad_(False)
    scorer = RewardModelScorer(model=model, mean=0.0, std=1.0, micro_batch_tokens=job.micro_batch_tokens)
    judge = Judge(scorers={"reward_model": (1.0, scorer)}, shaping=config.shaping, max_new_tokens=job.max_new_tokens)
    task = AlignTask(start=files(job), reference=files(job), prompts=prompts_of(job), held_out=[])
    meter = Meter(job)
    aligner = Aligner(context(job, folder, meter, []), config, task, judge)
    shape = Shape.of(load_causal_lm(job.model, verify=False))
    flops, largest = 0.0, 0
    meter.begin()
    for done, metrics in enumerate(aligner.updates(0), 1):
        figures = aligner.record(done, metrics)
        batch = aligner.source.last.rollout  # type: ignore[union-attr]  # there was an update
        lengths = batch.response_lengths.split(batch.fanout.tolist())
        groups = [(p, r.tolist()) for p, r in zip(batch.prompt_lengths.tolist(), lengths, strict=True)]
        meter.step(sum(p * len(r) + sum(r) for p, r in groups), figures["loss"])
        if done > job.warmup:
            flops += online_flops(job, shape, groups)
        largest = max(largest, sum(p + sum(r) for p, r in groups))
    return meter, flops, largest


def online_flops(job: Job, shape: Shape, groups: Sequence[Group]) -> float:
    """Rollout, reference and reward model forward, the critic before and while training, the policy's epochs."""
    said = sum(sum(r) for _, r in groups)
    with_head, without = shape.forward_flops(groups, said), shape.forward_flops(groups, 0)
    critics = 1 if job.stage == "ppo" else 0
    reference = with_head + without  # reference log-probabilities, reward model
    return with_head + reference + critics * without + job.epochs * 3 * (with_head + critics * without)


@torch.no_grad()
def rollout(job: Job, folder: Path) -> tuple[Meter, float, int]:
    model = load_causal_lm(job.model)
    sampler = InProcessSampler(model, eos_ids(model, load_tokenizer(job.model)))
    prompts = prompts_of(job)
    shape = Shape.of(model)
    flops, meter = 0.0, Meter(job)
    meter.begin()
    for number, rows in enumerate(batches(job, [prompts[i] for i in job.order])):
        drawn = sampler.sample(
            [torch.tensor(p.tokens) for p in rows],
            samples=job.samples,
            max_new_tokens=job.max_new_tokens,
            temperature=1.0,
            seed=derive(job.seed, "rollout", number),
            keys=[p.key for p in rows],
        )
        meter.step(len(drawn.tokens))
        lengths = drawn.lengths.split(job.samples)
        if number >= job.warmup:
            groups = [(len(p.tokens), r.tolist()) for p, r in zip(rows, lengths, strict=True)]
            flops += shape.forward_flops(groups, len(drawn.tokens))
    return meter, flops, job.batch * job.samples


if __name__ == "__main__":
    write_record(Path(sys.argv[2]), main(Job.load(Path(sys.argv[1]))))
