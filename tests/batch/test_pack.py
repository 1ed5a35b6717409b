"""The packed row on paper."""

import torch

from keel.batch.pack import pack
from keel.batch.types import TokenBatch


def ragged(prompts: list[list[int]], responses: list[list[list[int]]]) -> TokenBatch:
    flat = [response for group in responses for response in group]
    tokens = [token for response in flat for token in response]
    return TokenBatch(
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int64),
        fanout=torch.tensor([len(group) for group in responses], dtype=torch.int64),
        prompt_tokens=torch.tensor([token for prompt in prompts for token in prompt], dtype=torch.int64),
        response_lengths=torch.tensor([len(response) for response in flat], dtype=torch.int64),
        response_tokens=torch.tensor(tokens, dtype=torch.int64),
        response_mask=torch.ones(len(tokens), dtype=torch.bool),
    )


def test_responses_follow_their_prompt_and_continue_its_positions():
    packed = pack(ragged([[10, 11], [20]], [[[1, 2, 3], [4]], [[5, 6]]]))
    #                         prompt   first    second  prompt  its response
    assert packed.tokens.tolist() == [10, 11, 1, 2, 3, 4, 20, 5, 6]
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 2, 0, 1, 2]
    assert packed.layout == ((2, (3, 1)), (1, (2,)))
    assert packed.source.tolist() == [1, 2, 3, 1, 6, 7]
    assert packed.target.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.last.tolist() == [4, 5, 8]


def test_nothing_predicts_the_first_token_behind_an_empty_prompt():
    packed = pack(ragged([[], [7]], [[[1, 2], [3]], [[4]]]))
    assert packed.tokens.tolist() == [1, 2, 3, 7, 4]
    assert packed.positions.tolist() == [0, 1, 0, 0, 1]
    assert packed.source.tolist() == [-1, 0, -1, 3]
    assert packed.last.tolist() == [1, 2, 4]


def test_prompts_without_responses_are_packed_too():
    packed = pack(ragged([[1, 2], [3]], [[], []]))
    assert packed.tokens.tolist() == [1, 2, 3]
    assert packed.positions.tolist() == [0, 1, 0]
    assert packed.layout == ((2, ()), (1, ()))
    assert len(packed.source) == len(packed.last) == 0


def test_an_empty_batch_packs_to_an_empty_row():
    packed = pack(ragged([], []))
    assert len(packed.tokens) == 0
    assert packed.layout == ()


def test_packing_chosen_rows_equals_packing_them_alone():
    batch = ragged([[1], [2, 3], [4]], [[[5], [6, 7]], [[8]], [[9, 10, 11]]])
    alone = pack(ragged([[4], [1]], [[[9, 10, 11]], [[5], [6, 7]]]))
    chosen = pack(batch.rows(torch.tensor([2, 0])))
    assert chosen.layout == alone.layout
    for name in ("tokens", "positions", "source", "target", "last"):
        assert getattr(chosen, name).tolist() == getattr(alone, name).tolist()
