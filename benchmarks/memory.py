"""Memory of one training step for every way to save it: `python benchmarks/memory.py [--model 7m] [--json]`.

Each combination runs in a process of its own, on a random Llama and random tokens: SFT steps as the stage takes them.
Weights and the optimiser's state are counted, tensor by tensor; what training adds is the largest resident memory of
the steps less the resident memory before them: gradients, optimiser state and activations. On Linux with glibc the
allocator is told to give large tensors back at once, or half of what is measured would be holes in its heap.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from common import Job, Meter  # noqa: E402
from peers.material import SHAPES  # noqa: E402

VOCABULARY = 4096
DOCUMENT_TOKENS = 512
STEPS = 3
ALLOCATOR = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1048576"}
"""Large tensors go back to the system when they are freed, so that what is resident is what is used."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One combination of settings."""

    trained: str  # full or lora
    optimiser: str
    dtype: str
    quantise: str | None
    checkpointing: bool

    @property
    def name(self) -> str:
        words = [self.trained, self.optimiser, self.quantise or "", self.dtype, self.checkpointing and "checkpointing"]
        return ", ".join(word for word in words if word)


WAYS = [
    Way(trained=trained, optimiser=optimiser, quantise=quantise, dtype=dtype, checkpointing=checkpointing)
    for (trained, optimiser, quantise), dtype, checkpointing in itertools.product(
        (("full", "adamw", None), ("full", "adamw8bit", None), ("lora", "adamw", None), ("lora", "adamw", "4bit")),
        ("float32", "bfloat16"),
        (False, True),
    )
]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="memory.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", choices=tuple(SHAPES), default="7m", help="shape of the random Llama")
    parser.add_argument("--batch", type=int, default=8, help=f"documents of {DOCUMENT_TOKENS} tokens a step")
    parser.add_argument("--lora", type=int, default=16, metavar="RANK", help="rank of the adapters")
    parser.add_argument("--only", default="", help="combinations whose name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--job", nargs=3, metavar=("WAY", "MODEL", "RECORD"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.batch < 1 or options.lora < 1:
        parser.error(f"--batch {options.batch}, --lora {options.lora}: expected 1 or more")
    options.ways = [way for way in WAYS if options.only in way.name]
    if not options.ways:
        parser.error(f"--only {options.only!r}: no combination has that in its name, such as {WAYS[0].name!r}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.job:
        way, model, record = options.job
        found = measure(Way(**json.loads(way)), Path(model), options.batch, options.lora)
        Path(record).write_text(json.dumps(found), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_model(Path(folder) / "model", options.model)
        found = [run(way, Path(folder), options) for way in options.ways]
    report = {
        "model": options.model,
        "parameters": parameters,
        "tokens": options.batch * DOCUMENT_TOKENS,
        "ways": found,
    }
    print(json.dumps(report) if options.json else table(report))
    return 0


def write_model(folder: Path, name: str) -> int:
    """A random Llama without a tokenizer; how many parameters it has."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from keel.models.load import save_causal_lm

    shape = SHAPES[name]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=True,
    )
    network = AutoModelForCausalLM.from_config(config)
    save_causal_lm(folder, network, None)
    return network.num_parameters()


def run(way: Way, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The record of one combination, from a process of its own."""
    print(way.name, file=sys.stderr, flush=True)
    record = folder / "record.json"
    sizes = ["--batch", str(options.batch), "--lora", str(options.lora)]
    job = ["--job", json.dumps(asdict(way)), str(folder / "model"), str(record)]
    environment = {**os.environ, **ALLOCATOR, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, __file__, *sizes, *job], env=environment, check=True)
    return {"name": way.name, **asdict(way), **json.loads(record.read_text(encoding="utf-8"))}


def measure(way: Way, model: Path, batch: int, rank: int) -> dict[str, Any]:
    """Train a few steps in this process."""
    import torch

    from keel.algorithms.sft import SFT
    from keel.batch.collate import EncodedResponse, token_batch
    from keel.models.adapters import add_lora
    from keel.models.load import load_causal_lm
    from keel.models.settings import LoraConfig
    from keel.train.loop import LoopConfig, fit
    from keel.train.optim import Optimizer, ParameterGroup, trainable
    from keel.train.settings import OptimConfig

    torch.set_num_threads(1)
    policy: Any = load_causal_lm(
        model, way.dtype, device="cpu", quantise=way.quantise, gradient_checkpointing=way.checkpointing
    )
    if way.trained == "lora":
        policy = add_lora(policy, LoraConfig(rank=rank, alpha=2.0 * rank))
    trained = trainable(policy)
    optimizer = Optimizer(
        [ParameterGroup(parameters=trained)], OptimConfig.model_validate({"name": way.optimiser}), STEPS
    )
    tokens = torch.randint(0, VOCABULARY, (batch, DOCUMENT_TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    quarter = DOCUMENT_TOKENS // 4
    data = token_batch(
        [row[:quarter] for row in tokens], [[EncodedResponse(tokens=tuple(row[quarter:]))] for row in tokens]
    )
    job = Job(
        stage="sft",
        setting=way.name,
        model=str(model),
        reward_model="",
        records="",
        order=(),
        batch=batch,
        steps=STEPS - 1,
        warmup=1,
    )
    meter = Meter(job)
    policy.train()
    meter.begin()
    whole = LoopConfig(micro_batch_tokens=batch * DOCUMENT_TOKENS)
    for metrics in fit([data] * STEPS, SFT(policy), optimizer, whole):
        meter.step(batch * DOCUMENT_TOKENS, metrics["loss"])
    record = meter.record("keel")
    return {
        "weight_bytes": weight_bytes(policy),
        "state_bytes": size(value for name, value in optimizer.tensors().items() if name != "step_number"),
        "trained_parameters": sum(p.numel() for _, p in trained),
        "memory_added_bytes": record["memory_added_bytes"],
        "cpu_seconds_a_step": min(record["cpu_seconds_by_step"]),
        "losses": record["losses"],
    }


def size(tensors: Any) -> int:
    """Bytes of tensors, each storage once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def weight_bytes(model: Any) -> int:
    """Bytes of parameters and buffers, scales of quantised weights included."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, *([state.state2.absmax] if state.nested else [])]
    return size(tensors)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"Llama {report['model']}, {report['parameters'] / 1e6:.1f} M parameters, {report['tokens']} tokens a step, "
        "one thread; MiB",
        f"{'':44}{'weights':>9}{'state':>8}{'added by training':>19}{'all':>8}{'CPU-s a step':>14}",
    ]
    for way in report["ways"]:
        weights, state, added = (way[name] / 2**20 for name in ("weight_bytes", "state_bytes", "memory_added_bytes"))
        lines.append(
            f"{way['name']:44}{weights:9.1f}{state:8.1f}{added:19.0f}{weights + added:8.0f}"
            f"{way['cpu_seconds_a_step']:14.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
