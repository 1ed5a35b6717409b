"""Laws of the online methods: what a rollout is worth, and that the first step is on policy (SCIENCE T7)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.benches import (
    ADVANTAGED,
    BENCHES,
    GROUPED,
    KL_COEF,
    ONLINE,
    PPO_FORMS,
    WHITENED,
    Bench,
    critic_free_algorithm,
    cut_into_responses,
    penalty,
    policy,
)
from helpers.tiny import tiny_model
from torch import Tensor, nn

from keel.algorithms.ppo import PPO, KLPenalty
from keel.algorithms.settings import KLConfig, PPOConfig
from keel.batch.pack import pack
from keel.batch.types import CriticRollout, Rollout
from keel.models.adapters import add_lora, reference_mode
from keel.models.critic import Critic
from keel.models.generate import InProcessSampler
from keel.models.heads import ValueHead
from keel.models.packed import hidden_before
from keel.models.settings import LoraConfig
from keel.train.judge import FunctionScorer, Judge
from keel.train.rollout import EncodedPrompt, Reference, RolloutConfig, RolloutSource
from keel.train.settings import ShapingConfig

online = pytest.mark.parametrize("name", ONLINE)
ppo = pytest.mark.parametrize("name", PPO_FORMS)


def reward_to_go(batch: Rollout) -> list[Tensor]:
    """Of each token of each response, by the definition: score - KL_COEF · sum of log pi/ref from here on."""
    found = []
    logs = cut_into_responses(batch, batch.logprobs - batch.ref_logprobs)
    masks = cut_into_responses(batch, batch.response_mask)
    for log_ratio, mask, score in zip(logs, masks, batch.scores.tolist(), strict=True):
        found.append(torch.stack([score - KL_COEF * log_ratio[t:][mask[t:]].sum() for t in range(len(mask))]))
    return found


@ppo
def test_undiscounted_returns_are_the_score_less_the_kl_still_to_come(name):
    """gamma = lam = 1 without a critic: nothing but the reward is left, and it adds up."""
    bench = BENCHES[name](lam=1.0, whiten_advantages=False)
    raw = replace(bench.raw, values=torch.zeros_like(bench.raw.values))
    batch = bench.algorithm.prepare(raw)
    expected = torch.cat(reward_to_go(raw))
    kept = raw.response_mask
    torch.testing.assert_close(batch.returns[kept], expected[kept], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(batch.advantages[kept], expected[kept], rtol=1e-5, atol=1e-5)
    assert not batch.returns[~kept].any()
    assert not batch.advantages[~kept].any()


@ppo
def test_a_perfect_critic_leaves_no_advantage(name):
    bench = BENCHES[name](lam=0.5, whiten_advantages=False)
    raw = replace(bench.raw, values=torch.cat(reward_to_go(bench.raw)))
    batch = bench.algorithm.prepare(raw)
    # the reward of the token itself: V(t) - V(t + 1); every delta is zero
    assert batch.advantages.abs().max() < 1e-5
    torch.testing.assert_close(batch.returns, raw.values.masked_fill(~raw.response_mask, 0), rtol=1e-5, atol=1e-5)


def test_rloo_pays_a_response_by_what_it_earns_over_the_others():
    bench = BENCHES["rloo"]()
    batch = bench.algorithm.prepare(bench.raw)
    totals = torch.stack([per_token[0] for per_token in reward_to_go(bench.raw)])
    at = 0
    for count in bench.raw.fanout.tolist():
        group = totals[at : at + count]
        for i in range(count):
            others = torch.cat([group[:i], group[i + 1 :]]).mean()
            tokens = batch.advantages[bench.raw.response_of_token == at + i]
            torch.testing.assert_close(tokens, (group[i] - others).expand_as(tokens), rtol=1e-5, atol=1e-5)
        at += count


def test_grpo_pays_a_response_by_its_standing_among_the_others():
    """Standardised within the prompt; with the penalty in the loss nothing but the score is standardised."""
    bench = BENCHES["grpo"]()
    batch, raw = bench.algorithm.prepare(bench.raw), bench.raw
    groups = raw.scores.split(raw.fanout.tolist())
    expected = torch.cat([(group - group.mean()) / (group.std() + 1e-4) for group in groups])
    torch.testing.assert_close(batch.advantages, expected[raw.response_of_token], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["grpo", "grpo dr_grpo", "grpo dapo"])
def test_equal_scores_teach_grpo_nothing(name):
    bench = BENCHES[name](kl=penalty(estimator="k3", placement="loss"))
    batch = bench.algorithm.prepare(replace(bench.raw, scores=torch.ones_like(bench.raw.scores)))
    assert not batch.advantages.any()


def test_the_kl_in_the_reward_counts_for_grpo_as_it_does_for_rloo():
    """Without the deviation, k samples are worth (k - 1) / k of what leave-one-out makes of them."""
    grpo, rloo = BENCHES["grpo dr_grpo"](kl=penalty()), BENCHES["rloo"]()
    share = (rloo.raw.fanout - 1) / rloo.raw.fanout
    expected = (
        rloo.algorithm.prepare(rloo.raw).advantages * share[rloo.raw.prompt_of_response][rloo.raw.response_of_token]
    )
    torch.testing.assert_close(grpo.algorithm.prepare(grpo.raw).advantages, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("preset", "alike"), [("none", False), ("dr_grpo", True), ("dapo", True)])
def test_only_classic_grpo_weighs_a_token_by_the_length_of_its_response(preset, alike):
    """Two responses of equal advantage: the token of a short one against a token of a long one."""
    bench = BENCHES["grpo"](preset=preset, entropy_coef=0.0, kl=penalty())
    batch = bench.algorithm.prepare(bench.raw)
    lengths = batch.sum_per_response(torch.ones_like(batch.advantages))
    short, long = (i for i in (int(lengths.argmin()), int(lengths.argmax())))
    weights = bench.algorithm._weights(batch)
    weights = torch.ones_like(batch.advantages) if weights is None else weights
    of_short, of_long = (weights[batch.response_of_token == i].mean() for i in (short, long))
    ratio = 1.0 if alike else float(lengths[long] / lengths[short])
    assert float(of_short / of_long) == pytest.approx(ratio)


@pytest.mark.parametrize("name", [*PPO_FORMS, *GROUPED])
def test_what_a_row_is_worth_does_not_depend_on_its_company(name):
    bench = BENCHES[name](**({"whiten_advantages": False} if name in PPO_FORMS else {}))
    prepare, raw = bench.algorithm.prepare, bench.raw
    whole = prepare(raw)
    for i in range(len(raw)):
        alone = prepare(raw.rows(slice(i, i + 1)))
        for field in ("advantages", "returns") if name in PPO_FORMS else ("advantages",):
            torch.testing.assert_close(getattr(alone, field), getattr(whole.rows(slice(i, i + 1)), field))


@pytest.mark.parametrize("name", WHITENED)
def test_reinforce_pp_pays_a_token_by_all_that_is_still_to_come(name):
    """In units of the whole rollout; with baseline prompt the score counts from the mean of its prompt's."""
    bench = BENCHES[name]()
    raw, kept = bench.raw, bench.raw.response_mask
    if name == "reinforce_pp prompt":
        means = torch.cat([group.mean().expand(len(group)) for group in raw.scores.split(raw.fanout.tolist())])
        raw = replace(raw, scores=raw.scores - means)
    expected = torch.cat(reward_to_go(raw))[kept]
    batch = bench.algorithm.prepare(bench.raw)
    white = (expected - expected.mean()) / expected.std()
    torch.testing.assert_close(batch.advantages[kept], white, rtol=1e-4, atol=1e-5)
    assert not batch.advantages[~kept].any()


def test_reinforce_pp_needs_one_sample_a_prompt_and_learns_nothing_from_equal_ones():
    bench = BENCHES["reinforce_pp"](kl=penalty(estimator="k3", placement="loss"))
    single = bench.raw.only(torch.tensor([0, 2, 5, 7, 9]))
    assert single.fanout.tolist() == [1] * 5
    assert bench.algorithm.prepare(single).advantages.abs().max() > 0.5
    equal = bench.algorithm.prepare(replace(single, scores=torch.ones_like(single.scores)))
    assert not equal.advantages.any()


@ppo
def test_advantages_are_white_over_the_tokens_that_count_and_returns_are_not(name):
    bench, plain = BENCHES[name](), BENCHES[name](whiten_advantages=False)
    white, kept = bench.algorithm.prepare(bench.raw), bench.raw.response_mask
    assert white.advantages[kept].mean().abs() < 1e-5
    assert white.advantages[kept].var().item() == pytest.approx(1, abs=1e-4)
    assert not white.advantages[~kept].any()
    assert torch.equal(white.returns, plain.algorithm.prepare(plain.raw).returns)


@ppo
def test_a_critic_at_its_target_stays(name):
    """Values equal to the returns: no value loss and no gradient of it."""
    bench = BENCHES[name](entropy_coef=0.0, value_coef=1.0)
    batch = bench.algorithm.prepare(bench.raw)
    with torch.no_grad():
        values = own_values(bench)
    still = replace(batch, values=values, returns=values, advantages=torch.zeros_like(values))
    step = bench.gradient(still)
    assert step.metrics["value_loss"] == pytest.approx(0, abs=1e-10)
    assert max(g.abs().max() for g in step.gradients.values()) < 1e-5
    moved = bench.gradient(replace(still, returns=values + 0.5))
    assert moved.gradients["critic.value_head.bias"].item() == pytest.approx(-0.5, abs=1e-4)


def own_values(bench: Bench) -> Tensor:
    packed = pack(bench.raw)
    return bench.trained["critic"].values(packed, hidden_before(bench.trained["policy"], packed))


@pytest.mark.parametrize("name", ADVANTAGED)
def test_no_advantage_no_gradient_of_the_policy(name):
    changes = {"value_coef": 0.0} if name in PPO_FORMS else {"kl": penalty()}
    bench = BENCHES[name](entropy_coef=0.0, **changes)
    batch = bench.algorithm.prepare(bench.raw)
    step = bench.gradient(replace(batch, advantages=torch.zeros_like(batch.advantages)))
    assert max(g.abs().max() for g in step.gradients.values()) == 0


def online_source(model: nn.Module, reference: Reference, temperature: float) -> RolloutSource:
    """Fresh samples of the product's own sampler; longer responses are better."""
    scorer = FunctionScorer(function=lambda _, responses: [float(len(r)) for r in responses], name="length")
    return RolloutSource(
        policy=model,
        sampler=InProcessSampler(model, set(range(30))),  # many tokens end a response, so that lengths differ
        reference=reference,
        judge=Judge(scorers={"length": (1.0, scorer)}, shaping=ShapingConfig(normalise="none"), max_new_tokens=9),
        prompts=[EncodedPrompt(prompt=str(i), tokens=tuple(range(5, 6 + i)), key=i) for i in range(6)],
        decode=lambda ids: "x" * len(ids),
        config=RolloutConfig(
            prompts=6, samples=3, max_new_tokens=9, temperature=temperature, micro_batch_tokens=64, seed=5
        ),
    )


def adapted(model: nn.Module) -> nn.Module:
    """With adapters that have learned something."""
    torch.manual_seed(0)
    model = add_lora(model, LoraConfig(rank=4, alpha=8)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2"])
@online
def test_the_first_ratio_is_one(name, architecture, temperature, lora):
    """Sampling with a cache and training on packed rows agree on what every token's chance was."""
    model = tiny_model(architecture)
    model = adapted(model) if lora else model
    source = online_source(model, Reference(model=tiny_model(architecture, seed=1)), temperature)
    (batch,) = source.batches(0, 1)
    algorithm, trained = algorithm_on(name, model, temperature)
    raw = source.with_values(batch, algorithm.critic) if name in PPO_FORMS else batch
    step = Bench(algorithm=algorithm, trained=trained, raw=raw).gradient(micro_batch_tokens=64)
    assert step.metrics["log_ratio_max"] <= 1e-5
    assert step.metrics.get("clip_fraction", 0) == 0
    assert step.metrics["approx_kl"] == pytest.approx(0, abs=1e-9)


def algorithm_on(name: str, model: nn.Module, temperature: float) -> tuple[Any, nn.Module]:
    if name not in PPO_FORMS:
        return critic_free_algorithm(name, model, penalty(), temperature), model
    critic = Critic(ValueHead(32), None if name == "ppo trunk" else tiny_model("llama", seed=3).base_model)
    ppo = PPO(model, critic, PPOConfig(), penalty(), temperature)
    return ppo, nn.ModuleDict({"policy": model, "critic": critic})


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_reference_of_an_adapted_policy_is_what_it_was_before(temperature):
    before = Reference(model=policy())
    model = adapted(policy())
    inside = Reference(model=model, mode=lambda: reference_mode(model))
    batch = online_source(model, before, temperature).rollout([EncodedPrompt(prompt="", tokens=(5, 6), key=0)], 3)
    measured = inside.logprobs(batch.rollout, temperature, 64)
    torch.testing.assert_close(measured, batch.rollout.ref_logprobs, rtol=1e-5, atol=1e-5)
    assert (measured - batch.rollout.logprobs).abs().max() > 0.01


def test_a_rollout_knows_its_reference_at_the_temperature_of_its_samples():
    """Plain transformers on each response alone; every sampled token counts, the one that ends a response too."""
    model, other = policy(), policy(1)
    source = online_source(model, Reference(model=other), 0.7)
    (batch,) = source.batches(0, 1)
    assert batch.response_mask.all()
    assert batch.finished.any()
    prompts = batch.prompt_tokens.split(batch.prompt_lengths.tolist())
    responses = cut_into_responses(batch, batch.response_tokens)
    for network, found in ((model, batch.logprobs), (other, batch.ref_logprobs)):
        with torch.no_grad():
            for i, logprobs in enumerate(cut_into_responses(batch, found)):
                prompt, response = prompts[batch.prompt_of_response[i]], responses[i]
                logits = network(input_ids=torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
                expected = (logits / 0.7).log_softmax(-1).gather(1, response[:, None]).squeeze(1)
                torch.testing.assert_close(logprobs, expected, rtol=1e-5, atol=1e-5)


def test_values_of_a_rollout_are_those_that_the_loss_sees():
    """Otherwise the first value loss would already be clipped."""
    bench = BENCHES["ppo separate"]()
    source = online_source(bench.trained["policy"], Reference(model=policy(1)), 1.0)
    (batch,) = source.critic_batches(bench.trained["critic"], 0, 1)
    assert isinstance(batch, CriticRollout)
    own = own_values(Bench(algorithm=bench.algorithm, trained=bench.trained, raw=batch))
    torch.testing.assert_close(batch.values, own.detach(), rtol=1e-5, atol=1e-6)


def test_updates_are_named_by_their_number_alone():
    """Update 2 is the same whether or not 0 and 1 came before it, and no two are alike."""
    source = online_source(policy(), Reference(model=policy(1)), 1.0)
    first = list(source.batches(0, 3))
    (again,) = source.batches(2, 3)
    assert torch.equal(first[2].response_tokens, again.response_tokens)
    assert torch.equal(first[2].logprobs, again.logprobs)
    assert not torch.equal(first[0].response_tokens, first[1].response_tokens)


def test_the_adaptive_coefficient_counts_episodes():
    kl = KLPenalty(KLConfig(controller="adaptive", initial=0.1, target=6.0, horizon=1000), 0.1)
    kl.observe(60.0, 50)  # far above the target: 1 + 0.2 · 50 / 1000
    assert kl.coefficient == pytest.approx(0.101)
    kl.observe(0.0, 100)
    assert kl.coefficient == pytest.approx(0.101 * 0.98)
    fixed = KLPenalty(KLConfig(controller="fixed", initial=0.1), 0.1)
    fixed.observe(60.0, 50)
    assert fixed.coefficient == 0.1
