"""Sampling against the training path, against transformers, and against itself in other company."""

import math

import pytest
import torch
from helpers.tiny import ARCHITECTURES, EOS, VOCAB_SIZE, tiny_model
from scipy import stats

from keel.batch.pack import pack
from keel.batch.types import TokenBatch
from keel.core.errors import ConfigError, DataError, TrainingError
from keel.models import generate
from keel.models.adapters import add_lora
from keel.models.critic import Critic
from keel.models.draw import uniform_numbers
from keel.models.generate import InProcessSampler, Samples
from keel.models.heads import ValueHead
from keel.models.layers import share_layers
from keel.models.packed import hidden_before, lower_states, token_logprobs, transformer
from keel.models.settings import LoraConfig

PROMPT_LENGTHS = (3, 11, 1, 6, 8)
STORED = [0.266733619237722, 0.7224650770608498, 0.09325741176405355]


def prompts(lengths=PROMPT_LENGTHS, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, VOCAB_SIZE, (length,), generator=generator) for length in lengths]


def sample(
    model, given, *, samples=3, max_new_tokens=12, temperature=1.0, seed=0, keys=None, eos=(EOS,), **options
) -> Samples:
    return InProcessSampler(model, set(eos), **options).sample(
        given, samples=samples, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, keys=keys
    )


def responses(drawn: Samples) -> list[list[int]]:
    return [part.tolist() for part in drawn.tokens.split(drawn.lengths.tolist())]


def as_batch(given, drawn: Samples, samples: int) -> TokenBatch:
    return TokenBatch(
        prompt_lengths=torch.tensor([len(prompt) for prompt in given]),
        fanout=torch.full((len(given),), samples),
        prompt_tokens=torch.cat(given),
        response_lengths=drawn.lengths,
        response_tokens=drawn.tokens,
        response_mask=torch.ones(len(drawn.tokens), dtype=torch.bool),
    )


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_counting_the_rows_less_often_as_on_a_gpu_changes_no_sample(name, monkeypatch):
    model, given = tiny_model(name), prompts()
    each = sample(model, given, max_new_tokens=21, eos=(2, 9, 17, 40))
    monkeypatch.setattr(generate, "_count_every", lambda device: generate.COUNT_EVERY)
    rarely = sample(model, given, max_new_tokens=21, eos=(2, 9, 17, 40))
    assert 1 < each.lengths.float().mean() < 20
    assert torch.equal(rarely.tokens, each.tokens)
    assert torch.equal(rarely.lengths, each.lengths)
    assert torch.equal(rarely.finished, each.finished)
    torch.testing.assert_close(rarely.logprobs, each.logprobs, atol=1e-5, rtol=1e-5)
    assert generate._count_every(torch.device("cuda")) == 8


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampler_logprobs_equal_those_of_the_training_path(name, temperature):
    model, given = tiny_model(name), prompts()
    drawn = sample(model, given, temperature=temperature, max_new_tokens=20, eos=(2, 9, 17, 40))
    assert 1 < drawn.lengths.float().mean() < 20
    again, _ = token_logprobs(model, pack(as_batch(given, drawn, 3)), temperature=temperature)
    torch.testing.assert_close(drawn.logprobs, again, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_equals_transformers_generate(name):
    model, plain, given = tiny_model(name), tiny_model(name), prompts()
    drawn = sample(model, given, samples=1, max_new_tokens=20, temperature=0.0, eos=(VOCAB_SIZE,))
    plain.generation_config.eos_token_id = None
    for prompt, response in zip(given, responses(drawn), strict=True):
        out = plain.generate(prompt[None], max_new_tokens=20, do_sample=False, pad_token_id=0)
        assert response == out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_with_the_probabilities_of_the_model(temperature):
    model, given = tiny_model(), prompts((5,))
    drawn = sample(model, given, samples=20_000, max_new_tokens=1, temperature=temperature)
    with torch.no_grad():
        expected = (tiny_model()(input_ids=given[0][None]).logits[0, -1] / temperature).softmax(-1).double() * 20_000
    counts = torch.bincount(drawn.tokens, minlength=VOCAB_SIZE).double()
    common = expected >= 5
    found = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None]])
    assert stats.chisquare(found, wanted * found.sum() / wanted.sum()).pvalue > 0.01


def test_uniform_numbers_are_uniform_and_unrelated_between_rows_and_positions():
    u = uniform_numbers(7, range(50), 8, 100)
    assert u.shape == (400, 100)
    assert 0 <= u.min() < u.max() < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    limit = 4 / math.sqrt(u.numel())
    for one, other in (
        (u[:, 1:], u[:, :-1]),
        (u[1:], u[:-1]),
        (u[8:], u[:-8]),
        (u, uniform_numbers(8, range(50), 8, 100)),
    ):
        assert abs(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]) < limit


def test_uniform_numbers_have_not_changed():
    """Made with the code of the commit that added this test: a change would break every seeded run."""
    torch.testing.assert_close(
        uniform_numbers(1, [2], 1, 3)[0], torch.tensor(STORED, dtype=torch.float64), atol=0, rtol=0
    )


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_what_a_row_draws_does_not_depend_on_its_company(name):
    model, given = tiny_model(name), prompts()
    keys = [11, -3, 2**62, 0, 5]
    together = responses(sample(model, given, samples=4, keys=keys, max_new_tokens=16, eos=(2, 9, 17)))
    for number, prompt in enumerate(given):
        alone = responses(sample(model, [prompt], samples=4, keys=[keys[number]], max_new_tokens=16, eos=(2, 9, 17)))
        assert alone == together[4 * number : 4 * number + 4]
    backwards = sample(model, given[::-1], samples=4, keys=keys[::-1], max_new_tokens=16, eos=(2, 9, 17), max_rows=8)
    reordered = responses(backwards)
    assert [reordered[4 * n : 4 * n + 4] for n in range(5)][::-1] == [together[4 * n : 4 * n + 4] for n in range(5)]


def test_a_group_draws_what_its_first_samples_would_have_drawn_alone():
    model, given = tiny_model(), prompts()
    group, first = responses(sample(model, given, samples=4)), responses(sample(model, given, samples=1))
    assert group[::4] == first
    assert len({tuple(response) for response in group}) > 10


def test_rows_that_end_leave_without_disturbing_the_others():
    model, given, ends = tiny_model(), prompts(), {2, 9, 17, 40}
    endless = responses(sample(model, given, samples=4, max_new_tokens=24, eos=()))
    drawn = sample(model, given, samples=4, max_new_tokens=24, eos=ends)
    assert 0 < drawn.finished.sum() < 20
    for response, longer, finished in zip(responses(drawn), endless, drawn.finished.tolist(), strict=True):
        assert response == longer[: len(response)]
        assert finished == (response[-1] in ends)
        assert finished or len(response) == 24
        assert not ends & set(response[:-1])


def test_other_seeds_and_keys_draw_other_responses():
    model, given = tiny_model(), prompts()
    base = responses(sample(model, given))
    assert base == responses(sample(model, given, keys=range(5)))
    assert base != responses(sample(model, given, seed=1))
    assert base != responses(sample(model, given, keys=range(1, 6)))


def test_samples_are_ordinary_tensors_and_the_model_is_as_it_was():
    model = tiny_model().train()
    drawn = sample(model, prompts())
    assert model.training
    assert not any(x.is_inference() for x in (drawn.tokens, drawn.lengths, drawn.logprobs, drawn.finished))
    assert drawn.tokens.dtype == drawn.lengths.dtype == torch.int64
    assert drawn.logprobs.dtype == torch.float32
    batch = as_batch(prompts(), drawn, 3)
    token_logprobs(model, pack(batch))[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_model_with_adapters_samples_with_them():
    model = add_lora(tiny_model(), LoraConfig(rank=4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(len(name)))
    given = prompts()
    drawn = sample(model, given)
    again, _ = token_logprobs(model, pack(as_batch(given, drawn, 3)))
    torch.testing.assert_close(drawn.logprobs, again, atol=1e-5, rtol=1e-5)
    with model.disable_adapter():
        assert responses(sample(model, given)) != responses(drawn)
        assert responses(sample(model, given)) == responses(sample(tiny_model(), given))


def test_half_precision_samples_too():
    model, given = tiny_model().to(torch.bfloat16), prompts()
    drawn = sample(model, given)
    again, _ = token_logprobs(model, pack(as_batch(given, drawn, 3)))
    assert drawn.logprobs.dtype == torch.float32
    torch.testing.assert_close(drawn.logprobs, again, atol=0.2, rtol=0.05)


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(DataError, match="prompt 1 has no tokens"):
        sample(tiny_model(), [torch.tensor([5]), torch.tensor([], dtype=torch.int64)])


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers():
    with pytest.raises(DataError, match=r"prompt 0 has 250 tokens; with max_new_tokens=12 .* context of 256"):
        sample(tiny_model(), prompts((250,)))


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="temperature=-1"):
        sample(tiny_model(), prompts(), temperature=-1.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@torch.no_grad()
def test_a_diverged_policy_is_named_and_not_sampled_from(temperature):
    model = tiny_model()
    model.lm_head.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"not finite.*learning_rate"):
        sample(model, prompts(), temperature=temperature)


@pytest.mark.parametrize("max_new_tokens", [4, 40])
def test_what_shared_layers_say_is_kept_of_every_token(max_new_tokens):
    """Of prompts, of tokens that end a response, and of the last before the limit: as a pass over all would say."""
    torch.manual_seed(0)
    model = add_lora(tiny_model(), LoraConfig(rank=2, last_layers=1))
    share_layers(transformer(model).base_model)
    given = prompts()
    drawn = sample(model, given, max_new_tokens=max_new_tokens, eos=range(20))
    assert drawn.finished.any()
    assert max_new_tokens == 40 or not drawn.finished.all()
    batch = TokenBatch(
        prompt_lengths=torch.tensor(PROMPT_LENGTHS),
        fanout=torch.full((len(given),), 3),
        prompt_tokens=torch.cat(given),
        response_lengths=drawn.lengths,
        response_tokens=drawn.tokens,
        response_mask=torch.ones(len(drawn.tokens), dtype=torch.bool),
    )
    packed = pack(batch)
    states = lower_states(model, packed)
    torch.testing.assert_close(drawn.prompt_states, states[packed.prompt_index], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(drawn.response_states, states[packed.response_index], atol=1e-5, rtol=1e-5)
    plain = sample(add_lora(tiny_model(), LoraConfig(rank=2)), given, max_new_tokens=max_new_tokens, eos=range(20))
    assert torch.equal(plain.tokens, drawn.tokens)
    assert plain.prompt_states is None


def test_a_value_head_is_read_while_sampling():
    """The values are those that a pass over the finished responses would give."""
    model, head = tiny_model(), ValueHead(32)
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(3))
    given = [torch.tensor([5, 6, 7]), torch.tensor([9])]
    drawn = sample(model, given, max_new_tokens=9, value_head=head)
    batch = TokenBatch(
        prompt_lengths=torch.tensor([3, 1]),
        fanout=torch.tensor([3, 3]),
        prompt_tokens=torch.cat(given),
        response_lengths=drawn.lengths,
        response_tokens=drawn.tokens,
        response_mask=torch.ones(len(drawn.tokens), dtype=torch.bool),
    )
    packed = pack(batch)
    with torch.no_grad():
        expected = Critic(head, None).values(packed, hidden_before(model, packed))
    torch.testing.assert_close(drawn.values, expected, atol=1e-5, rtol=1e-5)
    assert sample(model, given).values is None
