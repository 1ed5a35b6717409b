"""Online methods in the world that is small enough to enumerate (helpers.exact): the product's loop and its algorithms."""

import copy
from typing import Any

import torch
from helpers.exact import (
    EOS,
    LONGEST,
    REWARDS,
    ExactSampler,
    Outcome,
    Settings,
    Table,
    TableConfig,
    adam,
    llama_policy,
    muon,
    outcome,
    source,
    table_policy,
)
from torch import Tensor, nn

from keel.algorithms.grpo import GRPO
from keel.algorithms.online_dpo import OnlineDPO
from keel.algorithms.ppo import PPO, KLPenalty
from keel.algorithms.reinforce_pp import ReinforcePP
from keel.algorithms.rloo import RLOO
from keel.algorithms.settings import KLConfig
from keel.models.critic import Critic
from keel.models.generate import InProcessSampler, Sampler
from keel.models.heads import ValueHead
from keel.train.loop import LoopConfig, fit
from keel.train.optim import Optimizer, ParameterGroup, trainable


def table_critic() -> Critic:
    return Critic(nn.Identity(), Table(TableConfig(width=1)))


def llama_critic() -> Critic:
    return Critic(ValueHead(64), llama_policy().model)


def algorithm_of(name: str, policy: nn.Module, critic: Critic, penalty: KLPenalty, settings: Settings) -> Any:
    s, warmth = settings, settings.temperature
    if name == "ppo":
        return PPO(policy, critic, s.ppo, penalty, warmth)
    if name == "grpo":
        return GRPO(policy, s.grpo, penalty, LONGEST, warmth)
    kind = {"rloo": RLOO, "reinforce_pp": ReinforcePP, "online_dpo": OnlineDPO}[name]
    return kind(policy, getattr(s, name), penalty, warmth)


def optimise(name: str, policy: nn.Module, critic: Critic, sampler: Sampler, settings: Settings) -> Outcome:
    """Train `policy` with the product's loop and measure."""
    s, reference = settings, copy.deepcopy(policy)
    rollouts = source(policy, reference, sampler, s.samples, s.temperature)
    algorithm = algorithm_of(name, policy, critic, KLPenalty(s.kl, s.kl.initial), s)
    groups, batches = [ParameterGroup(parameters=trainable(policy))], rollouts.batches(0, s.updates)
    if name == "ppo":
        groups.append(ParameterGroup(parameters=trainable(critic), learning_rate=s.critic_learning_rate))
        batches = rollouts.critic_batches(critic, 0, s.updates)
    epochs = algorithm.config.epochs
    optimizer = Optimizer(groups, s.optim, s.updates * epochs)
    history = list(fit(batches, algorithm, optimizer, LoopConfig(epochs=epochs, micro_batch_tokens=100_000)))
    return outcome(policy, reference, s, history)


HOLD = KLConfig(controller="fixed", initial=1.0)
TABLE = {
    "ppo": Settings(updates=80, optim=adam(0.15)),
    "rloo": Settings(updates=120, optim=adam(0.15)),
    "grpo": Settings(updates=120, optim=adam(0.15)),
    "reinforce_pp": Settings(updates=200, optim=adam(0.1)),
    "online_dpo": Settings(updates=120, optim=adam(0.15)),
}
LLAMA = {
    "ppo": Settings(updates=80, samples=48, optim=muon(0.005), critic_learning_rate=0.005, kl=HOLD),
    "rloo": Settings(updates=150, samples=48, optim=muon(0.005), kl=HOLD),
    "grpo": Settings(updates=150, samples=48, optim=muon(0.005), kl=HOLD),
    "reinforce_pp": Settings(updates=150, samples=48, optim=muon(0.005), kl=HOLD),
    "online_dpo": Settings(updates=150, samples=48, optim=muon(0.005), kl=HOLD),
}


def tabular(algorithm: str, **changes: Any) -> Outcome:
    """A run on the table policy; `changes` replace settings of TABLE."""
    policy = table_policy()
    return optimise(
        algorithm, policy, table_critic(), ExactSampler(policy), TABLE[algorithm].model_copy(update=changes)
    )


def llama(algorithm: str, **changes: Any) -> Outcome:
    """A run on a one-layer Llama, sampled as the product samples."""
    policy = llama_policy()
    sampler = InProcessSampler(policy, {EOS})
    return optimise(algorithm, policy, llama_critic(), sampler, LLAMA[algorithm].model_copy(update=changes))


def equilibrium(reference: Tensor, kl_coef: float) -> Tensor:
    """[3, 85] where the squared loss leads when its pairs come from the policy itself, as log-probabilities.

    pi = ref · exp(P(a better than b ~ pi) / kl_coef) / Z: nobody who pays for distance does better against it (the
    Nash equilibrium of Calandriello et al. 2024, arXiv 2403.08635). Found by iteration with averaging.
    """
    chance = torch.sigmoid(REWARDS[:, :, None] - REWARDS[:, None, :]).double()  # [3, 85, 85]
    policy = reference
    for _ in range(500):
        wins = (chance @ policy.exp()[..., None]).squeeze(-1)
        policy = ((policy + (reference + wins / kl_coef).log_softmax(-1)) / 2).log_softmax(-1)
    return policy
