"""Laws of DPO and its kin: where it starts, what moves it and what does not (SCIENCE 1.6)."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.benches import BENCHES, PREFERENCE, WITH_REFERENCE, Bench, pairs, policy, preferences, referred
from torch import Tensor
from torch.nn.functional import logsigmoid

from keel.algorithms.preference import pair_figures
from keel.batch.pack import pack
from keel.functional.preference_losses import dpo
from keel.models.adapters import add_lora, reference_mode
from keel.models.packed import token_logprobs
from keel.models.settings import LoraConfig

preference = pytest.mark.parametrize("name", PREFERENCE)
BETA = 0.1


def at_the_reference(name: str, **changes: Tensor) -> Bench:
    """A bench whose policy is still its reference."""
    bench = BENCHES[name]()
    return replace(bench, raw=replace(preferences(ref=policy()), **changes))


@pytest.mark.parametrize("name", ["dpo", "dpo robust"])
def test_the_first_loss_is_that_of_a_coin(name):
    """Whatever the labels say and whatever is thought of them; without margins."""
    metrics = at_the_reference(name, margin=torch.zeros(5)).gradient().metrics
    assert metrics["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert metrics["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert metrics["chosen_log_ratio"] == pytest.approx(0, abs=1e-4)
    assert metrics["chosen_logprob"] < 0


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_ties_leave_a_policy_that_is_its_reference_where_it_is(name):
    bench = at_the_reference(name, preference=torch.full((5,), 0.5))
    assert max(g.abs().max() for g in bench.gradient().gradients.values()) < 1e-5


@preference
def test_which_response_comes_first_does_not_matter(name):
    """Responses of every pair exchanged, and preferences with them."""
    bench, batch = BENCHES[name](), preferences()
    pieces = batch.response_lengths.tolist()
    order = torch.arange(10).view(5, 2).flip(1).flatten().tolist()

    def swapped(values: Tensor) -> Tensor:
        parts = values.split(pieces)
        return torch.cat([parts[i] for i in order])

    other = replace(
        batch,
        response_tokens=swapped(batch.response_tokens),
        response_mask=swapped(batch.response_mask),
        response_lengths=batch.response_lengths[order],
        sequence_ref_logprobs=batch.sequence_ref_logprobs[order],
        preference=1 - batch.preference,
    )
    bench.gradient(other).assert_close(bench.gradient(batch), 1e-5)


def test_loss_and_gradient_are_those_of_trl():
    """Its formula, -logsigmoid(beta · ((log pi - log ref) of chosen - the same of rejected)), by plain transformers."""
    batch = replace(pairs(), preference=torch.ones(5), weight=torch.ones(5), margin=torch.zeros(5))
    bench = replace(BENCHES["dpo"](label_smoothing=0.0), raw=referred(batch, policy(1)))
    theirs, reference = policy(), policy(1)

    def said(network: torch.nn.Module) -> list[Tensor]:
        prompts = batch.prompt_tokens.split(batch.prompt_lengths.tolist())
        found = []
        for i, response in enumerate(batch.response_tokens.split(batch.response_lengths.tolist())):
            row = torch.cat([prompts[i // 2], response])
            logp = network(input_ids=row[None]).logits[0, :-1].log_softmax(-1).gather(1, row[1:, None])
            found.append(logp[-len(response) :].sum())
        return found

    scores = [mine - ref.detach() for mine, ref in zip(said(theirs), said(reference), strict=True)]
    loss = torch.stack([-logsigmoid(BETA * (scores[2 * i] - scores[2 * i + 1])) for i in range(5)]).mean()
    step = bench.gradient()
    assert step.metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    named = dict(theirs.named_parameters())
    expected = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    for name, gradient in step.gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


def test_the_gradient_pushes_harder_where_the_policy_is_more_wrong():
    """-beta · sigmoid(-beta · lead) on the log-probability of the chosen one, the opposite on the rejected one."""
    leads = torch.tensor([-30.0, 0.0, 30.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(dpo(leads, torch.zeros(3), torch.ones(3), BETA).sum(), leads)
    torch.testing.assert_close(gradient, -BETA * torch.sigmoid(-BETA * leads.detach()))


@torch.no_grad()
def test_a_reference_inside_the_adapters_says_what_a_copy_says():
    """The pass before training loads the policy without adapters; with adapters off it is the same network."""
    torch.manual_seed(0)
    model, batch = add_lora(policy(), LoraConfig(rank=4, alpha=8)).eval(), preferences()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.add_(0.1 * torch.randn_like(parameter))
    with reference_mode(model):
        inside = batch.sum_per_response(token_logprobs(model, pack(batch))[0])
    apart = batch.sum_per_response(token_logprobs(policy(), pack(batch))[0])
    torch.testing.assert_close(inside, apart, rtol=1e-5, atol=1e-5)
    outside = batch.sum_per_response(token_logprobs(model, pack(batch))[0])
    assert (outside - apart).abs().max() > 0.01


def test_accuracy_counts_decided_pairs_and_a_pair_without_a_lead_for_half():
    batch = preferences()  # preferences 1, 0, 0.5, 0.75, 0.2
    log_ratios = torch.tensor([1.0, 0.0, 1.0, 0.0, 3.0, 0.0, 2.0, 2.0, -1.0, 1.0])
    figures = pair_figures(BETA * log_ratios, log_ratios + batch.sequence_ref_logprobs, batch)
    assert float(figures["accuracy"]) == pytest.approx(1 + 0 + 0.5 + 1, abs=0.01)  # of four decided
    assert float(figures["reward_margin"]) == pytest.approx(BETA * (1 - 1 + 0 + 2), abs=1e-4)
    assert float(figures["chosen_log_ratio"]) == pytest.approx(1 + 0 + 2 + 1, abs=1e-4)
    assert float(figures["rejected_log_ratio"]) == pytest.approx(0 + 1 + 2 - 1, abs=1e-4)
