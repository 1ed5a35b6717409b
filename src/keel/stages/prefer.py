"""Comparisons or ratings in, policy out: no reward model and no sampling in between."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from keel.algorithms.kto import KTO
from keel.algorithms.preference import PairPreference
from keel.algorithms.settings import KTOConfig
from keel.batch.types import PairBatch, RatingBatch
from keel.core.artifacts import Artifact
from keel.core.errors import TrainingError
from keel.core.seed import derive
from keel.models.adapters import add_lora
from keel.monitor.bands import reward_model_accuracy
from keel.monitor.verdict import Verdict
from keel.stages.agreement import overriding
from keel.stages.context import Run, StageContext, StageResult, warn_of_rate
from keel.stages.pairs import drawn
from keel.stages.policy import PolicyFiles, load_policy, read_tokenizer, write_policy
from keel.stages.referred import PreferenceData, refer, said_before, sequence_logprobs
from keel.stages.sections.prefer import ALGORITHMS, PreferConfig
from keel.train.loop import LoopConfig, fit
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import BestWeights
from keel.train.step import LossTerms

TOLD = ("reward_margin", "chosen_log_ratio", "rejected_log_ratio", "reference_point")
"""Figures of the kept weights that the summary has, where the method has them."""


def train_on_preferences(
    run: Run,
    config: PreferConfig,
    base: PolicyFiles,
    data: PreferenceData,
    *,
    reference: PolicyFiles | None = None,
    label: str = "prefer",
) -> Artifact:
    """The policy with the lowest loss on held-out judgments (of the last step with keep: last).

    `reference` is the policy that it is held to; None is the one that it starts from.
    """
    pass_of = f"reference{label.removeprefix('prefer')}"
    said = refer(run, config, reference or base, data, pass_of) if config.has_reference else None
    not_its = {"pairs", "temperature", "micro_batch_tokens", "max_new_tokens", *ALGORITHMS} - {config.algorithm}
    settings = config.model_dump(mode="json", exclude=not_its)
    return run.stage(
        "prefer",
        {**settings, "seed": run.seed, "base": base.identity, **overriding(data.override), **data.mixed},
        [*data.artifacts, *([said] if said else [])],
        lambda context: Preferring(context, config, base, data, said).run(),
        kind="policy",
        label=label,
    )


def algorithm_of(policy: nn.Module, config: PreferConfig) -> Any:
    """The algorithm that the recipe names."""
    method = config.method
    if isinstance(method, KTOConfig):
        return KTO(policy, method, config.micro_batch_tokens)
    return PairPreference(policy, method)


class Preferring:
    """One stage: network, source, evaluation, and how they are saved."""

    def __init__(
        self,
        context: StageContext,
        config: PreferConfig,
        base: PolicyFiles,
        data: PreferenceData,
        reference: Artifact | None,
    ) -> None:
        self.context, self.config, self.data = context, config, data
        self.seed = derive(context.seed, "prefer")
        torch.manual_seed(self.seed)
        policy = load_policy(base)
        if config.lora is not None:
            policy = add_lora(policy, config.lora)
        self.policy = policy.eval()  # dropout off: at the first step nothing separates it from its reference
        self.tokenizer = read_tokenizer(base)
        self.algorithm = algorithm_of(self.policy, config)
        self.train, self.held_out = said_before(reference, data)
        warn_of_rate(context, "prefer", config.optim, policy, lora=config.lora is not None)
        self.total = config.epochs * math.ceil(len(self.train) / config.batch)
        self.optimizer = Optimizer([ParameterGroup(parameters=trainable(policy))], config.optim, self.total)
        self.best = BestWeights(context.checkpoints.folder)

    def batches(self, start: int) -> Iterator[PairBatch | RatingBatch]:
        """From step `start` on."""
        for chosen in drawn(len(self.train), self.config.batch, self.seed, start, self.total):
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
        steps = fit(self.batches(start), self.algorithm, self.optimizer, loop, start=start)
        clock, tokens = time.perf_counter(), 0.0
        for step, metrics in enumerate(steps, start + 1):
            tokens += metrics.pop("tokens")
            progress.advance(1, **{name: metrics[name] for name in ("loss", "accuracy") if name in metrics})
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

    def held_out_rewards(self) -> tuple[LossTerms, Tensor]:
        """The loss on all held-out judgments, and the rewards [S] that the policy implies for their responses."""
        rows = self.algorithm.prepare(self.held_out.batch(range(len(self.held_out))))
        logprobs = sequence_logprobs(self.policy, rows, self.config.micro_batch_tokens)
        if not logprobs.isfinite().all():
            raise TrainingError(
                "held-out log-probabilities are not finite: training diverged. Lower optim.learning_rate."
            )
        return self.algorithm.terms(logprobs, rows), self.algorithm.rewards(logprobs, rows)

    def evaluate(self, step: int) -> dict[str, float]:
        """Loss, accuracy and log-ratios on the held-out judgments."""
        terms, rewards = self.held_out_rewards()
        assert terms.figure_count is not None
        counted = float(terms.figure_count.clamp(min=1))
        figures = {
            "loss": float(terms.total / terms.count),
            **{name: float(value) / counted for name, value in terms.sums.items()},
            **self.data.held_out.agreement(rewards),
        }
        self.context.event("evaluated", step=step, **figures)
        return figures

    def result(self, state: dict[str, Any]) -> StageResult:
        """The kept policy with its figures, and what they say."""
        config, kept = self.config, state["last"]
        if config.keep == "best":
            self.best.put_back(self.policy)
            kept = state["best"]
        learned_from: Sequence[Any] = self.data.train.records
        figures = self.data.held_out.report(self.held_out_rewards()[1], learned_from)
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
            "accuracy_before": state["before"]["accuracy"],
            **{name: kept[name] for name in TOLD if name in kept},
            "verdict": verdict.figures["verdict"],
            "algorithm": config.algorithm,
            "steps": self.optimizer.step_number,
            "kept_step": state["kept_step"] if config.keep == "best" else self.optimizer.step_number,
            "training_pairs": len(self.train),
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
