"""Laws that every algorithm obeys (SCIENCE T7)."""

import pytest
import torch
from helpers.benches import ADVANTAGED, BENCHES, cut_into_responses, poisoned, reward_model, tokens, unshared

from keel.batch.pack import pack
from keel.models.packed import forward_hidden, token_logprobs

every_algorithm = pytest.mark.parametrize("name", BENCHES)


@every_algorithm
@pytest.mark.parametrize("micro_batch_tokens", [1, 40])
def test_the_gradient_does_not_depend_on_how_the_batch_is_split(name, micro_batch_tokens):
    bench = BENCHES[name]()
    bench.gradient(micro_batch_tokens=micro_batch_tokens).assert_close(bench.gradient(), 1e-6)


@every_algorithm
def test_the_order_of_the_rows_does_not_matter(name):
    bench = BENCHES[name]()
    batch = bench.algorithm.prepare(bench.raw)
    shuffled = batch.rows(torch.tensor([3, 0, 4, 2, 1]))
    bench.gradient(shuffled).assert_close(bench.gradient(batch), 2e-6)


@every_algorithm
def test_what_does_not_count_may_be_nan(name):
    bench = BENCHES[name]()
    clean, poison = (bench.algorithm.prepare(poisoned(bench.raw, value)) for value in (0.0, float("nan")))
    bench.gradient(poisoned(poison, float("nan"))).assert_close(bench.gradient(poisoned(clean, 0.0)), 0.0)


@pytest.mark.parametrize("name", ["sft", *ADVANTAGED])
def test_a_shared_prompt_is_as_good_as_copies_of_it(name):
    bench = BENCHES[name]()
    batch = bench.algorithm.prepare(bench.raw)
    bench.gradient(unshared(batch)).assert_close(bench.gradient(batch))


@pytest.mark.parametrize("form", ["head", "implicit", "hybrid"])
def test_a_score_does_not_depend_on_who_shares_the_prompt(form):
    model, batch = reward_model(form), tokens(whole=True)
    together, alone = model.score(pack(batch)), model.score(pack(unshared(batch)))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad(scores.square().sum(), parameters) for scores in (together, alone)]
    for mine, theirs in zip(*gradients, strict=True):
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()


@torch.no_grad()
@pytest.mark.parametrize("form", ["implicit", "hybrid"])
def test_an_implicit_score_is_beta_times_the_log_ratio_of_the_response(form):
    """Summed, not averaged, over its tokens; the hybrid form adds what the head reads off the last one."""
    model, batch = reward_model(form), tokens(whole=True)
    packed = pack(batch)
    log_ratio = token_logprobs(model.network, packed)[0] - token_logprobs(model.reference, packed)[0]
    expected = 0.1 * torch.stack([response.sum() for response in cut_into_responses(batch, log_ratio)])
    if form == "hybrid":
        expected += model.head(forward_hidden(model.network, packed)[packed.last]).squeeze(1)
    torch.testing.assert_close(model.score(packed), expected, rtol=1e-5, atol=1e-5)
