"""The library against the one-file references in examples/from_scratch: first loss and first gradients (SCIENCE T7)."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers.benches import (
    BENCHES,
    KL_COEF,
    LONGEST,
    PREFERENCE,
    WITH_REFERENCE,
    Bench,
    penalty,
    policy,
    rollout,
    with_values,
)
from helpers.from_scratch import reference
from torch import Tensor, nn

from keel.batch.types import TokenBatch

TOLERANCE = 1e-5


def rows_of(batch: TokenBatch, side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Each prompt with each of its responses as (tokens, real, response) [S, T], padded on one side with token 0."""
    prompts = batch.prompt_tokens.split(batch.prompt_lengths.tolist())
    responses = batch.response_tokens.split(batch.response_lengths.tolist())
    width = int((batch.prompt_lengths[batch.prompt_of_response] + batch.response_lengths).max()) + 1
    columns = []
    for owner, response in zip(batch.prompt_of_response.tolist(), responses, strict=True):
        row = torch.cat([prompts[owner], response])
        is_response = torch.arange(len(row)) >= len(prompts[owner])
        gap = torch.zeros(width - len(row), dtype=torch.int64)
        parts = [
            (row, gap),
            (torch.ones_like(row).bool(), gap.bool()),
            (is_response, gap.bool()),
        ]
        columns.append([torch.cat(part if side == "right" else part[::-1]) for part in parts])
    rows, real, response = (torch.stack(column) for column in zip(*columns, strict=True))
    return rows, real, response


def spread(flat: Tensor, response: Tensor) -> Tensor:
    """[S, T] with the numbers of `flat` [R] at the response tokens."""
    return torch.zeros(response.shape, dtype=flat.dtype).masked_scatter(response, flat)


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    return {
        name: torch.zeros_like(p) if gradient is None else gradient
        for (name, p), gradient in zip(named, found, strict=True)
    }


def assert_same_step(bench: Bench, batch: TokenBatch, loss: Tensor, module: nn.Module) -> None:
    """Loss and gradient of the library's step against the reference's loss."""
    step = bench.gradient(batch)
    assert step.metrics["loss"] == pytest.approx(loss.item(), rel=TOLERANCE, abs=TOLERANCE)
    expected = gradients(loss, module)
    assert step.gradients.keys() == expected.keys()
    ours, theirs = (torch.cat([g[name].flatten() for name in expected]) for g in (step.gradients, expected))
    assert (ours - theirs).norm() <= TOLERANCE * theirs.norm()


@pytest.mark.parametrize("side", ["left", "right"])
def test_sft_takes_the_step_of_its_reference(side):
    bench = BENCHES["sft"]()
    theirs = copy.deepcopy(bench.trained)
    rows, real, response = rows_of(bench.raw, side)
    counted = spread(bench.raw.response_mask, response)
    assert_same_step(bench, bench.raw, reference("sft").sft_loss(theirs, rows, real, counted), theirs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_reward_modelling_takes_the_step_of_its_reference(side):
    bench = BENCHES["reward head"]()
    batch, ours = bench.raw, bench.trained

    class Classifier(nn.Module):
        """The same network as plain transformers lays it out."""

        def __init__(self) -> None:
            super().__init__()
            self.network = self.base_model = copy.deepcopy(ours.network)
            self.head = self.score = copy.deepcopy(ours.head)

    theirs = Classifier()
    rows, real, _ = rows_of(batch, side)
    loss = reference("reward").reward_loss(
        theirs, rows[0::2], real[0::2], rows[1::2], real[1::2], batch.preference,
        weight=batch.weight, margin=batch.margin, label_smoothing=0.1, centering=0.01,
    )  # fmt: skip
    assert_same_step(bench, batch, loss, theirs)


@torch.no_grad()
def nudge(*modules: nn.Module) -> None:
    """Move all weights a little, the same for equal modules."""
    for module in modules:
        generator = torch.Generator().manual_seed(11)
        for p in module.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("away", [False, True], ids=["on policy", "off policy"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", ["separate", "trunk"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_ppo_takes_the_step_of_its_reference(side, kind, temperature, away):
    module = reference("ppo")
    bench = BENCHES[f"ppo {kind}"](temperature=temperature)
    ours = bench.trained
    raw = with_values(rollout(ours["policy"], whole=True, temperature=temperature, distance=0.0))
    theirs = copy.deepcopy(ours)
    trunk = theirs["policy"].model if kind == "trunk" else theirs["critic"].trunk
    their_critic = module.Critic(trunk=trunk, head=theirs["critic"].value_head)
    rows, real, response = rows_of(raw, side)
    experience = module.make_experience(
        theirs["policy"], policy(1), their_critic, rows, real, response, raw.scores,
        kl_coef=KL_COEF, temperature=temperature,
    )  # fmt: skip
    batch = bench.algorithm.prepare(replace(raw, values=experience.old_values[response]))
    for mine, their in (("logprobs", "old_logprobs"), ("advantages", "advantages"), ("returns", "returns")):
        torch.testing.assert_close(getattr(batch, mine), getattr(experience, their)[response], rtol=1e-5, atol=2e-5)
    if away:
        nudge(ours, theirs)
    policy_loss, value_loss, entropy = module.ppo_losses(
        theirs["policy"], their_critic, experience, clip_high=0.3, temperature=temperature
    )
    assert_same_step(bench, batch, policy_loss + 0.1 * value_loss - 0.01 * entropy, theirs)


@pytest.mark.parametrize("away", [False, True], ids=["on policy", "off policy"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("side", ["left", "right"])
def test_rloo_takes_the_step_of_its_reference(side, temperature, away):
    module = reference("rloo")
    bench = BENCHES["rloo"](temperature=temperature, entropy_coef=0.0)
    raw = rollout(bench.trained, whole=True, fanout=(3,) * 5, temperature=temperature, distance=0.0)
    theirs = copy.deepcopy(bench.trained)
    rows, real, response = rows_of(raw, side)
    old, ref = (spread(flat, response) for flat in (raw.logprobs, raw.ref_logprobs))
    advantages = module.rloo_advantages(old, ref, raw.scores, response, 3, KL_COEF)
    batch = bench.algorithm.prepare(raw)
    torch.testing.assert_close(batch.advantages, advantages[raw.response_of_token], rtol=1e-5, atol=1e-5)
    if away:
        nudge(bench.trained, theirs)
    loss = module.rloo_loss(theirs, rows, real, response, old, advantages, clip_high=0.3, temperature=temperature)
    assert_same_step(bench, batch, loss, theirs)


@pytest.mark.parametrize("away", [False, True], ids=["on policy", "off policy"])
@pytest.mark.parametrize("preset", ["none", "dr_grpo", "dapo"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_grpo_takes_the_step_of_its_reference(side, preset, away):
    module = reference("grpo")
    kl = penalty(estimator="k3", placement="loss")
    bench = BENCHES["grpo"](preset=preset, temperature=0.7, entropy_coef=0.0, kl=kl)
    config = bench.algorithm.config
    raw = rollout(bench.trained, whole=True, fanout=(3,) * 5, temperature=0.7, distance=0.0)
    theirs = copy.deepcopy(bench.trained)
    rows, real, response = rows_of(raw, side)
    old, ref = (spread(flat, response) for flat in (raw.logprobs, raw.ref_logprobs))
    advantages = module.group_advantages(raw.scores, 3, config.scale)
    batch = bench.algorithm.prepare(raw)
    torch.testing.assert_close(batch.advantages, advantages[raw.response_of_token], rtol=1e-5, atol=1e-5)
    if away:
        nudge(bench.trained, theirs)
    loss = module.grpo_loss(
        theirs, rows, real, response, old, ref, advantages,
        kl_coef=KL_COEF, average=config.average, max_new_tokens=LONGEST, clip_high=0.3, temperature=0.7,
    )  # fmt: skip
    assert_same_step(bench, batch, loss, theirs)


@pytest.mark.parametrize("away", [False, True], ids=["on policy", "off policy"])
@pytest.mark.parametrize("name", ["reinforce_pp", "reinforce_pp prompt"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_reinforce_pp_takes_the_step_of_its_reference(side, name, away):
    module = reference("reinforce_pp")
    bench = BENCHES[name](temperature=0.7, entropy_coef=0.0)
    raw = rollout(bench.trained, whole=True, fanout=(3,) * 5, temperature=0.7, distance=0.0)
    theirs = copy.deepcopy(bench.trained)
    rows, real, response = rows_of(raw, side)
    old, ref = (spread(flat, response) for flat in (raw.logprobs, raw.ref_logprobs))
    group_size = 3 if name == "reinforce_pp prompt" else None
    advantages = module.reinforce_pp_advantages(old, ref, raw.scores, response, KL_COEF, group_size)
    batch = bench.algorithm.prepare(raw)
    torch.testing.assert_close(batch.advantages, advantages[response], rtol=1e-5, atol=1e-5)
    if away:
        nudge(bench.trained, theirs)
    loss = module.reinforce_pp_loss(theirs, rows, real, response, old, advantages, clip_high=0.3, temperature=0.7)
    assert_same_step(bench, batch, loss, theirs)


@pytest.mark.parametrize("away", [False, True], ids=["on policy", "off policy"])
@pytest.mark.parametrize("changes", [{}, {"label": "hard"}, {"loss": "ipo"}], ids=["soft", "hard", "ipo"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_online_dpo_takes_the_step_of_its_reference(side, changes, away):
    module = reference("online_dpo")
    bench = BENCHES["online_dpo"](temperature=0.7, entropy_coef=0.0, **changes)
    raw = rollout(bench.trained, whole=True, fanout=(3,) * 5, temperature=0.7, distance=0.0)
    theirs = copy.deepcopy(bench.trained)
    rows, real, response = rows_of(raw, side)
    ref = spread(raw.ref_logprobs, response)
    if away:
        nudge(bench.trained, theirs)
    loss = module.online_dpo_loss(
        theirs, rows, real, response, ref, raw.scores, 3,
        beta=KL_COEF, label=changes.get("label", "soft"), squared="loss" in changes, temperature=0.7,
    )  # fmt: skip
    assert_same_step(bench, bench.algorithm.prepare(raw), loss, theirs)


@pytest.mark.parametrize("name", PREFERENCE)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_method_on_pairs_takes_the_step_of_its_reference(side, name):
    method = name.split()[0]
    module, bench = reference(method), BENCHES[name]()
    batch, config, theirs = bench.raw, bench.algorithm.config, copy.deepcopy(bench.trained)
    rows, real, response = rows_of(batch, side)
    counted = spread(batch.response_mask, response)
    if name in WITH_REFERENCE:
        with torch.no_grad():
            ref_logprobs = module.sequence_logprobs(policy(1), rows, real, counted)
        torch.testing.assert_close(batch.sequence_ref_logprobs, ref_logprobs, rtol=1e-5, atol=1e-5)
        logprobs = module.sequence_logprobs(theirs, rows, real, counted)
        arguments = [logprobs[0::2], logprobs[1::2], ref_logprobs[0::2], ref_logprobs[1::2]]
    else:
        means = module.mean_logprobs(theirs, rows, real, counted)
        arguments = [means[0::2], means[1::2]]
    options = {
        "dpo": ("margin", "beta", "label_smoothing", "label_noise"),
        "ipo": ("beta", "label_smoothing"),
        "simpo": ("margin", "beta", "gamma", "label_noise"),
        "orpo": ("odds_weight",),
    }[method]
    given = {"weight": batch.weight, **{name: getattr(config, name, batch.margin) for name in options}}
    loss = getattr(module, f"{method}_loss")(*arguments, batch.preference, **given)
    assert_same_step(bench, batch, loss, theirs)


@pytest.mark.parametrize("side", ["left", "right"])
def test_kto_takes_the_step_of_its_reference(side):
    """At a z0 above 0, which no gradient goes through."""
    module, bench, ref = reference("kto"), BENCHES["kto"](), policy(1)
    config, theirs = bench.algorithm.config, copy.deepcopy(bench.trained)
    rows, real, response = rows_of(bench.raw, side)
    counted = spread(bench.raw.response_mask, response)
    logprobs = module.sequence_logprobs(theirs, rows, real, counted)
    with torch.no_grad():
        ref_logprobs = module.sequence_logprobs(ref, rows, real, counted)
    z0 = module.reference_point(logprobs[1::2], ref_logprobs[1::2])
    assert z0 > 0.1
    batch = bench.algorithm.prepare(bench.raw)
    torch.testing.assert_close(batch.reference_point, z0.expand(5), rtol=1e-5, atol=1e-5)
    loss = module.kto_loss(
        logprobs[0::2], ref_logprobs[0::2], bench.raw.desirable, z0, weight=bench.raw.weight,
        beta=config.beta, up_weight=config.desirable_weight, down_weight=config.undesirable_weight,
    )  # fmt: skip
    assert_same_step(bench, batch, loss, theirs)
