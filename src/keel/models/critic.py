"""The critic: expected return before each response token."""

import torch
from torch import Tensor, nn

from keel.batch.types import Packed
from keel.models.packed import forward_hidden


class Critic(nn.Module):
    """A value head on the policy's trunk, or on a trunk of its own.

    `trunk` None reads the policy's hidden states, so that the value loss also shapes the policy's trunk.
    """

    def __init__(self, head: nn.Module, trunk: nn.Module | None) -> None:
        super().__init__()
        self.value_head = head
        self.trunk = trunk

    def values(self, packed: Packed, policy_hidden: Tensor | None = None) -> Tensor:
        """[R] value of the state that each response token was chosen in; 0 where no state precedes it.

        `policy_hidden` [T, H] are the policy's final hidden states, needed when the critic has no trunk.
        """
        hidden = policy_hidden if self.trunk is None else forward_hidden(self.trunk, packed)
        if hidden is None:
            raise ValueError("a critic without a trunk needs the policy's hidden states")
        source = packed.source.to(hidden.device)
        values = self.value_head(hidden.index_select(0, source.clamp(min=0))).squeeze(-1).float()
        return torch.where(source >= 0, values, 0.0)
