"""The GPU benchmark, tried on the CPU: what it refuses, what it reports, how it counts."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers.flex import on_cpu
from helpers.tiny import tiny_model

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gpu():
    """benchmarks/gpu.py as a module; it finds its neighbours by itself."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("gpu", BENCHMARKS / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def report(gpu, cache, monkeypatch, capsys):
    """Runs a piece as the command line does, and reads what it prints."""
    monkeypatch.setattr(gpu, "matmul_flops_per_second", lambda *shape: 1e11)
    monkeypatch.setattr(gpu, "copy_bytes_per_second", lambda device: 1e10)

    def run(piece: str, *more: str) -> dict:
        from peers import keel_side

        monkeypatch.setattr(keel_side, "matmul_flops_per_second", lambda *shape: 1e11)
        threads = torch.get_num_threads()
        tiny = ["--device", "cpu", "--model", "tiny", "--dtype", "float32", "--batch", "2", "--tokens", "300"]
        sizes = ["--max-new-tokens", "6", "--epochs", "1", "--steps", "2", "--warmup", "1", "--cache", str(cache)]
        assert gpu.main([piece, *tiny, *sizes, "--json", *more]) == 0
        torch.set_num_threads(threads)
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attend"], "invalid choice: 'attend'"),
        (["sft", "--steps", "0"], "--steps 0: expected 1 or more"),
        (["head", "--peer"], "lists what it is compared with anyway"),
        (["sft", "--one-trunk"], "sft has none"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_what_was_expected(gpu, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        gpu.parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_gpu_it_says_how_to_try_the_script(gpu, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["sft"]) == 1
    said = capsys.readouterr()
    assert "torch finds no GPU here" in said.err
    assert "--device cpu --model tiny" in said.err
    assert not said.out


def test_attention_is_measured_in_each_way_and_what_does_not_run_says_why(report, monkeypatch):
    on_cpu(monkeypatch)
    found = report("attention")
    ways = ("flex", "buckets", "padded")
    rows = ("documents", "pairs", "groups of 8")
    assert set(found["results"]) == {f"{row}, {way}" for row in rows for way in ways} | {"documents, varlen"}
    for name, record in found["results"].items():
        if name == "documents, varlen":  # torch has it on CUDA only
            assert "failed" in record
        else:
            assert record["both_seconds"] > 0
            assert record["both_share_of_matmul"] > 0


def test_the_ways_of_attention_compute_the_same(gpu, monkeypatch):
    on_cpu(monkeypatch)
    import gpu_kernels

    layout = [(5, (4, 7)), (3, (6,))]
    inputs = [torch.randn(25, heads, 8) for heads in (4, 2, 2)]
    flex, buckets = (
        gpu_kernels.planned(plan(layout))(*inputs) for plan in (gpu_kernels.FlexPlan, gpu_kernels.PackedPlan)
    )
    padded = gpu_kernels.padded(layout, "cpu")(*inputs)  # [documents, heads, longest, d]
    rows = padded.transpose(1, 2).flatten(2)
    expected = torch.cat([rows[0, :9], rows[1, 5:12], rows[2, :9]])
    torch.testing.assert_close(flex, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(buckets, expected, atol=1e-5, rtol=1e-5)


def test_the_head_is_measured_in_each_way(report):
    found = report("head")
    assert set(found["results"]) >= {"tiled", "tiled, with entropy", "log_softmax", "cross_entropy"}
    assert all(record["both_share_of_matmul"] > 0 for record in found["results"].values())


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo", "grpo", "ppo"])
def test_stages_report_mfu_from_what_the_step_needs(report, stage):
    found = report(stage, *(("--samples", "2") if stage == "grpo" else ()))
    keel = found["results"]["keel"]
    assert keel["steps"] == 2
    assert keel["mfu"] == pytest.approx(keel["flops"] / 1e11 / keel["seconds"])
    assert keel["real_tokens_per_second"] == pytest.approx(keel["real_tokens"] / keel["seconds"])
    assert found["machine"]["device"] == "cpu"


def test_rollouts_are_compared_with_the_time_that_reading_takes(report):
    keel = report("rollout", "--samples", "3")["results"]["keel"]
    limit = keel["decode_bytes"] / 1e10 + keel["prefill_flops"] / 1e11
    assert keel["over_limit"] == pytest.approx(keel["seconds"] / limit)
    assert keel["limit_tokens_per_second"] == pytest.approx(keel["real_tokens"] / limit)


def test_decoding_reads_the_weights_each_step_and_a_shared_prompt_once(gpu):
    from peers import keel_side

    model = tiny_model("llama")
    weights = sum(p.numel() for p in model.base_model.parameters()) * 4
    token = 2 * 2 * 2 * 8 * 4  # keys and values of two layers, two heads of eight, four bytes each
    # responses of 3 and 2 to a prompt of 10, of 1 to one of 5: two steps; prompt 10 twice; said 1 + 2 and 1 before
    found = keel_side.decode_bytes(model, [(10, [3, 2]), (5, [1])])
    assert found == 2 * weights + token * (2 * 10 + 3 + 1)


def test_the_table_shows_figures_and_failures(gpu):
    report = {
        "piece": "attention",
        "settings": {"model": "7b", "dtype": "bfloat16"},
        "machine": {"device": "a GPU"},
        "matmul_flops_per_second": 7e14,
        "copy_bytes_per_second": 4e12,
        "total_seconds": 61.0,
        "commit": "0123456789",
        "results": {
            "flex": {"forward_seconds": 0.002, "both_seconds": 0.007, "both_share_of_matmul": 0.4},
            "varlen": {"failed": "RuntimeError: no kernel"},
        },
    }
    lines = gpu.table(report).splitlines()
    assert "a GPU, which reaches 700 TFLOP/s in matrix products and 4000 GB/s in copies; 61 s in all" in lines[0]
    assert "forward 2.000 ms   with backward 7.000 ms   of matmul 40 %" in lines[1]
    assert "RuntimeError: no kernel" in lines[2]
