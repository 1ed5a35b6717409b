import pytest
import torch
from helpers.tiny import tiny_model, tiny_tokenizer

from keel.data.chat import decode_response
from keel.models.generate import InProcessSampler
from keel.train.judge import FunctionScorer, Judge
from keel.train.rollout import EncodedPrompt, Reference, RolloutConfig, RolloutSource, distinct_keys
from keel.train.settings import ShapingConfig

EOS = 2
PROMPTS = [EncodedPrompt(prompt=f"ask {i}", tokens=(1, 10 + i, 11 + i)[: 2 + i % 2], key=100 + i) for i in range(5)]


def source_of(
    *, policy=None, reference=None, prompts=PROMPTS, count=3, samples=2, seed=7, temperature=1.0, function=None
):
    policy = policy or tiny_model()
    tokenizer = tiny_tokenizer()
    scorer = FunctionScorer(function=function or (lambda p, r: [float(len(x)) for x in r]), name="length")
    return RolloutSource(
        policy=policy,
        sampler=InProcessSampler(policy, {EOS}),
        reference=Reference(model=reference or policy),
        judge=Judge(
            scorers={"length": (1.0, scorer)},
            shaping=ShapingConfig(normalise="none", clip=None, missing_eos_ceiling=None),
            max_new_tokens=6,
        ),
        prompts=prompts,
        decode=lambda tokens: decode_response(tokenizer, tokens),
        config=RolloutConfig(
            prompts=count, samples=samples, max_new_tokens=6, temperature=temperature, micro_batch_tokens=40, seed=seed
        ),
    )


def keys(source, update: int) -> list[int]:
    return [prompt.key for prompt in source.prompts_of(update)]


def test_each_pass_takes_every_prompt_once_in_an_order_of_its_own():
    source = source_of(count=5)
    assert sorted(keys(source, 0)) == sorted(keys(source, 1)) == [100, 101, 102, 103, 104]
    assert len({tuple(keys(source, update)) for update in range(6)}) > 1


def test_passes_that_do_not_divide_into_updates_still_take_every_prompt_once():
    source = source_of(count=3)
    drawn = [key for update in range(5) for key in keys(source, update)]
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == sorted(drawn[10:]) == [100, 101, 102, 103, 104]


def test_an_update_larger_than_the_set_repeats_prompts_but_no_random_stream():
    source = source_of(count=12)
    prompts = source.prompts_of(0)
    assert len(prompts) == 12
    streams = distinct_keys(prompts)
    assert len(set(streams)) == 12
    assert set(streams[:5]) == {100, 101, 102, 103, 104}


def test_the_prompts_of_an_update_depend_on_seed_and_number_alone():
    assert keys(source_of(), 3) == keys(source_of(), 3)
    assert [keys(source_of(seed=8), u) for u in range(4)] != [keys(source_of(), u) for u in range(4)]


def test_a_resumed_source_samples_what_it_would_have_sampled():
    whole = list(source_of().batches(0, 3))
    resumed = list(source_of().batches(2, 3))
    assert torch.equal(whole[2].response_tokens, resumed[0].response_tokens)
    assert torch.equal(whole[2].logprobs, resumed[0].logprobs)
    assert not torch.equal(whole[1].response_lengths, whole[2].response_lengths) or not torch.equal(
        whole[1].response_tokens, whole[2].response_tokens
    )


def test_a_policy_that_is_its_own_reference_has_no_kl():
    source = source_of()
    figures = source.rollout(source.prompts_of(0), seed=1).figures()
    assert figures["kl_nats_per_token"] == pytest.approx(0.0, abs=1e-5)
    assert figures["kl_nats_per_sequence"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probabilities_are_those_of_plain_transformers_at_the_sampling_temperature(temperature):
    policy, reference = tiny_model(seed=0), tiny_model(seed=1)
    source = source_of(policy=policy, reference=reference, temperature=temperature)
    rollout = source.rollout(source.prompts_of(0), seed=3).rollout
    prompts = rollout.prompt_tokens.split(rollout.prompt_lengths.tolist())
    responses = rollout.response_tokens.split(rollout.response_lengths.tolist())
    for model, found in ((policy, rollout.logprobs), (reference, rollout.ref_logprobs)):
        wanted = []
        for number, response in enumerate(responses):
            prompt = prompts[int(rollout.prompt_of_response[number])]
            ids = torch.cat([prompt, response])[None]
            logits = model(ids).logits[0, len(prompt) - 1 : -1] / temperature
            wanted.append(logits.log_softmax(-1).gather(1, response[:, None])[:, 0])
        torch.testing.assert_close(found, torch.cat(wanted).detach(), atol=1e-5, rtol=0)


def test_figures_of_a_rollout_are_means_over_responses_and_over_tokens():
    source = source_of(reference=tiny_model(seed=1))
    judged = source.rollout(source.prompts_of(0), seed=3)
    rollout, figures = judged.rollout, judged.figures()
    gaps = (rollout.logprobs - rollout.ref_logprobs).split(rollout.response_lengths.tolist())
    assert figures["kl_nats_per_sequence"] == pytest.approx(
        float(torch.stack([g.sum() for g in gaps]).mean()), abs=1e-5
    )
    assert figures["kl_nats_per_token"] == pytest.approx(float(torch.cat(gaps).mean()), abs=1e-6)
    lengths = [len(text) for text in judged.responses.response_texts]
    assert figures["score_mean"] == pytest.approx(sum(lengths) / len(lengths))
    assert figures["score_length"] == figures["score_mean"] == figures["reward_mean"]
    assert figures["finished_share"] == pytest.approx(float((rollout.response_tokens == EOS).sum() / len(lengths)))


def test_the_judge_sees_each_response_beside_its_own_prompt():
    seen = []

    def function(prompts, responses):
        seen.extend(zip(prompts, responses, strict=True))
        return [0.0] * len(responses)

    source = source_of(function=function)
    prompts = source.prompts_of(0)
    source.rollout(prompts, seed=1)
    assert [prompt for prompt, _ in seen] == [p.text for p in prompts for _ in range(2)]
    assert not any("</s>" in response for _, response in seen)


def test_the_newest_rollout_is_kept_for_whoever_reports():
    source = source_of()
    assert source.last is None
    for rollout in source.batches(0, 2):
        assert source.last.rollout is rollout
