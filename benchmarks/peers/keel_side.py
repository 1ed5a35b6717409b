"""keel's side of a comparison: `python keel_side.py JOB RECORD`.

What runs is what the stages of a recipe run: their batches, algorithms, optimiser and loop, with every metric, event,
and verdict. Saving, and measuring on held-out records, happen outside the clock, as on the peer's side.
"""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import Job, Meter, Shape, matmul_flops_per_second, write_record
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from keel.algorithms.preference import PairPreference
from keel.algorithms.reward import RewardModelling
from keel.algorithms.settings import DPOConfig, GRPOConfig, KLConfig, PairLossConfig, PPOConfig, RLOOConfig
from keel.algorithms.sft import SFT
from keel.batch.collate import EncodedPair, EncodedResponse, pair_batch
from keel.core.events import EventLog
from keel.core.progress import Silent
from keel.core.seed import derive
from keel.models.adapters import add_lora
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids, load_causal_lm, load_tokenizer
from keel.models.packed import transformer
from keel.models.reward import RewardModel
from keel.models.roles import role_tensors
from keel.models.settings import LoraConfig, ModelConfig
from keel.stages.cast import AlignTask
from keel.stages.context import Run, StageContext
from keel.stages.learner import Learner
from keel.stages.pairs import PairSet, drawn, pair_batches
from keel.stages.policy import PolicyFiles
from keel.stages.referred import sequence_logprobs
from keel.stages.sections.rl import RLConfig
from keel.stages.sections.sft import SFTConfig
from keel.stages.sft import training_batches
from keel.train.judge import Judge, RewardModelScorer, Scorer, TrunkScorer
from keel.train.loop import LoopConfig, fit
from keel.train.one_trunk import OneTrunk
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import Checkpoints
from keel.train.rollout import EncodedPrompt
from keel.train.settings import OptimConfig, ShapingConfig

Group = tuple[int, Sequence[int]]  # prompt tokens, tokens of each response


def main(job: Job) -> dict[str, Any]:
    torch.set_num_threads(job.threads)
    runs = {
        "sft": sft,
        "reward": reward,
        "dpo": dpo,
        "rloo": online,
        "grpo": online,
        "ppo": online,
        "rollout": rollout,
    }
    with tempfile.TemporaryDirectory() as folder:
        meter, flops, tokens = runs[job.stage](job, Path(folder))
    shape = shape_of(job)
    rate = matmul_flops_per_second(tokens, shape.hidden, shape.inner, job.dtype, job.device)
    return meter.record("keel", flops=flops, matmul_flops_per_second=rate, floor_cpu_seconds=flops / rate)


def shape_of(job: Job) -> Shape:
    """Of the job's model, whose weights nobody reads for it."""
    with torch.device("meta"):
        return Shape.of(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job.model)))


def train(
    job: Job, folder: Path, batches: Iterable[Any], algorithm: Any, model: nn.Module, tokens: Sequence[int]
) -> Meter:
    """Fit as the offline stages do: every step's metrics are events."""
    optimizer = Optimizer([ParameterGroup(parameters=trainable(model))], OptimConfig(**optim(job)), job.total)
    loop = LoopConfig(micro_batch_tokens=job.micro_batch_tokens, seed=job.seed)
    events, meter = EventLog(folder / "events.jsonl"), Meter(job)
    model.train()
    meter.begin()
    for step, metrics in enumerate(fit(batches, algorithm, optimizer, loop)):
        events.append("step", stage=job.stage, step=step + 1, **metrics)
        meter.step(tokens[step], metrics["loss"])
    return meter


def files(job: Job) -> PolicyFiles:
    return PolicyFiles(
        path=job.model, identity="base", config=ModelConfig(path=job.model, device=job.device, dtype=job.dtype)
    )


def lora(job: Job) -> LoraConfig | None:
    if not job.lora_rank:
        return None
    return LoraConfig(rank=job.lora_rank, alpha=2 * job.lora_rank, last_layers=job.last_layers or None)


def optim(job: Job) -> dict[str, Any]:
    """As a recipe would say it, for whichever optimiser section a stage has."""
    return {"learning_rate": job.learning_rate, "schedule": "constant", "warmup_share": 0.0, "eps": 1e-5}


def batches(job: Job, rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [rows[i * job.batch : (i + 1) * job.batch] for i in range(job.total)]


def passes(job: Job) -> int:
    """How many forward passes' operations one in training needs; the gradient of frozen weights is not computed."""
    return 2 if job.lora_rank else 3


def training_flops(job: Job, shape: Shape, measured: Sequence[Sequence[Group]], *, scored: bool) -> float:
    """With `scored` every response token goes through the output layer."""
    return sum(
        passes(job) * shape.forward_flops(groups, sum(sum(r) for _, r in groups) if scored else 0)
        for groups in measured
    )


def sft(job: Job, folder: Path) -> tuple[Meter, float, int]:
    demos = [(r["prompt"], EncodedResponse(tokens=r["chosen"])) for r in job.read_records()]
    steps = batches(job, [(len(r["prompt"]), [len(r["chosen"])]) for r in job.in_order()])
    tokens = [sum(p + sum(r) for p, r in step) for step in steps]
    policy: nn.Module = load_causal_lm(job.model, job.dtype, device=job.device)
    if settings := lora(job):
        policy = add_lora(policy, settings)
    config = SFTConfig(batch=job.batch)
    meter = train(job, folder, training_batches(demos, config, job.seed, 0, job.total), SFT(policy), policy, tokens)
    shape = Shape.of(transformer(policy))
    return meter, training_flops(job, shape, steps[job.warmup :], scored=True), max(tokens)


def pairs_of(job: Job) -> tuple[list[EncodedPair], list[Sequence[Group]], list[int]]:
    """The pairs, and of every step its lengths and the real tokens, each prompt twice as on the peer's side."""
    pairs = [
        EncodedPair(prompt=r["prompt"], a=r["chosen"], b=r["rejected"], preference=1.0) for r in job.read_records()
    ]
    steps = batches(job, [(len(r["prompt"]), [len(r["chosen"]), len(r["rejected"])]) for r in job.in_order()])
    return pairs, steps, [sum(2 * p + sum(r) for p, r in step) for step in steps]


def reward(job: Job, folder: Path) -> tuple[Meter, float, int]:
    pairs, steps, tokens = pairs_of(job)
    model = reward_model(job, lora(job))
    source = pair_batches(pairs, job.batch, derive(job.seed, "reward", 0), 0, job.total)
    meter = train(job, folder, source, RewardModelling(model, PairLossConfig()), model, tokens)
    shape = Shape.of(transformer(model.network))
    return meter, training_flops(job, shape, steps[job.warmup :], scored=False), max(tokens)


def dpo(job: Job, folder: Path) -> tuple[Meter, float, int]:
    """The reference speaks before the clock starts, as TRL's does with `precompute_ref_log_probs`."""
    pairs, steps, tokens = pairs_of(job)
    policy: nn.Module = load_causal_lm(job.model, job.dtype, device=job.device)
    said = sequence_logprobs(policy, pair_batch(pairs), job.micro_batch_tokens)
    if settings := lora(job):
        policy = add_lora(policy, settings)
    order = drawn(len(pairs), job.batch, derive(job.seed, "prefer"), 0, job.total)
    records = PairSet(records=(), pairs=pairs)
    source = (records.batch(chosen, said) for chosen in order)
    meter = train(job, folder, source, PairPreference(policy, DPOConfig()), policy, tokens)
    shape = Shape.of(transformer(policy))
    return meter, training_flops(job, shape, steps[job.warmup :], scored=True), max(tokens)


def reward_model(job: Job, adapters: LoraConfig | None) -> RewardModel:
    model = RewardModel.load(job.reward_model, device=job.device)
    if adapters is not None:
        model.network = add_lora(model.network, adapters)
    model.network.to(getattr(torch, job.dtype))  # the head stays in float32
    return model


def prompts_of(job: Job) -> list[EncodedPrompt]:
    return [
        EncodedPrompt(prompt=r["prompt_text"], tokens=tuple(r["prompt"]), key=derive(job.seed, "key", i))
        for i, r in enumerate(job.read_records())
    ]


def online(job: Job, folder: Path) -> tuple[Meter, float, int]:
    # In one_trunk the critic is a head anyway, and naming it would be refused.
    critic: dict[str, Any] = (
        {}
        if job.lora_rank and job.setting == "trunk"
        else {"critic": "trunk" if job.setting == "trunk" else "separate"}
    )
    config = RLConfig(
        algorithm=job.stage,  # type: ignore[arg-type]  # one of the online stages
        updates=job.total,
        prompts=job.batch,
        samples=job.samples,
        max_new_tokens=job.max_new_tokens,
        micro_batch_tokens=job.micro_batch_tokens,
        kl=KLConfig(preset="grpo" if job.stage == "grpo" else "none", controller="fixed", initial=0.05),
        shaping=ShapingConfig(normalise="none", clip=None, missing_eos_ceiling=None),
        ppo=PPOConfig(epochs=job.epochs, minibatches=1, stop_at_kl=None, **critic),
        rloo=RLOOConfig(epochs=job.epochs, minibatches=1, stop_at_kl=None),
        grpo=GRPOConfig(epochs=job.epochs, minibatches=1, stop_at_kl=None),
        lora=lora(job),
        layout="one_trunk" if job.setting == "trunk" and job.lora_rank else "separate",
        optim=optim(job),  # type: ignore[arg-type]  # each section has a type of its own
    )
    task = AlignTask(start=files(job), reference=files(job), prompts=prompts_of(job), held_out=[])
    meter = Meter(job)
    run = Run(
        directory=folder,
        seed=job.seed,
        events=EventLog(folder / "events.jsonl"),
        progress=Silent(),
        checkpoint_every_seconds=float("inf"),
        recipe_folder=folder,
    )
    context = StageContext(run=run, name=job.stage, checkpoints=Checkpoints(folder / "checkpoints"), seed=job.seed)
    learner = Learner(context, config, task, partial(judge, job, config))
    shape = shape_of(job)
    flops, largest = 0.0, 0
    meter.begin()
    for done, metrics in enumerate(learner.updates(0), 1):
        figures = learner.record(done, metrics)
        batch = learner.source.last.rollout  # type: ignore[union-attr]  # there was an update
        lengths = batch.response_lengths.split(batch.fanout.tolist())
        groups = [(p, r.tolist()) for p, r in zip(batch.prompt_lengths.tolist(), lengths, strict=True)]
        meter.step(sum(p * len(r) + sum(r) for p, r in groups), figures["loss"])
        if done > job.warmup:
            flops += online_flops(job, shape, groups)
        largest = max(largest, sum(p + sum(r) for p, r in groups))
    return meter, flops, largest


def judge(job: Job, config: RLConfig, trunk: OneTrunk | None) -> Judge:
    """A reward model of its own, or in one_trunk a random adapter of the policy's size with a random head."""
    if trunk is not None and config.lora is not None:
        tensors = {name: torch.randn_like(tensor) * 0.02 for name, tensor in role_tensors(trunk.policy).items()}
        place = trunk.add_reward(config.lora, tensors, torch.randn(shape_of(job).hidden) * 0.05)
        scorer: Scorer = TrunkScorer(place, mean=0.0, std=1.0)
    else:
        model = reward_model(job, None).eval().requires_grad_(False)
        scorer = RewardModelScorer(model=model, mean=0.0, std=1.0, micro_batch_tokens=job.micro_batch_tokens)
    return Judge(scorers={"reward_model": (1.0, scorer)}, shaping=config.shaping, max_new_tokens=job.max_new_tokens)


def online_flops(job: Job, shape: Shape, groups: Sequence[Group]) -> float:
    """What one update needs: rollout, reference and reward model once, then the epochs.

    A critic of its own adds a forward pass and its own training; a head on the policy's trunk adds nothing, its values
    are read off while sampling. On one trunk the layers without adapters run in the rollout and never again.
    """
    said = sum(sum(r) for _, r in groups)
    trunk = shape.forward_flops(groups, 0)
    head = shape.forward_flops(groups, said) - trunk
    shares = job.setting == "trunk" and job.last_layers
    above = trunk * job.last_layers / shape.layers if shares else trunk
    critic = trunk if job.stage == "ppo" and job.setting != "trunk" else 0.0
    return trunk + head + (above + head) + above + critic + job.epochs * passes(job) * (above + head + critic)


@torch.no_grad()
def rollout(job: Job, folder: Path) -> tuple[Meter, float, int]:
    model = load_causal_lm(job.model, job.dtype, device=job.device)
    sampler = InProcessSampler(model, eos_ids(model, load_tokenizer(job.model)))
    prompts = prompts_of(job)
    shape = Shape.of(model)
    flops, meter = 0.0, Meter(job)
    meter.facts = {"decode_bytes": 0.0, "prefill_flops": 0.0}
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
            meter.facts["decode_bytes"] += decode_bytes(model, groups)
            meter.facts["prefill_flops"] += shape.forward_flops([(p, []) for p, _ in groups], len(groups))
    return meter, flops, job.batch * job.samples


def decode_bytes(model: nn.Module, groups: Sequence[Group]) -> float:
    """What decoding must read, a token a step: all weights, each prompt's keys and values once while a response to it
    goes on, and those of what each response has said. Prefill gives the first token.
    """
    config = transformer(model).config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    item = transformer(model).dtype.itemsize
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * item
    # The embedding is looked up and not read, but the output layer, of the same size, is.
    weights = sum(p.numel() for p in transformer(model).base_model.parameters()) * item
    steps = max(max(responses) for _, responses in groups) - 1
    prompts = sum(prompt * (max(responses) - 1) for prompt, responses in groups)
    said = sum(n * (n - 1) / 2 for _, responses in groups for n in responses)
    return weights * steps + token * (prompts + said)


if __name__ == "__main__":
    write_record(Path(sys.argv[2]), main(Job.load(Path(sys.argv[1]))))
