"""keel on one GPU, a piece at a time: `python benchmarks/gpu.py PIECE [--model 0.5b|1.5b|7b] [--json]`.

Pieces are `attention` (of one layer, computed in several ways), `head` (log-probabilities of tokens, the same) and the
stages, which run as recipes run them, on random weights and random records. Speed is compared with what this very
device reaches in matrix products and in copying memory. MFU is the operations that a step needs over those that matrix
products would have done in its time; a rollout's limit is the time that reading its weights, keys and values takes.

`--device cpu --model tiny` tries the same code anywhere in seconds; its figures say nothing.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "src")]

from common import ONLINE, STAGES, Job, matmul_flops_per_second, wait  # noqa: E402
from compare import commit, machine, order, run  # noqa: E402
from peers.material import SHAPES, LlamaShape  # noqa: E402

from keel.core.errors import ConfigError, KeelError  # noqa: E402
from keel.core.seed import generator  # noqa: E402

KERNELS = ("attention", "head")
MODELS = {  # shapes of Qwen 2.5 (arXiv 2412.15115), with their vocabularies
    "tiny": (SHAPES["tiny"], 300),
    "0.5b": (LlamaShape(hidden=896, inner=4864, layers=24, heads=14, kv_heads=2), 151936),
    "1.5b": (LlamaShape(hidden=1536, inner=8960, layers=28, heads=12, kv_heads=2), 151936),
    "7b": (LlamaShape(hidden=3584, inner=18944, layers=28, heads=28, kv_heads=4, tied=False), 152064),
}
LORA_RANK = {"7b": 16}  # where the whole model would not fit beside its optimiser
LENGTHS = {"tiny": (8, 24)}  # of prompts and responses, in tokens
USUAL_LENGTHS = (32, 480)
SIZES = {  # stage: records or prompts a step, responses a prompt, tokens a response, epochs
    "sft": (32, 1, 0, 1),
    "rollout": (32, 4, 256, 1),
    "ppo": (32, 1, 256, 4),
}
PAIRS, GROUPS = (16, 1, 0, 1), (16, 4, 256, 1)  # offline stages, and online ones that compare the samples of a prompt


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("piece", choices=(*KERNELS, *STAGES))
    parser.add_argument("--model", choices=tuple(MODELS), default="0.5b", help="shape of the random model")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of weights, activations")
    parser.add_argument("--batch", type=int, help="records (offline) or prompts (online) per step")
    parser.add_argument("--samples", type=int, help="responses per prompt (online)")
    parser.add_argument("--max-new-tokens", type=int, help="longest response (online)")
    parser.add_argument("--epochs", type=int, help="passes over each rollout")
    parser.add_argument("--steps", type=int, default=4, help="measured steps, or repeats of attention and head")
    parser.add_argument("--warmup", type=int, default=2, help="steps before the clock starts; the first compiles")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens per forward pass")
    parser.add_argument("--lora", type=int, metavar="RANK", help="adapters; 0 trains in full (default: 16 for 7b)")
    parser.add_argument("--last-layers", type=int, default=0, metavar="N", help="adapters on the last N layers only")
    parser.add_argument(
        "--one-trunk", action="store_true", help="roles share their weights; with --lora all are adapters"
    )
    parser.add_argument("--peer", action="store_true", help="also run TRL in an environment of its own (stages)")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache", help="models, the peer's environment")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    sizes = SIZES.get(options.piece, GROUPS if options.piece in ONLINE else PAIRS)
    for name, value in zip(("batch", "samples", "max_new_tokens", "epochs"), sizes, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.lora is None:
        options.lora = LORA_RANK.get(options.model, 0)
    for name, least in (("batch", 1), ("samples", 1), ("steps", 1), ("warmup", 0), ("tokens", 16), ("lora", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name} {getattr(options, name)}: expected {least} or more")
    if options.peer and options.piece in KERNELS:
        parser.error(f"--peer is about the stages; {options.piece} lists what it is compared with anyway")
    if options.one_trunk and (options.piece not in ONLINE or options.piece == "rollout"):
        parser.error(f"--one-trunk is about the roles of online training; {options.piece} has none")
    if options.last_layers and not options.lora:
        parser.error("--last-layers says where adapters go; add --lora")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        with redirect_stdout(sys.stderr):  # the report alone goes where a program reads it
            report = measure(options)
    except KeelError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report) if options.json else table(report))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The report of one piece; how fast the device itself is comes first."""
    import torch

    begun = time.perf_counter()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "torch finds no GPU here, and the figures of another device would say nothing. Run this where "
            "torch.cuda.is_available() is True, or try the script itself with --device cpu --model tiny."
        )
    shape, _ = MODELS[options.model]
    rates = {
        "matmul_flops_per_second": matmul_flops_per_second(
            options.tokens, shape.hidden, shape.inner, options.dtype, options.device
        ),
        "copy_bytes_per_second": copy_bytes_per_second(options.device),
    }
    results = kernels(options, rates) if options.piece in KERNELS else stage(options, rates)
    return {
        "piece": options.piece,
        "machine": machine() | device_facts(options.device),
        "commit": commit(),
        "settings": {name: str(x) if isinstance(x, Path) else x for name, x in vars(options).items()},
        **rates,
        "results": results,
        "total_seconds": time.perf_counter() - begun,
    }


def device_facts(device: str) -> dict[str, Any]:
    import torch

    if device == "cpu":
        return {"device": "cpu", "torch": torch.__version__}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "device_memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def copy_bytes_per_second(device: str, repeats: int = 5) -> float:
    """Memory bandwidth: bytes read and written a second in copying, the best of `repeats`."""
    import torch

    source = torch.zeros(2**30 if device == "cuda" else 2**25, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), 0.0
    for _ in range(repeats):
        wait(device)
        begun = time.perf_counter()
        target.copy_(source)
        wait(device)
        best = max(best, 2 * source.numel() / (time.perf_counter() - begun))
    return best


def kernels(options: argparse.Namespace, rates: dict[str, float]) -> dict[str, dict[str, Any]]:
    from gpu_kernels import Bench, attention, head

    shape, vocabulary = MODELS[options.model]
    bench = Bench(
        shape=shape,
        vocabulary=vocabulary,
        device=options.device,
        dtype=options.dtype,
        tokens=options.tokens,
        lengths=LENGTHS.get(options.model, USUAL_LENGTHS),
        warmup=options.warmup,
        repeats=options.steps,
        matmul_flops_per_second=rates["matmul_flops_per_second"],
    )
    return attention(bench) if options.piece == "attention" else head(bench)


def stage(options: argparse.Namespace, rates: dict[str, float]) -> dict[str, dict[str, Any]]:
    """A stage as a recipe runs it, and the peer's when it is asked for."""
    from peers import keel_side

    job = make_job(options)
    records = [keel_side.main(job)]
    if options.peer:
        from peers.environment import PEERS, ensure

        records.append(run(ensure(PEERS[options.piece], options.cache), "trl_side.py", job))
    return {record["name"]: judged(record, rates) for record in records}


def judged(record: dict[str, Any], rates: dict[str, float]) -> dict[str, Any]:
    """A stage's record with its speed, beside what the device could have done."""
    seconds = sum(record["seconds_by_step"])
    record |= {"seconds": seconds, "real_tokens_per_second": record["real_tokens"] / seconds}
    if "flops" in record:
        rate = max(rates["matmul_flops_per_second"], record["matmul_flops_per_second"])
        record["mfu"] = record["flops"] / rate / seconds
    if "decode_bytes" in record:  # prefill and decoding could not both be free, so each is counted by what limits it
        limit = record["decode_bytes"] / rates["copy_bytes_per_second"] + record["prefill_flops"] / rate
        record |= {"limit_tokens_per_second": record["real_tokens"] / limit, "over_limit": seconds / limit}
    return record


def make_job(options: argparse.Namespace) -> Job:
    """The stage's job, on a random model and random records that are made under the cache folder."""
    from peers.making import word_tokenizer, write_llama

    shape, vocabulary = MODELS[options.model]
    total = options.batch * (options.warmup + options.steps)
    folder = options.cache / "gpu" / f"{options.model}-{options.dtype}"
    model, reward, records = folder / "model", folder / "reward", folder / f"records-{total}.json"
    if not (model / "config.json").is_file():
        write_llama(model, shape, word_tokenizer(vocabulary), 0, 0, device=options.device, dtype=options.dtype)
    if options.piece not in ("sft", "dpo", "rollout") and not (reward / "config.json").is_file():
        from keel.models.reward import RewardModel

        made = RewardModel.from_policy(model, device=options.device, dtype=options.dtype, freeze_embeddings=False)
        made.save(reward)
        del made
    records.write_text(
        json.dumps(random_records(total, LENGTHS.get(options.model, USUAL_LENGTHS), vocabulary)), encoding="utf-8"
    )
    return Job(
        stage=options.piece,
        setting="trunk" if options.one_trunk else "default",
        model=str(model),
        reward_model=str(reward),
        records=str(records),
        order=order(options.piece, total),
        batch=options.batch,
        steps=options.steps,
        warmup=options.warmup,
        samples=options.samples,
        max_new_tokens=options.max_new_tokens,
        epochs=options.epochs,
        lora_rank=options.lora,
        last_layers=options.last_layers,
        dtype=options.dtype,
        micro_batch_tokens=options.tokens,
        device=options.device,
    )


def random_records(count: int, lengths: tuple[int, int], vocabulary: int) -> list[dict[str, Any]]:
    """Pairs of random tokens, as the comparison with peers has them; all lengths within bounds are equally likely."""
    from peers.making import SPECIAL, word

    drawn, (least, most) = generator(0, "records"), lengths
    records = []
    for _ in range(count):
        prompt, chosen, rejected = (
            drawn.integers(len(SPECIAL), vocabulary, size).tolist() for size in drawn.integers(least, most + 1, 3)
        )
        text = " ".join(map(word, prompt))
        records.append({"prompt_text": text, "prompt": prompt, "chosen": chosen, "rejected": rejected})
    return records


FIGURES = (  # key, label, factor, format, unit
    ("forward_seconds", "forward", 1e3, ".3f", " ms"),
    ("both_seconds", "with backward", 1e3, ".3f", " ms"),
    ("both_share_of_matmul", "of matmul", 100, ".0f", " %"),
    ("peak_bytes_added", "added", 2**-20, ".0f", " MiB"),
    ("real_tokens_per_second", "tokens/s", 1, ".0f", ""),
    ("limit_tokens_per_second", "limit", 1, ".0f", " tokens/s"),
    ("over_limit", "over the limit", 1, ".2f", "×"),
    ("mfu", "MFU", 100, ".1f", " %"),
    ("peak_rss_bytes", "peak", 2**-20, ".0f", " MiB"),
    ("memory_added_bytes", "of it by the stage", 2**-20, ".0f", " MiB"),
)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    settings = report["settings"]
    lines = [
        f"{report['piece']}: model {settings['model']} in {settings['dtype']} on {report['machine']['device']}, which "
        f"reaches {report['matmul_flops_per_second'] / 1e12:.3g} TFLOP/s in matrix products and "
        f"{report['copy_bytes_per_second'] / 1e9:.4g} GB/s in copies; {report['total_seconds']:.0f} s in all, "
        f"commit {report['commit'][:9]}"
    ]
    for name, record in report["results"].items():
        figures = [
            f"{label} {record[key] * factor:{form}}{unit}"
            for key, label, factor, form, unit in FIGURES
            if key in record
        ]
        lines.append(f"{name:22} {'   '.join([*figures, *([record['failed']] if 'failed' in record else [])])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
