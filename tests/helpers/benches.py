"""Every algorithm on a bench: a tiny network, a ragged batch, and the gradient of one optimiser step.

The batches hold what goes wrong in practice: prompts and responses of different lengths, a response of one token,
tokens that do not count, old log-probabilities far enough away that ratios are clipped on both sides.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from helpers.tiny import VOCAB_SIZE, tiny_model
from torch import Tensor, nn

from keel.algorithms.grpo import GRPO
from keel.algorithms.kto import KTO
from keel.algorithms.online_dpo import OnlineDPO
from keel.algorithms.ppo import PPO, KLPenalty
from keel.algorithms.preference import PairPreference
from keel.algorithms.reinforce_pp import ReinforcePP
from keel.algorithms.reward import RewardModelling
from keel.algorithms.rloo import RLOO
from keel.algorithms.settings import (
    DPOConfig,
    GRPOConfig,
    IPOConfig,
    KLConfig,
    KTOConfig,
    OnlineDPOConfig,
    ORPOConfig,
    PairLossConfig,
    PPOConfig,
    ReinforcePPConfig,
    RLOOConfig,
    SimPOConfig,
)
from keel.algorithms.sft import SFT
from keel.batch.pack import pack
from keel.batch.types import (
    AXIS,
    CriticRollout,
    PairBatch,
    PreferenceBatch,
    RatingBatch,
    Rollout,
    TokenBatch,
    expand,
    widen,
)
from keel.models.critic import Critic
from keel.models.heads import ValueHead
from keel.models.packed import token_logprobs
from keel.models.reward import RewardModel
from keel.train.optim import Optimizer, ParameterGroup, trainable
from keel.train.settings import OptimConfig
from keel.train.step import Metrics, optimizer_step

WIDTH = 32
PROMPT_LENGTHS = (5, 3, 7, 1, 4)
KL_COEF = 0.3
LONGEST = 9  # what the sampler would allow
EVERYTHING = 1_000_000  # tokens: the whole batch in one forward pass


def policy(seed: int = 0, **changes: Any) -> nn.Module:
    return tiny_model("llama", seed, **changes)


def reward_model(form: Any, seed: int = 0) -> RewardModel:
    """A reward model in memory, its reference another network than its own, so that no log-ratio is zero."""
    network = policy(seed)
    trunk, reference = (network.base_model, None) if form == "head" else (network, policy(seed + 1))
    model = RewardModel(trunk, None, form=form, beta=0.1, reference=reference)
    if form != "implicit":
        with torch.no_grad():
            model.head.weight.copy_(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.2)
    return model.eval()


def critic(kind: str, seed: int = 3) -> Critic:
    head = ValueHead(WIDTH)
    with torch.no_grad():
        head.weight.copy_(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed)) * 0.2)
    return Critic(head, policy(seed).base_model if kind == "separate" else None)


def tokens(fanout: tuple[int, ...] = (2, 3, 2, 2, 4), *, whole: bool = False, seed: int = 0) -> TokenBatch:
    """A ragged batch; unless `whole`, a fifth of its response tokens do not count, but the last ones do."""
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.tensor(PROMPT_LENGTHS[: len(fanout)])
    lengths = torch.randint(1, 9, (sum(fanout),), generator=generator)
    lengths[:2] = torch.tensor([1, 8])
    mask = torch.rand(int(lengths.sum()), generator=generator) > (-1.0 if whole else 0.2)
    mask[lengths.cumsum(0) - 1] = True
    return TokenBatch(
        prompt_lengths=prompts,
        fanout=torch.tensor(fanout),
        prompt_tokens=torch.randint(4, VOCAB_SIZE, (int(prompts.sum()),), generator=generator),
        response_lengths=lengths,
        response_tokens=torch.randint(4, VOCAB_SIZE, (int(lengths.sum()),), generator=generator),
        response_mask=mask,
    )


def pairs(seed: int = 0) -> PairBatch:
    """Comparisons of every kind: clear, reversed, tied, shared votes; with weights and margins."""
    return widen(
        tokens((2,) * 5, whole=True, seed=seed),
        PairBatch,
        preference=torch.tensor([1.0, 0.0, 0.5, 0.75, 0.2]),
        weight=torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]),
        margin=torch.tensor([0.0, 0.5, 1.0, 0.0, 0.25]),
    )


def preferences(seed: int = 0, *, ref: nn.Module | None = None) -> PreferenceBatch:
    """`pairs` with what `ref` says of them (another network by default); some tokens do not count."""
    batch = pairs(seed)
    mask = torch.rand(len(batch.response_tokens), generator=torch.Generator().manual_seed(seed)) > 0.2
    mask[batch.response_lengths.cumsum(0) - 1] = True
    return referred(replace(batch, response_mask=mask), ref or policy(1))


@torch.no_grad()
def referred(batch: PairBatch, ref: nn.Module) -> PreferenceBatch:
    """Comparisons with what `ref` says of them."""
    said = batch.sum_per_response(token_logprobs(ref, pack(batch))[0])
    return widen(batch, PreferenceBatch, sequence_ref_logprobs=said)


def ratings(seed: int = 0, *, ref: nn.Module | None = None) -> RatingBatch:
    """Responses with thumbs up, down and between, each beside the response to another prompt; some tokens do not
    count.
    """
    batch = ratings_of(preferences(seed, ref=ref or policy(1)))
    return replace(batch, desirable=torch.tensor([1.0, 0.0, 1.0, 0.75, 0.0]))


def ratings_of(batch: PreferenceBatch) -> RatingBatch:
    """The first response of every pair as one that was rated, by the chance that it is the better one; the second as
    one that answers another prompt.
    """
    said = {f.name: getattr(batch, f.name) for f in fields(TokenBatch)}
    return RatingBatch(
        **said,
        desirable=batch.preference,
        weight=batch.weight,
        sequence_ref_logprobs=batch.sequence_ref_logprobs,
    )


@torch.no_grad()
def rollout(
    model: nn.Module,
    *,
    fanout: tuple[int, ...] = (2, 3, 2, 2, 4),
    whole: bool = False,
    temperature: float = 1.0,
    distance: float = 0.3,
) -> Rollout:
    """Made-up samples; their log-probabilities stray by `distance` nats from those of `model`."""
    batch, generator = tokens(fanout, whole=whole), torch.Generator().manual_seed(7)
    logprobs, _ = token_logprobs(model, pack(batch), temperature=temperature)
    ref_logprobs, _ = token_logprobs(policy(1), pack(batch), temperature=temperature)
    return widen(
        batch,
        Rollout,
        logprobs=logprobs + distance * torch.randn(logprobs.shape, generator=generator),
        ref_logprobs=ref_logprobs,
        scores=torch.randn(batch.num_responses, generator=generator),
        finished=torch.ones(batch.num_responses, dtype=torch.bool),
    )


def with_values(batch: Rollout) -> CriticRollout:
    drawn = torch.randn(batch.logprobs.shape, generator=torch.Generator().manual_seed(8))
    return widen(batch, CriticRollout, values=drawn)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """An algorithm, what it trains, and a raw batch for it."""

    algorithm: Any
    trained: nn.Module
    raw: TokenBatch

    def gradient(self, batch: TokenBatch | None = None, micro_batch_tokens: int = EVERYTHING) -> "Step":
        """What one optimiser step on the prepared `batch` (the bench's own by default) would do."""
        batch = self.algorithm.prepare(self.raw) if batch is None else batch
        recorder = Recorder(self.trained)
        metrics = optimizer_step(batch, self.algorithm.loss, recorder, micro_batch_tokens)
        return Step(gradients=recorder.gradients, metrics=metrics)


@dataclass(frozen=True, kw_only=True)
class Step:
    gradients: dict[str, Tensor]
    metrics: Metrics

    def assert_close(self, other: "Step", tolerance: float = 1e-5) -> None:
        """Gradients within `tolerance` of each other as vectors, metrics each by itself."""
        assert self.gradients.keys() == other.gradients.keys()
        mine, theirs = (torch.cat([g.flatten() for g in x.gradients.values()]) for x in (self, other))
        assert torch.isfinite(mine).all()
        assert (mine - theirs).norm() <= tolerance * theirs.norm(), float((mine - theirs).norm() / theirs.norm())
        for name, value in self.metrics.items():
            if name != "tokens":  # a prompt that is shared is computed once
                expected = other.metrics[name]
                assert abs(value - expected) <= tolerance * max(1.0, abs(expected)), (name, value, expected)


class Recorder(Optimizer):
    """Keeps the gradient that a step would have used, unclipped, and leaves the weights alone."""

    def __init__(self, trained: nn.Module) -> None:
        self.named = trainable(trained)
        super().__init__([ParameterGroup(parameters=self.named)], OptimConfig(max_grad_norm=1e9), 1)
        self.gradients: dict[str, Tensor] = {}

    def step(self) -> None:
        for name, p in self.named:
            self.gradients[name] = torch.zeros_like(p) if p.grad is None else p.grad.clone()
            p.grad = None


def sft_bench(**_: Any) -> Bench:
    model = policy()
    return Bench(algorithm=SFT(model), trained=model, raw=tokens())


def reward_bench(form: str) -> Callable[..., Bench]:
    def make(**_: Any) -> Bench:
        model = reward_model(form)
        return Bench(algorithm=RewardModelling(model, PairLossConfig(label_smoothing=0.1)), trained=model, raw=pairs())

    return make


def penalty(**changes: Any) -> KLPenalty:
    return KLPenalty(KLConfig(controller="fixed", initial=KL_COEF, **changes), KL_COEF)


def ppo_bench(kind: str) -> Callable[..., Bench]:
    def make(*, temperature: float = 1.0, kl: KLPenalty | None = None, rollout_of: Any = None, **changes: Any) -> Bench:
        model, values = policy(), critic(kind)
        config = PPOConfig(**{"entropy_coef": 0.01, "clip_high": 0.3, "critic": kind, **changes})
        batch = with_values(rollout_of or rollout(model, temperature=temperature))
        algorithm = PPO(model, values, config, kl or penalty(), temperature)
        return Bench(algorithm=algorithm, trained=nn.ModuleDict({"policy": model, "critic": values}), raw=batch)

    return make


def critic_free(kind: Any, settings: Any, **fixed: Any) -> Callable[..., Bench]:
    """Benches of an algorithm that needs no critic and nothing but its settings; `fixed` are among these."""

    def make(
        *, temperature: float = 1.0, kl: KLPenalty | None = None, rollout_of: Rollout | None = None, **changes: Any
    ) -> Bench:
        model = policy()
        config = settings(**{"entropy_coef": 0.01, **fixed, **changes})
        batch = rollout_of or rollout(model, temperature=temperature)
        return Bench(algorithm=kind(model, config, kl or penalty(), temperature), trained=model, raw=batch)

    return make


def grpo_bench(
    *, temperature: float = 1.0, kl: KLPenalty | None = None, rollout_of: Rollout | None = None, **changes: Any
) -> Bench:
    """As published: standardised advantages, means over responses, k3 in the loss."""
    model = policy()
    config = GRPOConfig(**{"entropy_coef": 0.01, "clip_high": 0.3, **changes})
    batch = rollout_of or rollout(model, temperature=temperature)
    kl = kl or penalty(estimator="k3", placement="loss")
    algorithm = GRPO(model, config, kl, LONGEST, temperature)
    return Bench(algorithm=algorithm, trained=model, raw=batch)


def preference_bench(config: Any, **changes: Any) -> Bench:
    model = policy()
    algorithm = PairPreference(model, config.model_validate({**config.model_dump(), **changes}))
    return Bench(algorithm=algorithm, trained=model, raw=preferences())


def kto_bench(**changes: Any) -> Bench:
    model = policy()
    config = KTOConfig(**{**KTO_CONFIG.model_dump(), **changes})
    return Bench(algorithm=KTO(model, config, EVERYTHING), trained=model, raw=ratings())


PAIR_CONFIGS: dict[str, Any] = {
    "dpo": DPOConfig(label_smoothing=0.1),
    "dpo robust": DPOConfig(label_noise=0.1),
    "ipo": IPOConfig(label_smoothing=0.05),
    "simpo": SimPOConfig(label_noise=0.1),
    "orpo": ORPOConfig(odds_weight=0.5),
}
KTO_CONFIG = KTOConfig(desirable_weight=1.0, undesirable_weight=0.7)
BENCHES: dict[str, Callable[..., Bench]] = {
    "sft": sft_bench,
    "reward head": reward_bench("head"),
    "reward implicit": reward_bench("implicit"),
    "reward hybrid": reward_bench("hybrid"),
    "ppo separate": ppo_bench("separate"),
    "ppo trunk": ppo_bench("trunk"),
    "rloo": critic_free(RLOO, RLOOConfig, clip_high=0.3),
    "grpo": grpo_bench,
    "grpo dr_grpo": partial(grpo_bench, preset="dr_grpo", kl=penalty()),
    "grpo dapo": partial(grpo_bench, preset="dapo"),
    "reinforce_pp": critic_free(ReinforcePP, ReinforcePPConfig, clip_high=0.3),
    "reinforce_pp prompt": critic_free(ReinforcePP, ReinforcePPConfig, clip_high=0.3, baseline="prompt"),
    "online_dpo": critic_free(OnlineDPO, OnlineDPOConfig),
    "online_dpo hard": critic_free(OnlineDPO, OnlineDPOConfig, label="hard", pairs="best_worst"),
    "online_dpo ipo": critic_free(OnlineDPO, OnlineDPOConfig, loss="ipo"),
    **{name: partial(preference_bench, config) for name, config in PAIR_CONFIGS.items()},
    "kto": kto_bench,
}
PPO_FORMS = ("ppo separate", "ppo trunk")
GROUPED = ("rloo", "grpo", "grpo dr_grpo", "grpo dapo")
WHITENED = ("reinforce_pp", "reinforce_pp prompt")
ADVANTAGED = (*PPO_FORMS, *GROUPED, *WHITENED)
ONLINE_PAIRS = ("online_dpo", "online_dpo hard", "online_dpo ipo")
ONLINE = (*ADVANTAGED, *ONLINE_PAIRS)
PREFERENCE = tuple(PAIR_CONFIGS)
WITH_REFERENCE = ("dpo", "dpo robust", "ipo")


def critic_free_algorithm(
    name: str, model: nn.Module, kl: KLPenalty, temperature: float = 1.0, longest: int = LONGEST
) -> Any:
    """The algorithm of a bench without a critic, on another model and otherwise with its own settings' defaults."""
    kind, _, form = name.partition(" ")
    if kind == "grpo":
        return GRPO(model, GRPOConfig(preset=form or "none"), kl, longest, temperature)
    if kind == "reinforce_pp":
        return ReinforcePP(model, ReinforcePPConfig(baseline=form or "rollout"), kl, temperature)
    if kind == "online_dpo":
        changes: dict[str, Any] = {"hard": {"label": "hard", "pairs": "best_worst"}, "ipo": {"loss": "ipo"}}.get(
            form, {}
        )
        return OnlineDPO(model, OnlineDPOConfig(**changes), kl, temperature)
    return RLOO(model, RLOOConfig(), kl, temperature)


def poisoned(batch: TokenBatch, value: float) -> TokenBatch:
    """The same batch with `value` in every number that stands at a response token that does not count."""
    new = {f.name: x.clone() for f in fields(batch) if (x := getattr(batch, f.name)) is not None}
    for f in fields(batch):
        if f.metadata[AXIS] == "response_token" and f.name in new and new[f.name].is_floating_point():
            new[f.name][~batch.response_mask] = value
    return type(batch)(**new)


def unshared(batch: TokenBatch) -> TokenBatch:
    """The same responses, each behind a copy of its prompt."""
    owner = batch.prompt_of_response
    new = {f.name: getattr(batch, f.name) for f in fields(batch)}
    new["prompt_tokens"] = batch.prompt_tokens[expand(owner, batch.prompt_lengths)]
    new["prompt_lengths"], new["fanout"] = batch.prompt_lengths[owner], torch.ones_like(owner)
    return type(batch)(**new)


def cut_into_responses(batch: TokenBatch, values: Tensor) -> list[Tensor]:
    """`values` [R] of each response."""
    return list(values.split(batch.response_lengths.tolist()))


def frozen_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)
