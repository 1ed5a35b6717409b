"""The plan for CUDA, computed on the CPU: who sees whom, outputs, gradients, and what is compiled."""

import random

import pytest
import torch
from helpers.flex import on_cpu
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import create_block_mask

from keel.core.errors import ArtifactError, ConfigError
from keel.models import flex
from keel.models.flex import BLOCK, VARIABLE, FlexPlan, plan_for
from keel.models.plan import Layout, PackedPlan

WINDOWS = (None, 1, 6, 50, 129, 1000)
BLOCK_FIELDS = (
    "kv_num_blocks",
    "kv_indices",
    "full_kv_num_blocks",
    "full_kv_indices",
    "q_num_blocks",
    "q_indices",
    "full_q_num_blocks",
    "full_q_indices",
)


def random_layout(seed: int) -> Layout:
    """One to five prompts of up to 300 tokens, some empty or without a response, with up to four responses."""
    rng = random.Random(seed)
    lengths = (1, 2, 7, 30, 127, 128, 129, 200)
    layout = [
        (rng.choice((0, *lengths, 300)), tuple(rng.choice(lengths) for _ in range(rng.choice((0, 1, 1, 2, 4)))))
        for _ in range(rng.randint(1, 5))
    ]
    return layout if sum(p + sum(r) for p, r in layout) else [(1, ()), *layout]


def seen_by_definition(layout: Layout, window: int | None) -> Tensor:
    """[T, T] True where a token may look: at its prompt and its own response, never ahead or at a sibling."""
    prompt, response, position = [], [], []
    for number, (prompt_length, lengths) in enumerate(layout):
        for branch, length in enumerate((prompt_length, *lengths)):
            prompt += [number] * length
            response += [branch] * length
            position += range(prompt_length if branch else 0, length + (prompt_length if branch else 0))
    group, branch, place = (torch.tensor(x) for x in (prompt, response, position))
    behind = place[:, None] - place
    sees = (group[:, None] == group) & (behind >= 0) & ((branch == 0) | (branch[:, None] == branch))
    return sees if window is None else sees & (behind < window)


def inputs(tokens: int, heads: tuple[int, int], seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query_heads, kv_heads = heads
    shapes = [(tokens, h, 8) for h in (query_heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_and_its_blocks_are_what_the_definition_says(seed):
    layout = random_layout(seed)
    for window in WINDOWS:
        expected = seen_by_definition(layout, window)
        plan = FlexPlan(layout)
        sight, blocks = flex._mask(plan.segments, window)
        own, prompt, prompt_end = sight

        def seen(b, h, q, k, own=own, prompt=prompt, prompt_end=prompt_end):
            return ((k >= own[q]) & (k <= q)) | ((k >= prompt[q]) & (k < prompt_end[q]))

        places = torch.arange(len(own))
        dense = seen(None, None, places[:, None], places)
        tokens = len(expected)
        assert torch.equal(dense[:tokens, :tokens], expected)
        assert torch.equal(dense[tokens:], torch.eye(len(own), dtype=torch.bool)[tokens:])  # padding sees itself
        wanted = create_block_mask(seen, 1, 1, len(own), len(own), device="cpu", BLOCK_SIZE=BLOCK)
        for found, name in zip(blocks, BLOCK_FIELDS, strict=True):
            assert torch.equal(found, getattr(wanted, name)), (window, name)


@pytest.fixture
def flex_on_cpu(monkeypatch):
    on_cpu(monkeypatch)


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize("heads", [(4, 2), (3, 3), (6, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_outputs_and_gradients_equal_those_of_the_buckets(seed, heads):
    layout = random_layout(100 + seed)[:2]
    tokens = sum(p + sum(r) for p, r in layout)
    weights = torch.randn(tokens, heads[0] * 8, generator=torch.Generator().manual_seed(9))
    for window, softcap, scale in ((None, None, None), (6, None, 0.3), (50, 2.0, None), (None, 2.0, 0.2)):
        results = []
        for plan in (FlexPlan(layout), PackedPlan(layout)):
            given = inputs(tokens, heads, seed)
            out = plan.attend(0, *given, scale=scale, dropout=0.0, window=window, softcap=softcap)
            (out * weights).sum().backward()
            results.append((out, *(x.grad for x in given)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("flex_on_cpu")
def test_one_compiled_kernel_serves_all_layouts_and_windows_with_gradients():
    counter = CompileCounterWithBackend("aot_eager")
    kernel = torch.compile(flex._attend, fullgraph=True, backend=counter)
    for seed in range(8):
        layout = random_layout(seed)
        tokens = sum(p + sum(r) for p, r in layout)
        results = []
        for plan in (FlexPlan(layout), PackedPlan(layout)):
            if isinstance(plan, FlexPlan):
                plan.kernel = kernel
            given = inputs(tokens, (4, 2), seed)
            out = plan.attend(0, *given, scale=None, dropout=0.0, window=WINDOWS[seed % 6], softcap=None)
            out.square().sum().backward()
            results.append((out, *(x.grad for x in given)))
        for found, expected in zip(*results, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1


@pytest.mark.parametrize("changes", [{"dropout": 0.5}, {"dtype": torch.float64}])
def test_what_the_kernel_does_not_compute_goes_through_the_buckets(changes):
    layout, dtype = [(5, (4, 3)), (2, (6,))], changes.get("dtype", torch.float32)
    options = {"scale": None, "dropout": changes.get("dropout", 0.0), "window": None, "softcap": None}
    results = []
    for plan in (FlexPlan(layout), PackedPlan(layout)):
        torch.manual_seed(0)
        results.append(plan.attend(0, *inputs(20, (4, 2), 0, dtype), **options))
    assert torch.equal(*results)


def test_a_kernel_that_does_not_compile_is_explained_with_the_way_out():
    def broken(*given):
        raise torch._dynamo.exc.TorchDynamoException("no such instruction")

    plan = FlexPlan([(5, (4,))])
    plan.kernel = broken
    with pytest.raises(ArtifactError, match=r"4 heads of 8 in torch\.float32.*KEEL_ATTENTION=buckets"):
        plan.attend(0, *inputs(9, (4, 2), 0), scale=None, dropout=0.0, window=None, softcap=None)


def test_the_device_decides_unless_someone_else_does(monkeypatch):
    layout = [(5, (4,))]
    monkeypatch.delenv(VARIABLE, raising=False)
    assert isinstance(plan_for(layout, "cpu"), PackedPlan)
    assert isinstance(plan_for(layout, "cpu", "flex"), FlexPlan)
    monkeypatch.setenv(VARIABLE, "flex")
    assert isinstance(plan_for(layout, "cpu"), FlexPlan)
    assert isinstance(plan_for(layout, "cpu", "buckets"), PackedPlan)
    monkeypatch.setenv(VARIABLE, "flash")
    with pytest.raises(ConfigError, match="expected one of flex, buckets"):
        plan_for(layout, "cpu")


@pytest.mark.parametrize(("triton", "kind"), [(True, "flex"), (False, "buckets")])
def test_cuda_gets_the_kernel_where_triton_works(monkeypatch, triton, kind):
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: triton)
    flex._default.cache_clear()
    assert flex._default("cuda") == kind
    assert flex._default("cpu") == "buckets"
    flex._default.cache_clear()
