"""The critic: expected return before each response token."""

import torch
from torch import Tensor, nn

from keel.batch.types import Packed
from keel.models.packed import hidden_before


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

        `policy_hidden` [R, H] is the policy's `hidden_before`, needed when the critic has no trunk.
        """
        hidden = policy_hidden if self.trunk is None else hidden_before(self.trunk, packed)
        if hidden is None:
            raise ValueError("a critic without a trunk needs the policy's hidden states")
        values = self.value_head(hidden).squeeze(-1).float()
        return torch.where(packed.source.to(hidden.device) >= 0, values, 0.0)
