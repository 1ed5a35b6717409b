"""Values before each response token, from the policy's trunk or one of their own."""

import pytest
import torch
from helpers.tiny import tiny_model

from keel.batch.types import Packed
from keel.models.critic import Critic
from keel.models.heads import ValueHead
from keel.models.packed import hidden_before

ROW = torch.tensor([5, 6, 7, 8, 9, 10, 11, 12])
PACKED = Packed(  # a prompt of two tokens with responses of two and one, then a response of three without a prompt
    tokens=ROW,
    positions=torch.tensor([0, 1, 2, 3, 2, 0, 1, 2]),
    layout=((2, (2, 1)), (0, (3,))),
    source=torch.tensor([1, 2, 1, -1, 5, 6]),
    target=torch.tensor([7, 8, 9, 10, 11, 12]),
    last=torch.tensor([3, 4, 7]),
    prompt_index=torch.tensor([0, 1]),
    response_index=torch.tensor([2, 3, 4, 5, 6, 7]),
)


def head() -> ValueHead:
    made = ValueHead(32)
    with torch.no_grad():
        made.weight.copy_(torch.linspace(-1, 1, 32))
        made.bias.fill_(0.5)
    return made


def test_a_new_value_head_expects_nothing():
    assert not ValueHead(32)(torch.randn(4, 32)).any()


def test_a_value_is_read_where_the_token_was_chosen():
    model = tiny_model()
    values = Critic(head(), None).values(PACKED, hidden_before(model, PACKED))
    prompted = model.base_model(input_ids=torch.tensor([[5, 6, 7]])).last_hidden_state[0]
    bare = model.base_model(input_ids=torch.tensor([[10, 11]])).last_hidden_state[0]
    states = torch.stack([prompted[1], prompted[2], prompted[1], bare[0], bare[1]])
    expected = (states @ torch.linspace(-1, 1, 32)) + 0.5
    torch.testing.assert_close(values[[0, 1, 2, 4, 5]], expected, atol=1e-5, rtol=1e-5)
    assert values[3] == 0  # nothing precedes the first token behind an empty prompt


def test_a_trunk_of_its_own_is_used_in_place_of_the_policys():
    critic = Critic(head(), tiny_model(seed=1))
    hidden = hidden_before(tiny_model(), PACKED)
    torch.testing.assert_close(critic.values(PACKED, hidden), critic.values(PACKED))
    critic.values(PACKED).sum().backward()
    assert critic.trunk.get_input_embeddings().weight.grad is not None


def test_a_critic_without_a_trunk_needs_the_policys_states():
    with pytest.raises(ValueError, match="hidden states"):
        Critic(head(), None).values(PACKED)
