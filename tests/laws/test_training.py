"""Laws of training: it learns, it can be interrupted, and nothing but the batch decides a step (SCIENCE T7)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.benches import (
    BENCHES,
    KTO_CONFIG,
    ONLINE,
    PAIR_CONFIGS,
    PPO_FORMS,
    PREFERENCE,
    Recorder,
    critic,
    critic_free_algorithm,
    pairs,
    policy,
    preferences,
    ratings,
    ratings_of,
    referred,
    reward_model,
    tokens,
)
from helpers.tiny import EOS
from torch import nn

from keel.algorithms.kto import KTO
from keel.algorithms.ppo import PPO, KLPenalty
from keel.algorithms.preference import PairPreference
from keel.algorithms.reward import RewardModelling
from keel.algorithms.settings import (
    KLConfig,
    KTOConfig,
    PairLossConfig,
    PPOConfig,
)
from keel.algorithms.sft import SFT
from keel.batch.types import PairBatch, TokenBatch
from keel.models.generate import InProcessSampler
from keel.train.judge import FunctionScorer, Judge
from keel.train.loop import LoopConfig, fit, moved_past
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.resume import Checkpoints
from keel.train.rollout import EncodedPrompt, Reference, RolloutConfig, RolloutSource
from keel.train.settings import OptimConfig, ShapingConfig
from keel.train.step import Metrics, optimizer_step


@dataclass
class Training:
    """Networks, source and algorithm of a small training run, made anew from nothing each time."""

    modules: dict[str, nn.Module]
    algorithm: Any
    source: Any
    """From an update's number on: the batches still to come."""
    loop: LoopConfig
    optimizer: Optimizer
    judge: Judge | None = None
    kl: KLPenalty | None = None

    def steps(self, start: int) -> Iterator[Metrics]:
        for metrics in fit(self.source(start), self.algorithm, self.optimizer, self.loop, start=start):
            if self.kl is not None:
                self.kl.observe(9.0, 100)
            yield {name: value for name, value in metrics.items() if "seconds" not in name}

    def state(self) -> dict[str, Any]:
        return {
            "kl_coef": self.kl.coefficient if self.kl else None,
            "judge": self.judge.state() if self.judge else None,
        }

    def restore(self, checkpoints: Checkpoints) -> int:
        checkpoint = checkpoints.latest()
        assert checkpoint is not None
        checkpoint.restore(self.modules, self.optimizer)
        if self.kl is not None:
            self.kl.coefficient = checkpoint.state["kl_coef"]
        if self.judge is not None:
            self.judge.load_state(checkpoint.state["judge"])
        return checkpoint.step


UPDATES = 6


def optim(name: str) -> OptimConfig:
    return OptimConfig(name=name, learning_rate=3e-3, muon_learning_rate=0.01, warmup_share=0.3, weight_decay=0.01)


def offline(model: nn.Module, algorithm: Any, batches: list[TokenBatch], config: OptimConfig) -> Training:
    return Training(
        modules={"model": model},
        algorithm=algorithm,
        source=lambda start: iter(batches[start:]),
        loop=LoopConfig(minibatches=2, epochs=2, micro_batch_tokens=40),
        optimizer=Optimizer([ParameterGroup(parameters=trainable(model))], config, 4 * len(batches)),
    )


def share_of_even_ids(_: Any, texts: list[str]) -> list[float]:
    return [sum(int(token) % 2 == 0 for token in text.split()) / len(text.split()) for text in texts]


def online(name: str, config: OptimConfig, updates: int = UPDATES) -> Training:
    """Even token ids are better; scores are normalised by what has been seen so far."""
    model, kl = policy(), KLPenalty(KLConfig(initial=0.05, target=3.0, horizon=1000), 0.05)
    scorer = FunctionScorer(function=share_of_even_ids, name="even")
    judge = Judge(scorers={"even": (1.0, scorer)}, shaping=ShapingConfig(normalise="running"), max_new_tokens=6)
    rollouts = RolloutSource(
        policy=model,
        sampler=InProcessSampler(model, {EOS}),
        reference=Reference(model=policy()),
        judge=judge,
        prompts=[EncodedPrompt(prompt=str(i), tokens=tuple(range(5, 6 + i)), key=i) for i in range(5)],
        decode=lambda ids: " ".join(map(str, ids)),
        config=RolloutConfig(prompts=4, samples=4, max_new_tokens=6, temperature=1.0, micro_batch_tokens=64, seed=5),
    )
    modules, groups = {"policy": model}, [ParameterGroup(parameters=trainable(model))]
    if name not in PPO_FORMS:
        algorithm: Any = critic_free_algorithm(name, model, kl, longest=6)

        def source(start: int) -> Any:
            return rollouts.batches(start, updates)
    else:
        values = critic(name.split()[1])
        algorithm = PPO(model, values, PPOConfig(), kl)
        modules["critic"] = values
        groups.append(ParameterGroup(parameters=trainable(values), learning_rate=1e-2))

        def source(start: int) -> Any:
            return rollouts.critic_batches(values, start, updates)

    return Training(
        modules=modules,
        algorithm=algorithm,
        source=source,
        loop=LoopConfig(minibatches=2, epochs=2, micro_batch_tokens=40, seed=3),
        optimizer=Optimizer(groups, config, 4 * updates),
        judge=judge,
        kl=kl,
    )


def training(name: str, config: OptimConfig) -> Training:
    kind, _, form = name.partition(" ")
    if kind == "sft":
        model = policy()
        return offline(model, SFT(model), [tokens(seed=i) for i in range(UPDATES)], config)
    if kind == "reward":
        model = reward_model(form)
        return offline(model, RewardModelling(model, PairLossConfig()), [pairs(i) for i in range(UPDATES)], config)
    if name in PREFERENCE:
        model = policy()
        algorithm = PairPreference(model, PAIR_CONFIGS[name])
        return offline(model, algorithm, [preferences(i, ref=policy()) for i in range(UPDATES)], config)
    if name == "kto":
        model = policy()
        return offline(model, KTO(model, KTO_CONFIG, 40), [ratings(i, ref=policy()) for i in range(UPDATES)], config)
    return online(name, config)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", BENCHES)
def test_resuming_equals_never_having_stopped_bit_for_bit(name, optimizer, tmp_path):
    undisturbed = training(name, optim(optimizer))
    expected = list(undisturbed.steps(0))
    assert len(expected) == UPDATES

    found, checkpoints = [], Checkpoints(tmp_path / "checkpoints")
    for stop in (2, 3, UPDATES):  # killed twice, each time with an update that is not in the checkpoint
        current = training(name, optim(optimizer))
        start = current.restore(checkpoints) if found else 0
        assert start == len(found)
        for step, metrics in enumerate(current.steps(start), start + 1):
            if step > stop:
                break
            found.append(metrics)
            checkpoints.save(step, modules=current.modules, optimizer=current.optimizer, state=current.state())

    assert found == expected
    for module in undisturbed.modules:
        theirs = dict(current.modules[module].named_parameters())
        for parameter_name, mine in undisturbed.modules[module].named_parameters():
            assert torch.equal(mine, theirs[parameter_name]), parameter_name
    assert len(list(Path(checkpoints.folder).iterdir())) == 1


def test_sft_learns_by_heart():
    model, batch = policy(), tokens(whole=True)
    training = offline(model, SFT(model), [batch] * 35, optim("adamw"))
    losses = [metrics["loss"] for metrics in training.steps(0)]
    assert losses[0] > 5
    assert losses[-1] < 0.5


def better_at_the_end(seed: int) -> PairBatch:
    """Comparisons in which the response that ends with token 9 is better, the other ends with 10."""
    batch = pairs(seed)
    ends = batch.response_lengths.cumsum(0) - 1
    said = batch.response_tokens.clone()
    said[ends] = 10
    said[ends[0::2][seed % 2 :: 2]] = 9  # every other pair has it first, the others second
    first = said[ends[0::2]] == 9
    said[ends[1::2][~first]] = 9
    return replace(
        batch,
        response_tokens=said,
        preference=first.float(),
        weight=torch.ones(len(batch)),
        margin=torch.zeros(len(batch)),
    )


@pytest.mark.parametrize("name", PREFERENCE)
def test_a_policy_learns_a_preference(name):
    model, reference = policy(), policy()
    batches = [referred(better_at_the_end(seed), reference) for seed in range(40)]
    training = offline(model, PairPreference(model, PAIR_CONFIGS[name]), batches, optim("adamw"))
    history = list(training.steps(0))
    assert sum(metrics["accuracy"] for metrics in history[-8:]) / 8 >= 0.9
    assert history[-1]["chosen_log_ratio"] > history[-1]["rejected_log_ratio"] + 2


def test_kto_learns_from_thumbs_up_and_down():
    """Of every pair one response is rated; the other stands for one that answers another prompt."""
    model, reference = policy(), policy()
    batches = [ratings_of(referred(better_at_the_end(seed), reference)) for seed in range(60)]
    history = list(offline(model, KTO(model, KTOConfig(), 1000), batches, optim("adamw")).steps(0))
    assert history[-1]["chosen_log_ratio"] > history[-1]["rejected_log_ratio"] + 2


@pytest.mark.parametrize("form", ["head", "implicit", "hybrid"])
def test_a_reward_model_learns_a_preference(form):
    """The response that ends with token 9 is better, whatever else it says."""
    model, batches = reward_model(form), [better_at_the_end(seed) for seed in range(40)]
    training = offline(model, RewardModelling(model, PairLossConfig()), batches, optim("adamw"))
    accuracy = [metrics["accuracy"] for metrics in training.steps(0)]
    assert sum(accuracy[-8:]) / 8 >= 0.95


@pytest.mark.parametrize("name", ONLINE)
def test_a_policy_learns_what_pays(name):
    training = online(name, optim("adamw"), updates=30 if name in PPO_FORMS else 60)
    totals = [training.judge.running_mean * training.judge.running_count for _ in training.steps(0)]
    per_update = torch.tensor([0.0, *totals]).diff() / 16
    assert per_update[:5].mean() < 0.6
    assert per_update[-5:].mean() > 0.8


@pytest.mark.parametrize("name", ONLINE)
def test_an_update_ends_when_the_policy_has_moved_far_enough(name):
    """The first step is on policy, so it is the second that finds the policy moved; four would be due."""
    work = online(name, optim("adamw"), updates=1)
    near, far = (
        next(fit(work.source(0), work.algorithm, work.optimizer, work.loop, enough=moved_past(limit)))
        for limit in (1e-8, None)
    )
    assert near["approx_kl"] > 1e-8
    assert (near["optimizer_steps"], far["optimizer_steps"]) == (2, 4)


@pytest.mark.parametrize("name", [*PREFERENCE, "kto"])
def test_a_method_on_judgments_goes_by_the_ratio_of_their_weights(name):
    bench = BENCHES[name]()
    batch = bench.algorithm.prepare(bench.raw)
    bench.gradient(replace(batch, weight=batch.weight / 1000)).assert_close(bench.gradient(batch), 1e-5)


@pytest.mark.parametrize("form", ["head", "implicit", "hybrid"])
def test_only_the_ratio_of_weights_counts(form):
    model, batch = reward_model(form), pairs()
    faint = replace(batch, weight=batch.weight / 1000)
    found = []
    for rows in (batch, faint):
        recorder = Recorder(model)
        metrics = optimizer_step(rows, RewardModelling(model, PairLossConfig()).loss, recorder, 1000)
        found.append(
            (
                metrics["loss"],
                recorder.gradients["network.norm.weight" if form == "head" else "network.model.norm.weight"],
            )
        )
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)
