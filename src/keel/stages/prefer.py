"""Comparisons in, policy out: no reward model and no sampling in between."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from keel.algorithms.preference import DPO, pair_figures, pair_losses
from keel.batch.collate import EncodedPair, pair_batch
from keel.batch.types import PreferenceBatch, widen
from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.core.seed import derive
from keel.evaluate.reward_report import accuracy_figures, figures_of_scores
from keel.models.adapters import add_lora
from keel.monitor.bands import reward_model_accuracy
from keel.monitor.verdict import Verdict
from keel.stages.agreement import overriding
from keel.stages.context import Run, StageContext, StageResult, warn_of_rate
from keel.stages.pairs import PairSet, drawn
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer, write_policy
from keel.stages.sections.prefer import PreferConfig
from keel.train.loop import LoopConfig, fit
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import BestWeights
from keel.train.rollout import Reference

REFERENCE = "reference.safetensors"
AT_ONCE = 512
"""Pairs of a reference pass between two signs of life."""


@dataclass(frozen=True, kw_only=True)
class PreferenceData:
    """What a policy is trained on and judged by."""

    artifacts: Sequence[Artifact]
    train: PairSet
    held_out: PairSet
    override: str | None = None
    """Why the pairs are trained on although their raters hardly agree."""


@dataclass(frozen=True, kw_only=True)
class Referred:
    """Pairs and what the reference says of their responses: `said` [2N], sums of log-probabilities, a's before b's."""

    pairs: Sequence[EncodedPair]
    said: Tensor

    def batch(self, chosen: Sequence[int]) -> PreferenceBatch:
        """These pairs, ready for a loss."""
        said = self.said.view(-1, 2)[torch.tensor(chosen, dtype=torch.int64)].flatten()
        return widen(pair_batch([self.pairs[i] for i in chosen]), PreferenceBatch, sequence_ref_logprobs=said)


def train_on_preferences(run: Run, config: PreferConfig, base: PolicyFiles, data: PreferenceData) -> Artifact:
    """The policy with the lowest loss on held-out pairs (of the last step with keep: last)."""
    reference = refer(run, config, base, data)
    settings = config.model_dump(mode="json", exclude={"micro_batch_tokens", "max_new_tokens"})
    return run.stage(
        "prefer",
        {**settings, "seed": run.seed, "base": base.identity, **overriding(data.override)},
        [*data.artifacts, reference],
        lambda context: Preferring(context, config, base, data, reference).run(),
        kind="policy",
    )


def refer(run: Run, config: PreferConfig, base: PolicyFiles, data: PreferenceData) -> Artifact:
    """What the policy says of all pairs before any training, once: it is the reference, also of adapters to come.

    The network is loaded for this pass alone, so that training never holds a second one.
    """

    def body(context: StageContext) -> StageResult:
        model, progress = frozen(load_policy(base)), context.run.progress
        sides = {"train": data.train.pairs, "held_out": data.held_out.pairs}
        progress.start(context.name, sum(len(pairs) for pairs in sides.values()), "pairs")
        said: dict[str, Tensor] = {}
        for side, pairs in sides.items():
            parts = []
            for at in range(0, len(pairs), AT_ONCE):
                some = pairs[at : at + AT_ONCE]
                parts.append(sequence_logprobs(model, some, config.micro_batch_tokens))
                progress.advance(len(some))
            said[side] = torch.cat(parts)
        if not all(values.isfinite().all() for values in said.values()):
            raise TrainingError("the reference gives log-probabilities that are not finite; its training diverged.")
        progress.finish(f"{sum(len(pairs) for pairs in sides.values())} pairs")
        return StageResult(
            metrics={"pairs": sum(len(pairs) for pairs in sides.values())},
            write=lambda folder: save_file(said, folder / REFERENCE),
        )

    settings = {"policy": base.identity, "labels": config.labels}
    return run.stage("reference", settings, data.artifacts, body, kind="reference")


@torch.no_grad()
def sequence_logprobs(model: nn.Module, pairs: Sequence[EncodedPair], micro_batch_tokens: int) -> Tensor:
    """[2N] log-probabilities of whole responses, a's before b's."""
    batch = pair_batch(pairs)
    return batch.sum_per_response(Reference(model=model).logprobs(batch, 1.0, micro_batch_tokens))


class Preferring:
    """One stage: network, source, evaluation, and how they are saved."""

    def __init__(
        self, context: StageContext, config: PreferConfig, base: PolicyFiles, data: PreferenceData, reference: Artifact
    ) -> None:
        self.context, self.config, self.data = context, config, data
        self.seed = derive(context.seed, "prefer")
        torch.manual_seed(self.seed)
        policy = load_policy(base)
        if config.lora is not None:
            policy = add_lora(policy, config.lora)
        self.policy = policy.eval()  # dropout off: at the first step nothing separates it from its reference
        self.tokenizer = read_tokenizer(base)
        said = load_file(reference.path / REFERENCE)
        self.train = Referred(pairs=data.train.pairs, said=said["train"])
        self.held_out = Referred(pairs=data.held_out.pairs, said=said["held_out"])
        warn_of_rate(context, "prefer", config.optim, policy, lora=config.lora is not None)
        self.total = config.epochs * math.ceil(len(self.train.pairs) / config.batch)
        self.optimizer = Optimizer([ParameterGroup(parameters=trainable(policy))], config.optim, self.total)
        self.best = BestWeights(context.checkpoints.folder)

    def batches(self, start: int) -> Iterator[PreferenceBatch]:
        """From step `start` on."""
        for chosen in drawn(len(self.train.pairs), self.config.batch, self.seed, start, self.total):
            yield self.train.batch(chosen)

    def run(self) -> StageResult:
        """Train, evaluate, keep the best weights, stop when the held-out loss no longer falls."""
        config, context, progress = self.config, self.context, self.context.run.progress
        start = 0
        state: dict[str, Any] = {"before": None, "last": None, "best": None, "kept_step": 0, "worse": 0}
        if checkpoint := context.checkpoints.latest():
            checkpoint.restore({"policy": self.policy}, self.optimizer)
            start, state = checkpoint.step, checkpoint.state
            context.resumed(start, state)
        else:
            state["before"] = state["best"] = self.evaluate(0)
            self.best.keep(self.policy)
        progress.start(context.name, self.total, "steps")
        progress.advance(start)
        loop = LoopConfig(micro_batch_tokens=config.micro_batch_tokens, seed=self.seed)
        steps = fit(self.batches(start), DPO(self.policy, config.dpo), self.optimizer, loop, start=start)
        clock, tokens = time.perf_counter(), 0.0
        for step, metrics in enumerate(steps, start + 1):
            tokens += metrics.pop("tokens")
            progress.advance(1, loss=metrics["loss"], accuracy=metrics["accuracy"])
            if step % max(1, self.total // 200) == 0 or step == self.total:
                speed = tokens / (time.perf_counter() - clock)
                context.event("step", step=step, of=self.total, tokens_per_second=speed, **metrics)
            if step % config.evaluate_every == 0 or step == self.total:
                state = self.judged(state, step)
                if config.patience is not None and state["worse"] >= config.patience:
                    progress.say(f"{context.name}: held-out loss stopped falling; step {state['kept_step']} is kept")
                    break
            if context.checkpoint_due():
                context.checkpoints.save(
                    step,
                    modules={"policy": self.policy},
                    optimizer=self.optimizer,
                    state={**state, "seconds": context.seconds},
                )
        return self.result(state)

    def judged(self, state: dict[str, Any], step: int) -> dict[str, Any]:
        """The state after an evaluation; weights that do better are kept."""
        found = self.evaluate(step)
        if found["loss"] < state["best"]["loss"]:
            self.best.keep(self.policy)
            return {**state, "last": found, "best": found, "kept_step": step, "worse": 0}
        return {**state, "last": found, "worse": state["worse"] + 1}

    def log_ratios(self) -> Tensor:
        """[2N] log policy / reference of the held-out responses."""
        return sequence_logprobs(self.policy, self.held_out.pairs, self.config.micro_batch_tokens) - self.held_out.said

    def evaluate(self, step: int) -> dict[str, float]:
        """Loss, accuracy and log-ratios on the held-out pairs."""
        rows = self.held_out.batch(range(len(self.held_out.pairs)))
        log_ratios = self.log_ratios()
        a, b = log_ratios[0::2], log_ratios[1::2]
        if not log_ratios.isfinite().all():
            raise TrainingError(
                "held-out log-probabilities are not finite: training diverged. Lower optim.learning_rate."
            )
        losses = pair_losses(self.config.dpo, log_ratios, rows)
        decided = float((rows.preference != 0.5).sum().clamp(min=1))
        sums = pair_figures(self.config.dpo.beta, log_ratios + self.held_out.said, rows)
        figures = {
            "loss": float((rows.weight * losses).sum() / rows.weight.sum()),
            **{name: float(value) / decided for name, value in sums.items()},
            **accuracy_figures(a, b, rows.preference.tolist()),
        }
        self.context.event("evaluated", step=step, **figures)
        return figures

    def result(self, state: dict[str, Any]) -> StageResult:
        """The kept policy with its figures, and what they say."""
        config, kept = self.config, state["last"]
        if config.keep == "best":
            self.best.put_back(self.policy)
            kept = state["best"]
        scores = config.dpo.beta * self.log_ratios()
        figures = figures_of_scores(
            scores[0::2], scores[1::2], self.held_out.pairs, self.data.held_out.records, self.data.train.records
        )
        verdict = reward_model_accuracy(
            figures["accuracy"],
            figures["accuracy_low"],
            figures["accuracy_high"],
            baseline=max(figures["baseline_longer"], figures["baseline_bag_of_words"]),
            thresholds=self.context.run.thresholds,
        )
        gained = config.keep == "last" or state["kept_step"] > 0
        self.context.run.verdict(self.context.name, verdict if gained else no_gain(state["before"], state["last"]))
        self.context.run.progress.finish(
            f"its reward agrees with {figures['accuracy']:.3f} of held-out pairs ({figures['accuracy_low']:.3f} to "
            f"{figures['accuracy_high']:.3f}), loss {state['before']['loss']:.3f} → {kept['loss']:.3f}"
        )
        metrics = {
            **figures,
            "loss": kept["loss"],
            "loss_before": state["before"]["loss"],
            **{name: kept[name] for name in ("reward_margin", "chosen_log_ratio", "rejected_log_ratio")},
            "verdict": verdict.figures["verdict"],
            "algorithm": config.algorithm,
            "steps": self.optimizer.step_number,
            "kept_step": state["kept_step"] if config.keep == "best" else self.optimizer.step_number,
            "training_pairs": len(self.train.pairs),
        }
        return StageResult(metrics=metrics, write=lambda folder: write_policy(folder, self.policy, self.tokenizer))


def no_gain(before: Mapping[str, float], last: Mapping[str, float]) -> Verdict:
    """What to say when the weights from before training are the best."""
    return Verdict(
        "act",
        "nothing_gained",
        f"No step has a lower held-out loss than the start ({before['loss']:.3f}; the last one {last['loss']:.3f}, "
        f"with {last['accuracy']:.1%} of pairs right), so the policy is what it was.",
        {"loss_before": before["loss"], "loss_last": last["loss"], "accuracy_last": last["accuracy"]},
        "Lower prefer.optim.learning_rate or prefer.epochs. If the accuracy is near 50 % too, look at the labels.",
    )
