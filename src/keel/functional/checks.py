"""Cheap checks on entry, so that a silent broadcast becomes an error with names in it."""

import torch
from torch import Tensor


def same_shape(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors have one shape. Broadcasting [B, 1] against [B] is how losses go wrong."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"these must have one shape, found {found}")


def boolean(**masks: Tensor) -> None:
    """Raise TypeError unless every mask is bool: `~` on an integer mask is not its opposite."""
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise TypeError(f"{name} must be bool, True where a position counts, found {mask.dtype}")
