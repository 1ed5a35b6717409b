"""The float32 weight behind a bfloat16 parameter, so that small updates are not lost to rounding.

bfloat16 is the upper half of a float32. The model computes with the upper half; the lower half is kept here, and the
two together are the weight that the optimiser moves: as exact as float32, at half the price of a second copy.
"""

import weakref
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

CHUNK = 2**25
"""Numbers whose float32 form exists at a time during a step."""


class WideWeight:
    """A bfloat16 parameter, the 16 bits that it lacks, and its gradient.

    The gradient of one backward pass is held as it came; those of several are added in float32.
    """

    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter
        self.lower = torch.zeros(parameter.shape, dtype=torch.int16, device=parameter.device)
        self.weight = nn.Parameter(self._nothing())
        self.grad: Tensor | None = None
        mine = weakref.ref(self)  # the hook lives as long as the parameter, perhaps longer than its optimiser

        def taken(parameter: Tensor) -> None:
            wide = mine()
            if wide is not None:
                wide.take()

        parameter.register_post_accumulate_grad_hook(taken)

    def take(self) -> None:
        """Move the parameter's gradient here."""
        found, self.parameter.grad = self.parameter.grad, None
        if found is None:
            return
        self.grad = found if self.grad is None else self.grad.float().add_(found)

    def open(self, scale: Tensor) -> None:
        """`weight` is the float32 weight, its gradient the one held times `scale`."""
        assert self.grad is not None
        self.weight.data = joined(self.parameter.data, self.lower)
        self.weight.grad = self.grad.float() * scale.to(self.grad.device)
        self.grad = None

    @torch.no_grad()
    def close(self) -> None:
        """The parameter becomes the moved weight, rounded to nearest; what rounding took is kept."""
        upper, self.lower = halves(self.weight.data)
        self.parameter.copy_(upper)
        self.weight.grad = None
        self.weight.data = self._nothing()

    def _nothing(self) -> Tensor:
        """No numbers, in as many dimensions as the parameter has."""
        return torch.empty((0,) * self.parameter.ndim, dtype=torch.float32, device=self.parameter.device)


def joined(upper: Tensor, lower: Tensor) -> Tensor:
    """The float32 numbers whose `halves` these are."""
    return (upper.contiguous().view(torch.int16).int() << 16).add_(lower).view(torch.float32)


def halves(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float32 numbers rounded to bfloat16 (nearest, ties away from zero), and the int16 that rounding took.

    Taken as integers, the difference lies in [-2^15, 2^15), so that nothing is lost.
    """
    bits = weight.contiguous().view(torch.int32)
    upper = (bits + 0x8000) >> 16
    return upper.short().view(torch.bfloat16), (bits - (upper << 16)).short()


def chunks(wide: Sequence[WideWeight]) -> Iterator[list[WideWeight]]:
    """Those that have a gradient, in runs of at most `CHUNK` numbers; a longer one goes alone."""
    run: list[WideWeight] = []
    size = 0
    for one in wide:
        if one.grad is None:
            continue
        if run and size + one.parameter.numel() > CHUNK:
            yield run
            run, size = [], 0
        run.append(one)
        size += one.parameter.numel()
    if run:
        yield run
