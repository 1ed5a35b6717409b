"""flex_attention on the CPU, for tests: PyTorch runs it unfused there, and refuses gradients, which it has."""

import warnings

import pytest
import torch.nn.attention.flex_attention as torch_flex


def on_cpu(patch: pytest.MonkeyPatch) -> None:
    """Let flex_attention run uncompiled on the CPU for one test, gradients included."""
    patch.setattr(torch_flex, "_validate_device", lambda query, key, value: None)
    patch.setattr(torch_flex, "_WARNINGS_SHOWN", {"flex_attention_performance"})
    warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")  # torch asks non-leaf inputs for it
