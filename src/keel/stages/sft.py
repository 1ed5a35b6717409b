"""Demonstrations in, SFT policy out."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from keel.algorithms.sft import SFT
from keel.batch.collate import token_batch
from keel.batch.types import TokenBatch
from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.core.seed import derive
from keel.models.adapters import add_lora
from keel.models.packed import token_logprobs
from keel.stages.context import Run, StageContext, StageResult, warn_of_rate
from keel.stages.encode import Demo
from keel.stages.policy import PolicyFiles, load_policy, read_tokenizer, write_policy
from keel.stages.sections.sft import SFTConfig
from keel.train.loop import LoopConfig, fit, shuffled
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import BestWeights
from keel.train.rollout import over_micro_batches

MOST_NATS = 700.0
"""Its exponential is about the largest number there is."""


def train_sft(
    run: Run,
    config: SFTConfig,
    base: PolicyFiles,
    data: Artifact,
    train: Sequence[Demo],
    held_out: Sequence[Demo],
    label: str = "sft",
) -> Artifact:
    """The policy with the lowest held-out perplexity (of the last epoch when nothing is held out)."""
    return run.stage(
        "sft",
        {**config.model_dump(mode="json", exclude={"micro_batch_tokens"}), "seed": run.seed, "base": base.identity},
        [data],
        lambda context: fine_tune(context, config, base, train, held_out),
        kind="policy",
        label=label,
    )


def fine_tune(
    context: StageContext, config: SFTConfig, base: PolicyFiles, train: Sequence[Demo], held_out: Sequence[Demo]
) -> StageResult:
    """Train epoch by epoch, keep the best weights, stop when perplexity stops falling."""
    torch.manual_seed(derive(context.seed, "sft"))
    model = load_policy(base)
    if config.lora is not None:
        model = add_lora(model, config.lora)
    warn_of_rate(context, "sft", config.optim, model, lora=config.lora is not None)
    per_epoch = math.ceil(len(train) / config.batch)
    total = config.epochs * per_epoch
    optimizer = Optimizer([ParameterGroup(parameters=trainable(model))], config.optim, total)
    evaluation = token_batch([p for p, _ in held_out], [[r] for _, r in held_out]) if held_out else None
    best = BestWeights(context.checkpoints.folder)
    start = 0
    state: dict[str, Any] = {"perplexity_before": None, "perplexity": None, "step": 0, "worse": 0}
    if checkpoint := context.checkpoints.latest():
        checkpoint.restore({"policy": model}, optimizer)
        start, state = checkpoint.step, checkpoint.state
        context.resumed(start, state)
    elif evaluation is not None:
        state["perplexity_before"] = perplexity(model, evaluation, config.micro_batch_tokens)
        context.event("evaluated", step=0, epoch=0, perplexity=state["perplexity_before"])

    progress = context.run.progress
    progress.start(context.name, total, "steps")
    progress.advance(start)
    source = training_batches(train, config, context.seed, start, total)
    loop = LoopConfig(micro_batch_tokens=config.micro_batch_tokens, seed=context.seed)
    clock, tokens = time.perf_counter(), 0.0
    model.train()
    for step, metrics in enumerate(fit(source, SFT(model), optimizer, loop, start=start), start + 1):
        tokens += metrics.pop("tokens")
        progress.advance(1, loss=metrics["loss"])
        if step % max(1, total // 200) == 0 or step == total:
            context.event(
                "step", step=step, of=total, tokens_per_second=tokens / (time.perf_counter() - clock), **metrics
            )
        if step % per_epoch == 0 and evaluation is not None:
            value = perplexity(model, evaluation, config.micro_batch_tokens)
            context.event("evaluated", step=step, epoch=step // per_epoch, perplexity=value)
            lowest = state["perplexity"]
            if math.isfinite(value) and (lowest is None or value < lowest * (1 - config.min_improvement)):
                best.keep(model)
                state = {**state, "perplexity": value, "step": step, "worse": 0}
            else:
                state = {**state, "worse": state["worse"] + 1}
            if state["worse"] >= config.patience:
                progress.say(f"{context.name}: perplexity stopped falling at {value:.3f}; step {state['step']} is kept")
                break
        if context.checkpoint_due():
            context.checkpoints.save(
                step, modules={"policy": model}, optimizer=optimizer, state={**state, "seconds": context.seconds}
            )
    figures = {key: state[key] for key in ("perplexity_before", "perplexity")}
    if evaluation is None:
        progress.finish("no perplexity: nothing is held out")
    elif state["perplexity"] is None:
        raise TrainingError("held-out perplexity was never finite: training diverged. Lower sft.optim.learning_rate.")
    else:
        best.put_back(model)
        progress.finish(f"perplexity {figures['perplexity_before']:.2f} → {figures['perplexity']:.3f}")
    tokenizer = read_tokenizer(base)
    return StageResult(
        metrics={**figures, "steps": optimizer.step_number, "kept_step": state["step"], "demonstrations": len(train)},
        write=lambda folder: write_policy(folder, model, tokenizer),
    )


def training_batches(
    demos: Sequence[Demo], config: SFTConfig, seed: int, start: int, total: int
) -> Iterator[TokenBatch]:
    """The batches of steps `start` to `total`; each epoch is a new shuffle that depends on (seed, epoch) alone."""
    per_epoch = math.ceil(len(demos) / config.batch)
    for step in range(start, total):
        epoch, at = divmod(step, per_epoch)
        order = shuffled(len(demos), 1, derive(seed, "sft order", epoch))[0]
        chosen = [demos[i] for i in order[at * config.batch : (at + 1) * config.batch].tolist()]
        yield token_batch([prompt for prompt, _ in chosen], [[response] for _, response in chosen])


@torch.no_grad()
def perplexity(model: nn.Module, batch: TokenBatch, micro_batch_tokens: int) -> float:
    """The exponential of the mean negative log-probability of the responses' own tokens."""
    was_training = model.training
    model.eval()
    logprobs = over_micro_batches(batch, micro_batch_tokens, model, lambda packed: token_logprobs(model, packed)[0])
    model.train(was_training)
    nats = -float(logprobs[batch.response_mask].double().mean())
    return math.exp(nats) if nats < MOST_NATS else math.inf
