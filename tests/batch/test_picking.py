"""Picking responses out of a batch, and joining batches."""

import torch
from helpers.benches import policy, rollout

from keel.batch.types import joined


def test_only_keeps_the_prompts_and_the_responses_that_are_named():
    batch = rollout(policy())  # fanout 2, 3, 2, 2, 4
    found = batch.only(torch.tensor([0, 2, 4, 5, 12]))
    assert found.fanout.tolist() == [1, 2, 1, 0, 1]
    assert torch.equal(found.prompt_tokens, batch.prompt_tokens)
    assert torch.equal(found.scores, batch.scores[[0, 2, 4, 5, 12]])
    pieces = batch.logprobs.split(batch.response_lengths.tolist())
    assert torch.equal(found.logprobs, torch.cat([pieces[i] for i in (0, 2, 4, 5, 12)]))
    assert torch.equal(found.response_of_token.unique(), torch.arange(5))


def test_a_batch_cut_in_two_and_joined_is_the_batch():
    batch = rollout(policy())
    batch = batch.with_states(torch.randn(len(batch.prompt_tokens), 3), torch.randn(len(batch.response_tokens), 3))
    again = joined([batch.rows(slice(0, 2)), batch.rows(slice(2, 2)), batch.rows(slice(2, 5))])
    for name, values in batch._tensors():
        assert torch.equal(getattr(again, name), values), name
