"""The comparison with peers: what it refuses, what it reports, how it counts."""

import gzip
import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
WORDS = ("the", "pan", "is", "hot", "so", "wait", "until", "it", "cools", "then", "wash", "with", "soap", "please")


@pytest.fixture(scope="module")
def compare():
    """benchmarks/compare.py as a module; it finds its neighbours by itself."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("compare", BENCHMARKS / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = before


@pytest.fixture(scope="module")
def hh(tmp_path_factory) -> Path:
    """A folder as HH writes it, 60 short dialogues."""
    rng = random.Random(0)

    def text(words: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(words))

    folder = tmp_path_factory.mktemp("hh")
    with gzip.open(folder / "train.jsonl.gz", "wt", encoding="utf-8") as file:
        for _ in range(60):
            prompt = f"\n\nHuman: {text(rng.randint(3, 12))}?\n\nAssistant:"
            pair = {"chosen": f"{prompt} {text(rng.randint(3, 12))}.", "rejected": f"{prompt} {text(5)}!"}
            file.write(json.dumps(pair) + "\n")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def small(hh: Path, cache: Path, *more: str) -> list[str]:
    sizes = ["--model", "tiny", "--vocabulary", "300", "--batch", "2", "--steps", "2", "--warmup", "1"]
    return [*sizes, "--repeats", "1", "--keel-only", "--data", str(hh), "--cache", str(cache), *more]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dppo"], "invalid choice: 'dppo'"),
        (["sft", "--steps", "0"], "--steps 0: expected 1 or more"),
        (["rloo", "--samples", "1"], "rloo compares the samples of a prompt"),
        (["grpo", "--samples", "1"], "grpo compares the samples of a prompt"),
        (["sft", "--one-trunk"], "sft has none"),
        (["ppo", "--ending-tokens", "4"], "knows one token that ends a response only"),
        (["sft", "--model", "no such folder"], "nor a folder with config.json"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_what_was_expected(compare, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        compare.parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_data_folder_is_named_with_the_remedy(compare, capsys, tmp_path):
    assert compare.main(["sft", "--keel-only", "--data", str(tmp_path), "--cache", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path} holds no train.jsonl.gz" in said
    assert "--data" in said


def test_more_steps_than_records_are_refused(compare, capsys, hh, cache):
    assert compare.main(["sft", *small(hh, cache, "--steps", "1000")]) == 1
    assert "needs 2002 records" in capsys.readouterr().err


def test_a_run_of_keel_alone_reports_its_raw_record_and_its_ratio_to_the_floor(compare, capsys, hh, cache):
    assert compare.main(["sft", *small(hh, cache, "--json")]) == 0
    report = json.loads(capsys.readouterr().out)
    keel = report["keel"]
    assert set(report) == {"stage", "machine", "commit", "load_average", "settings", "keel", "over_floor"}
    assert keel["steps"] == 2
    assert keel["warmup_steps"] == 1
    assert keel["cpu_seconds"] == pytest.approx(sum(keel["cpu_seconds_by_step"]))
    assert keel["memory_added_bytes"] == keel["peak_rss_bytes"] - keel["rss_before_bytes"] > 0
    assert keel["real_tokens_per_second"] == pytest.approx(keel["real_tokens"] / keel["seconds"])
    assert report["over_floor"] == pytest.approx(keel["cpu_seconds"] / keel["floor_cpu_seconds"])
    assert keel["losses"][0] == pytest.approx(5.70, abs=0.2)  # about ln 300: a random model


@pytest.mark.parametrize("stage", ["reward", "dpo", "rloo", "grpo", "ppo", "rollout"])
def test_every_stage_runs_on_keels_side(compare, hh, cache, monkeypatch, stage):
    threads = torch.get_num_threads()
    more = ["--samples", "2"] if stage in ("rloo", "grpo", "rollout") else []
    more += ["--max-new-tokens", "8"] if stage in ("rloo", "grpo", "ppo", "rollout") else []
    job, _ = compare.make_job(compare.parse([stage, *small(hh, cache, *more)]))
    from peers import keel_side  # found through compare's path

    monkeypatch.setattr(keel_side, "matmul_flops_per_second", lambda *shape: 1e11)
    record = keel_side.main(job)
    torch.set_num_threads(threads)
    assert record["steps"] == 2
    assert record["real_tokens"] > 0
    assert record["floor_cpu_seconds"] > 0


def test_ratios_are_the_peers_figures_over_keels(compare):
    def record(tokens, cpu, seconds, memory):
        return {
            "real_tokens_per_cpu_second": tokens / cpu,
            "real_tokens_per_second": tokens / seconds,
            "memory_added_bytes": memory,
        }

    found = compare.ratios(record(1000, 2.0, 2.0, 100), record(1000, 6.0, 10.0, 250))
    assert found == pytest.approx({"cpu_seconds_ratio": 3.0, "memory_ratio": 2.5, "tokens_per_second_ratio": 5.0})


def test_runs_are_merged_by_the_median_of_each_step(compare):
    def one(cpu, memory):
        return {
            "cpu_seconds_by_step": cpu,
            "seconds_by_step": cpu,
            "real_tokens": 90,
            "rss_before_bytes": 0,
            "peak_rss_bytes": memory,
            "memory_added_bytes": memory,
        }

    merged = compare.merged([one([1.0, 5.0], 10), one([9.0, 2.0], 30), one([1.5, 3.0], 20)])
    assert merged["cpu_seconds"] == 1.5 + 3.0
    assert merged["memory_added_bytes"] == 20
    assert merged["real_tokens_per_cpu_second"] == 20


def test_the_floor_counts_a_shared_prompt_once(compare):
    common = sys.modules["common"]
    shape = common.Shape(linear_weights=10, layers=2, attention_width=4, hidden=3, inner=5, vocabulary=7)
    # a prompt of 2 with responses of 1 and 2: 5 tokens; seen 3 + (2 + 1) + (4 + 3) = 13 pairs; 3 positions scored
    assert shape.forward_flops([(2, [1, 2])], 3) == 2 * 5 * 10 + 4 * 2 * 4 * 13 + 2 * 3 * 3 * 7


def test_warm_up_steps_are_left_out_of_time_and_tokens(compare, hh, cache):
    common = sys.modules["common"]
    job, _ = compare.make_job(compare.parse(["sft", *small(hh, cache)]))
    meter = common.Meter(job)
    meter.begin()
    assert [meter.step(tokens) for tokens in (100, 20, 3)] == [False, False, True]
    record = meter.record("keel")
    assert record["real_tokens"] == 23
    assert len(record["cpu_seconds_by_step"]) == record["steps"] == 2


def test_the_nearest_older_release_stands_in_for_one_that_is_not_on_the_registry(compare, tmp_path):
    from peers import environment

    pip = tmp_path / "pip.py"
    pip.write_text("import sys\nsys.exit('ERROR: no match (from versions: 0.9, 1.14.1, 1.15.0, 1.17.0)')\n")
    peer = environment.Peer(package="trl", version="1.16.0")
    assert environment.nearest_version([sys.executable, str(pip)], peer) == "1.15.0"


def test_a_registry_without_the_peer_is_said_to_be_so(compare, tmp_path):
    from peers import environment

    from keel.core.errors import ConfigError

    pip = tmp_path / "pip.py"
    pip.write_text("import sys\nsys.exit('ERROR: could not find a version (from versions: none)')\n")
    with pytest.raises(ConfigError, match="--keel-only"):
        environment.nearest_version([sys.executable, str(pip)], environment.TRL)
