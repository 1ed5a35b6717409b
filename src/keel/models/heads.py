"""Small heads on a trunk's hidden states."""

from torch import Tensor, nn


class ValueHead(nn.Linear):
    """Expected return of hidden states, [..., H] -> [..., 1]; zero at first, so that early advantages are rewards."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, 1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype))
