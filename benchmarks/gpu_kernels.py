"""What the kernels do on one device, apart from any stage: the attention of one layer, and the output layer."""

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from common import begin_memory, peak_memory, wait
from peers.material import LlamaShape
from torch import Tensor
from torch.nn import functional as F

from keel.core.errors import KeelError
from keel.core.seed import generator
from keel.functional.logprobs import token_logprobs
from keel.models.attention import Plan
from keel.models.flex import FlexPlan
from keel.models.plan import Layout, PackedPlan

RESPONSES = {"documents": 1, "pairs": 2, "groups of 8": 8}  # to each prompt, by what a row holds

Work = Callable[..., Tensor]  # a forward pass of some tensors, which can be differentiated


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is measured, and how."""

    shape: LlamaShape
    vocabulary: int
    device: str
    dtype: str
    tokens: int
    """Of a row, at least."""
    lengths: tuple[int, int]
    """The shortest and the longest prompt and response; lengths between are equally likely."""
    warmup: int
    repeats: int
    matmul_flops_per_second: float

    def random(self, *size: int) -> Tensor:
        return torch.randn(size, device=self.device, dtype=getattr(torch, self.dtype)).mul_(0.1)


def timed(bench: Bench, forward: Work, inputs: Sequence[Tensor], flops: float) -> dict[str, Any]:
    """Medians of the seconds that `forward` takes, alone and with its backward pass, and the memory that both add.

    `flops` are the operations that both need. What does not run here says so instead.
    """
    trained = [x.detach().requires_grad_() for x in inputs]

    def seconds(backward: bool) -> float:
        found = []
        for _ in range(bench.warmup + bench.repeats):
            wait(bench.device)
            begun = time.perf_counter()
            with torch.set_grad_enabled(backward):
                out = forward(*(trained if backward else inputs))
                if backward:
                    torch.autograd.grad(out, trained, torch.ones_like(out))
            wait(bench.device)
            found.append(time.perf_counter() - begun)
        return statistics.median(found[bench.warmup :])

    record: dict[str, Any] = {}
    try:
        record["forward_seconds"] = seconds(backward=False)
        before = begin_memory(bench.device)
        record["both_seconds"] = seconds(backward=True)
        record["peak_bytes_added"] = peak_memory(bench.device) - before
        record["both_share_of_matmul"] = flops / record["both_seconds"] / bench.matmul_flops_per_second
    except (RuntimeError, NotImplementedError, ValueError, KeelError) as error:
        record["failed"] = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
    return record


def attention(bench: Bench) -> dict[str, dict[str, Any]]:
    """One layer's attention over a row: in one kernel, in buckets, padded, and for documents by torch's own varlen."""
    shape, found = bench.shape, {}
    size = shape.hidden // shape.heads
    for name, responses in RESPONSES.items():
        layout = layout_of(bench, responses)
        tokens = sum(p + sum(r) for p, r in layout)
        inputs = [bench.random(tokens, heads, size) for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
        ways = {
            "flex": planned(FlexPlan(layout, bench.device)),
            "buckets": planned(PackedPlan(layout, bench.device)),
            "padded": padded(layout, bench.device),
        }
        if responses == 1:
            ways["varlen"] = varlen(layout, bench.device)
        seen = sum(p * (p + 1) / 2 + sum(n * p + n * (n + 1) / 2 for n in r) for p, r in layout)
        flops = 3.5 * 4 * shape.hidden * seen  # two products forward; backward their four, and one again
        for way, forward in ways.items():
            found[f"{name}, {way}"] = timed(bench, forward, inputs, flops)
    return found


def layout_of(bench: Bench, responses: int) -> Layout:
    """As many prompts with their responses as fill a row."""
    drawn, layout, left = generator(0, "layout", responses), [], bench.tokens
    least, most = bench.lengths
    while left > 0:
        prompt, *rest = (int(n) for n in drawn.integers(least, most + 1, 1 + responses))
        layout.append((prompt, tuple(rest)))
        left -= prompt + sum(rest)
    return layout


def planned(plan: Plan) -> Work:
    return lambda q, k, v: plan.attend(0, q, k, v, scale=None, dropout=0.0, window=None, softcap=None)


def padded(layout: Layout, device: str) -> Work:
    """Every prompt with every response alone, padded to the longest."""
    rows, at = [], 0
    for prompt, responses in layout:
        start, at = at, at + prompt
        for length in responses:
            rows.append([*range(start, start + prompt), *range(at, at + length)])
            at += length
    longest = max(map(len, rows))
    index = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)

    def forward(*inputs: Tensor) -> Tensor:
        query, key, value = (x[index].transpose(1, 2) for x in inputs)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    return forward


def varlen(layout: Layout, device: str) -> Work:
    """PyTorch's kernel for documents end to end. It knows no prompts that are shared."""
    from torch.nn.attention.varlen import varlen_attn

    lengths = torch.tensor([0, *(p + sum(r) for p, r in layout)])
    ends, longest = lengths.cumsum(0).to(device, torch.int32), int(lengths.max())
    return lambda q, k, v: varlen_attn(q, k, v, ends, ends, longest, longest, window_size=(-1, 0), enable_gqa=True)


def head(bench: Bench) -> dict[str, dict[str, Any]]:
    """Log-probabilities of a row's tokens from their hidden states: in tiles, from a whole table, and by Liger."""
    weight = bench.random(bench.vocabulary, bench.shape.hidden)
    inputs = [bench.random(bench.tokens, bench.shape.hidden), weight]
    targets = torch.randint(bench.vocabulary, (bench.tokens,), device=bench.device)
    ways: dict[str, Work] = {
        "tiled": lambda hidden, weight: token_logprobs(hidden, weight, targets)[0],
        "tiled, with entropy": lambda hidden, weight: token_logprobs(hidden, weight, targets, with_entropy=True)[0],
        "log_softmax": lambda hidden, weight: (
            F.linear(hidden, weight).float().log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
        ),
        "cross_entropy": lambda hidden, weight: F.cross_entropy(
            F.linear(hidden, weight).float(), targets, reduction="none"
        ),
    }
    if importlib.util.find_spec("liger_kernel") is not None:
        liger = importlib.import_module("liger_kernel.transformers").LigerFusedLinearCrossEntropyLoss(reduction="sum")
        ways["liger"] = lambda hidden, weight: liger(weight, hidden, targets)
    flops = 3 * 2.0 * bench.tokens * bench.shape.hidden * bench.vocabulary
    return {way: timed(bench, forward, inputs, flops) for way, forward in ways.items()}
