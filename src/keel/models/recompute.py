"""Gradient checkpointing (Chen et al. 2016): layers keep their inputs, and run again in the backward pass.

transformers' own switch works in training mode only, and RL trains in eval mode, where no dropout disturbs the first
ratio. So each layer is wrapped here, by the same `torch.utils.checkpoint`, without a look at the mode.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from keel.models.layers import decoder_layers


def recompute_layers(trunk: nn.Module) -> None:
    """From now on the layers of a transformers trunk keep only their input where a gradient is wanted.

    All but the last: it is the first that the backward pass needs, and would be thrown away only to be made again.
    """
    for layer in decoder_layers(trunk)[1][:-1]:
        layer.forward = partial(_again, layer.forward)  # type: ignore[method-assign]


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False)
