"""keel beside its peer on the same model, data, lengths and thread: `python benchmarks/compare.py STAGE [--json]`.

Both sides run in processes of their own, in turn, `--repeats` times. What is compared is CPU-seconds of the process,
a step's median over the repeats summed over the steps, and the largest resident memory of training less the resident
memory before it. Every ratio is the peer's figure divided by keel's: above 1 keel is better. `over_floor` is keel's
CPU-seconds divided by the time that the step's operations take at the matrix-product rate measured in keel's process.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "src")]

from common import GROUPED, ONLINE, STAGES, Job  # noqa: E402

from keel.core.errors import ConfigError, KeelError, TrainingError  # noqa: E402
from keel.core.seed import derive  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "hh-harmless-base"
MAX_PROMPT_TOKENS = 256  # of the online stages
PEER_SETTINGS = {"sft": ("default", "padding_free")}
SIZES = {  # stage: records or prompts a step, responses a prompt, tokens a response, epochs, steps, warm-up steps
    "sft": (8, 1, 0, 1, 10, 2),
    "reward": (8, 1, 0, 1, 8, 2),
    "dpo": (8, 1, 0, 1, 8, 2),
    "rloo": (4, 8, 64, 1, 4, 1),
    "grpo": (4, 8, 64, 1, 4, 1),
    "ppo": (16, 1, 64, 4, 3, 1),
    "rollout": (16, 4, 64, 1, 4, 1),
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--model", default="7m", help="tiny, 7m, 12m (random Llamas), or a folder with a causal model")
    parser.add_argument("--vocabulary", type=int, default=4096, help="tokens of the tokenizer made for the data")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with HH's train.jsonl.gz")
    parser.add_argument("--max-tokens", type=int, default=512, help="longest prompt plus response")
    parser.add_argument("--batch", type=int, help="records (offline) or prompts (online) per step")
    parser.add_argument("--samples", type=int, help="responses per prompt (online)")
    parser.add_argument("--max-new-tokens", type=int, help="longest response (online)")
    parser.add_argument("--epochs", type=int, help="passes over each rollout (rloo, grpo, ppo)")
    parser.add_argument("--steps", type=int, help="measured steps")
    parser.add_argument("--warmup", type=int, help="steps before the clock starts")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side")
    parser.add_argument("--micro-batch-tokens", type=int, default=2048, help="tokens per forward pass of keel")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="adapters on both sides; 0 trains in full")
    parser.add_argument("--last-layers", type=int, default=0, metavar="N", help="adapters on both sides here only")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of both sides")
    parser.add_argument(
        "--one-trunk",
        action="store_true",
        help="keel's roles share their weights: ppo's critic is a head on the policy, with --lora all are adapters",
    )
    parser.add_argument(
        "--ending-tokens", type=int, default=0, help="further tokens that end a response, so that rows end early"
    )
    parser.add_argument("--keel-only", action="store_true", help="no peer, no ratios to it")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache", help="peers' environments, models")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    names = ("batch", "samples", "max_new_tokens", "epochs", "steps", "warmup")
    for name, value in zip(names, SIZES[options.stage], strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    check(parser, options)
    return options


def check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with a message when the options contradict each other."""
    for name, least in (("batch", 1), ("steps", 1), ("repeats", 1), ("warmup", 0), ("lora", 0), ("vocabulary", 300)):
        if getattr(options, name) < least:
            parser.error(f"--{name} {getattr(options, name)}: expected {least} or more")
    if options.stage in GROUPED and options.samples < 2:
        parser.error(f"--samples {options.samples}: {options.stage} compares the samples of a prompt, so 2 or more")
    if options.one_trunk and (options.stage not in ONLINE or options.stage == "rollout"):
        parser.error(f"--one-trunk is about the roles of online training; {options.stage} has none")
    if options.one_trunk and options.stage != "ppo" and not options.lora:
        parser.error("--one-trunk without --lora is about ppo's critic; add --lora")
    if options.last_layers and not options.lora:
        parser.error("--last-layers says where adapters go; add --lora")
    if options.ending_tokens and options.stage == "ppo":
        parser.error("--ending-tokens: TRL's PPO knows one token that ends a response only")
    if options.model not in ("tiny", "7m", "12m") and not (Path(options.model) / "config.json").is_file():
        parser.error(f"--model {options.model}: neither tiny, 7m or 12m nor a folder with config.json")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        report = compare(options)
    except KeelError as error:
        print(f"compare.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report) if options.json else table(report))
    return 0


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run both sides and put the figures together."""
    job, parameters = make_job(options)
    sides = {"keel": (Path(sys.executable), job)}
    if not options.keel_only:
        from peers.environment import PEERS, ensure

        python = ensure(PEERS[options.stage], options.cache)
        for setting in PEER_SETTINGS.get(options.stage, ("default",)):
            sides[setting] = (python, replace(job, setting=setting))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for repeat in range(options.repeats):
        for name, (python, its_job) in sides.items():
            say(f"{options.stage}: {name}, run {repeat + 1} of {options.repeats}")
            runs[name].append(run(python, "keel_side.py" if name == "keel" else "trl_side.py", its_job))
    records = {name: merged(found) for name, found in runs.items()}
    keel, peers = records.pop("keel"), records
    report: dict[str, Any] = {
        "stage": options.stage,
        "machine": machine(),
        "commit": commit(),
        "load_average": os.getloadavg(),
        "settings": {
            "model": options.model,
            "parameters": parameters,
            "vocabulary": options.vocabulary,
            "max_tokens": options.max_tokens,
            **{
                name: getattr(job, name)
                for name in ("batch", "samples", "max_new_tokens", "epochs", "lora_rank", "last_layers", "dtype")
            },
            "micro_batch_tokens": job.micro_batch_tokens,
            "ending_tokens": options.ending_tokens,
            "one_trunk": options.one_trunk,
            "repeats": options.repeats,
        },
        "keel": keel,
        "over_floor": keel["cpu_seconds"] / keel["floor_cpu_seconds"],
    }
    if peers:
        fastest = min(peers, key=lambda name: peers[name]["cpu_seconds"])
        report |= {
            "peer": peers[fastest],
            **ratios(keel, peers[fastest]),
            "against": {name: {**ratios(keel, peer), "peer": peer} for name, peer in peers.items()},
        }
    return report


def make_job(options: argparse.Namespace) -> tuple[Job, int]:
    """The job of keel's side, and the model's parameters."""
    from peers.material import prepare

    from keel.core.seed import generator

    material = prepare(
        options.cache,
        options.data,
        model=options.model,
        vocabulary=options.vocabulary,
        max_tokens=options.max_tokens,
        ending_tokens=options.ending_tokens,
        seed=0,
    )
    records = json.loads(material.records.read_text(encoding="utf-8"))
    if options.stage in ONLINE:
        records = [r for r in records if len(r["prompt"]) <= MAX_PROMPT_TOKENS]
    needed = options.batch * (options.warmup + options.steps)
    if len(records) < needed:
        raise ConfigError(
            f"{options.stage} needs {needed} records of {options.data}, but {len(records)} fit. "
            "Lower --batch or --steps."
        )
    chosen = options.cache / "material" / f"{material.model.parent.name}-{options.stage}-{needed}.json"
    picked = generator(0, "records").permutation(len(records))[:needed].tolist()
    chosen.write_text(json.dumps([records[i] for i in picked]), encoding="utf-8")
    job = Job(
        stage=options.stage,
        setting="trunk" if options.one_trunk else "default",
        model=str(material.model),
        reward_model=str(material.reward_model),
        records=str(chosen),
        order=order(options.stage, needed),
        batch=options.batch,
        steps=options.steps,
        warmup=options.warmup,
        samples=options.samples,
        max_new_tokens=options.max_new_tokens,
        epochs=options.epochs,
        lora_rank=options.lora,
        last_layers=options.last_layers,
        dtype=options.dtype,
        micro_batch_tokens=options.micro_batch_tokens,
    )
    return job, material.parameters


def order(stage: str, count: int) -> tuple[int, ...]:
    """The order in which keel's stage takes `count` records in its first epoch, so that the peer can take the same."""
    from keel.train.loop import shuffled

    seeds = {
        "sft": derive(0, "sft order", 0),
        "reward": derive(derive(0, "reward", 0), "order", 0),
        "dpo": derive(derive(0, "prefer"), "order", 0),
        "rollout": derive(0, "rollout order"),
    }
    online = derive(derive(0, "ppo", 0), "prompts", 0)
    return tuple(shuffled(count, 1, seeds.get(stage, online))[0].tolist())


def run(python: Path, script: str, job: Job) -> dict[str, Any]:
    """The record of one side's run."""
    with tempfile.TemporaryDirectory() as folder:
        job_file, record = Path(folder) / "job.json", Path(folder) / "record.json"
        job.save(job_file)
        threads = {name: str(job.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        paths = [str(HERE), *([str(ROOT / "src")] if script == "keel_side.py" else [])]
        environment = {
            **os.environ,
            **threads,
            "PYTHONPATH": os.pathsep.join(paths),
            "TOKENIZERS_PARALLELISM": "false",
            **({"CUDA_VISIBLE_DEVICES": ""} if job.device == "cpu" else {}),
            "HF_HUB_OFFLINE": "1",
            "TRL_EXPERIMENTAL_SILENCE": "1",
        }
        command = [str(python), str(HERE / "peers" / script), str(job_file), str(record)]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode or not record.is_file():
            last = "\n".join(done.stderr.splitlines()[-25:])
            raise TrainingError(f"{script} failed on {job.stage} ({job.setting}):\n{last}")
        return json.loads(record.read_text(encoding="utf-8"))


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of several runs: medians, a step's over the runs before the steps are added up."""

    def added(name: str) -> float:
        return sum(statistics.median(step) for step in zip(*(r[name] for r in runs), strict=True))

    tokens = statistics.median(r["real_tokens"] for r in runs)
    cpu, seconds = added("cpu_seconds_by_step"), added("seconds_by_step")
    median = {
        name: statistics.median(r[name] for r in runs)
        for name in ("rss_before_bytes", "peak_rss_bytes", "memory_added_bytes")
    }
    if "floor_cpu_seconds" in runs[0]:
        rate = max(r["matmul_flops_per_second"] for r in runs)
        median |= {"matmul_flops_per_second": rate, "flops": runs[0]["flops"]}
        median |= {"floor_cpu_seconds": runs[0]["flops"] / rate}
    return {
        **runs[0],
        **median,
        "real_tokens": tokens,
        "cpu_seconds": cpu,
        "seconds": seconds,
        "real_tokens_per_second": tokens / seconds,
        "real_tokens_per_cpu_second": tokens / cpu,
        "cpu_seconds_of_runs": [sum(r["cpu_seconds_by_step"]) for r in runs],
    }


def ratios(keel: dict[str, Any], peer: dict[str, Any]) -> dict[str, float]:
    """The peer's figures divided by keel's, each for the same number of real tokens."""
    return {
        "cpu_seconds_ratio": keel["real_tokens_per_cpu_second"] / peer["real_tokens_per_cpu_second"],
        "memory_ratio": peer["memory_added_bytes"] / keel["memory_added_bytes"],
        "tokens_per_second_ratio": keel["real_tokens_per_second"] / peer["real_tokens_per_second"],
    }


def machine() -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if cpu.exists()
        else []
    )
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    found = subprocess.run([git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    settings, keel = report["settings"], report["keel"]
    lines = [
        f"{report['stage']}: model {settings['model']} ({settings['parameters'] / 1e6:.1f} M parameters, "
        f"vocabulary {settings['vocabulary']}), batch {settings['batch']}, one thread, "
        f"median of {settings['repeats']} runs of {keel['steps']} steps, commit {report['commit'][:9]}",
        f"{'':34}{'real tokens/s':>15}{'CPU-seconds':>13}{'memory MiB':>12}{'keel faster':>13}{'keel smaller':>14}",
    ]

    def line(name: str, record: dict[str, Any], beside: dict[str, float] | None) -> str:
        figures = (
            f"{name:34}{record['real_tokens_per_second']:15.0f}{record['cpu_seconds']:13.2f}"
            f"{record['memory_added_bytes'] / 2**20:12.0f}"
        )
        if beside is None:
            return figures
        return figures + f"{beside['cpu_seconds_ratio']:12.2f}×{beside['memory_ratio']:13.2f}×"

    lines.append(line("keel", keel, None))
    for name, found in report.get("against", {}).items():
        peer = found["peer"]
        label = f"{peer['name']} {peer['libraries'].get(peer['name'].split()[0], '')}, {name}"
        lines.append(line(label, peer, found))
    lines.append(
        f"floor {keel['floor_cpu_seconds']:.2f} CPU-seconds at {keel['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s; "
        f"keel is at {report['over_floor']:.2f}× of it"
    )
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
