"""What both sides of a comparison share: the job, the clock, the memory meter, the matmul floor.

Imported by keel's process and by the peers', so it imports neither. On a GPU a clock waits for it, and memory is what
torch allocated there.
"""

import ctypes
import gc
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

Stage = Literal["sft", "reward", "dpo", "rloo", "grpo", "ppo", "rollout"]
STAGES: tuple[Stage, ...] = ("sft", "reward", "dpo", "rloo", "grpo", "ppo", "rollout")
ONLINE = ("rloo", "grpo", "ppo", "rollout")
GROUPED = ("rloo", "grpo")
LIBRARIES = ("keel-rlhf", "trl", "torch", "transformers", "accelerate", "peft", "datasets")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of one side. `records` and `order` make both sides see the same batches in the same order."""

    stage: Stage
    setting: str
    """How the side is set, such as `padding_free`."""
    model: str
    """Folder of the causal language model."""
    reward_model: str
    """Folder of the sequence classifier that scores responses and that reward modelling starts from."""
    records: str
    """JSON list of {prompt_text, prompt, chosen, rejected}; all but the first as token ids."""
    order: tuple[int, ...]
    """Which record comes when."""
    batch: int
    """Records (offline) or prompts (online) per step."""
    steps: int
    warmup: int
    """Steps before the clock starts."""
    samples: int = 1
    max_new_tokens: int = 64
    epochs: int = 1
    lora_rank: int = 0
    last_layers: int = 0
    """How many of the last layers have adapters; 0 is all."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: keel holds weights in it, TRL holds float32 weights and computes in it."""
    micro_batch_tokens: int = 2048
    """Of keel; the peers take a batch whole."""
    learning_rate: float = 1e-5
    seed: int = 0
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def total(self) -> int:
        return self.warmup + self.steps

    def read_records(self) -> list[dict[str, Any]]:
        return json.loads(Path(self.records).read_text(encoding="utf-8"))

    def in_order(self) -> list[dict[str, Any]]:
        """The records as the steps take them, one after another."""
        records = self.read_records()
        return [records[i] for i in self.order]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Job":
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**fields, "order": tuple(fields["order"])})


class Meter:
    """CPU-seconds, seconds and tokens a step, and the memory that training adds.

    `begin` when models, data and optimiser stand and the first step is next; `step` after every step. Memory added is
    the largest resident size from then on less the resident size at that moment, so it holds gradients, optimiser
    state and activations, not the weights. On a GPU both are of its memory, as torch allocates it.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.cpu: list[float] = []
        self.wall: list[float] = []
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.rss_before = self.peak = 0
        self.facts: dict[str, Any] = {}
        """What else the record says."""

    def begin(self) -> None:
        gc.collect()
        self.rss_before = begin_memory(self.job.device)
        self.cpu, self.wall = [time.process_time()], [time.perf_counter()]

    def step(self, tokens: int, loss: float | None = None) -> bool:
        """Write down a step of `tokens` real tokens. True when it was the last."""
        wait(self.job.device)
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())
        self.tokens.append(int(tokens))
        if loss is not None:
            self.losses.append(float(loss))
        self.peak = peak_memory(self.job.device)
        return len(self.tokens) >= self.job.total

    def record(self, name: str, **more: Any) -> dict[str, Any]:
        """The record of one run; warm-up steps are left out of everything but the memory."""
        first = self.job.warmup
        cpu = [b - a for a, b in zip(self.cpu[first:], self.cpu[first + 1 :], strict=False)]
        wall = [b - a for a, b in zip(self.wall[first:], self.wall[first + 1 :], strict=False)]
        return {
            "name": name,
            "setting": self.job.setting,
            "libraries": libraries(),
            "steps": len(cpu),
            "warmup_steps": first,
            "real_tokens": sum(self.tokens[first:]),
            "cpu_seconds_by_step": cpu,
            "seconds_by_step": wall,
            "rss_before_bytes": self.rss_before,
            "peak_rss_bytes": self.peak,
            "memory_added_bytes": self.peak - self.rss_before,
            "losses": self.losses[:3],
            "threads": self.job.threads,
            **self.facts,
            **more,
        }


def write_record(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(record), encoding="utf-8")


def libraries() -> dict[str, str]:
    """Versions of what is installed beside this process."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def begin_memory(device: str) -> int:
    """Bytes in use now, after forgetting the peak so far: resident ones, or those that torch allocated on the GPU."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    trim_heap()
    reset_peak()
    return resident_bytes()


def peak_memory(device: str) -> int:
    """The most bytes in use since `begin_memory`."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return peak_bytes()


def resident_bytes() -> int:
    """Resident size of this process now; its peak where the system does not tell (anything but Linux)."""
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> int:
    """Largest resident size of this process, since `reset_peak` where the system can reset it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or (peak if sys.platform == "darwin" else peak * 1024)


def reset_peak() -> None:
    """Forget the peak so far (Linux; elsewhere the peak of loading may hide a smaller one of training)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")


def trim_heap() -> None:
    """Give freed memory back to the system, so that what is resident is what is used."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _status(name: str) -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def matmul_flops_per_second(
    tokens: int, hidden: int, inner: int, dtype: str = "float32", device: str = "cpu", repeats: int = 3
) -> float:
    """What one thread, or the GPU, reaches in matrix products: the better of a layer's own shape and a cube.

    In operations a CPU-second (a second on the GPU), the best of `repeats`: the rate that the floor is computed with.
    """
    import torch

    least, side, clock = (2e13, 8192, time.perf_counter) if device == "cuda" else (1e10, 1024, time.process_time)
    best = 0.0
    for rows, middle, columns in ((min(tokens, 4 * side), hidden, inner), (side, side, side)):
        a, b = (
            torch.randn(shape, device=device).to(getattr(torch, dtype)) for shape in ((rows, middle), (middle, columns))
        )
        out = a @ b
        rounds = max(1, round(least / (2 * rows * middle * columns)))
        for _ in range(repeats):
            wait(device)
            begun = clock()
            for _ in range(rounds):
                torch.mm(a, b, out=out)
            wait(device)
            best = max(best, 2 * rows * middle * columns * rounds / (clock() - begun))
    return best


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the operations of a forward pass depend on."""

    linear_weights: int
    """Weights of all linear layers of the trunk."""
    layers: int
    attention_width: int
    """Query heads times head size."""
    hidden: int
    inner: int
    vocabulary: int

    @classmethod
    def of(cls, model: Any) -> "Shape":
        """The shape of a transformers causal language model or classifier, adapters apart."""
        import torch

        config = model.config.get_text_config()
        linear = [
            module
            for name, module in model.base_model.named_modules()
            if isinstance(module, torch.nn.Linear) and "lora_" not in name
        ]
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            linear_weights=sum(module.weight.numel() for module in linear),
            layers=config.num_hidden_layers,
            attention_width=config.num_attention_heads * head,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            vocabulary=config.vocab_size,
        )

    def forward_flops(self, groups: Sequence[tuple[int, Sequence[int]]], scored: int) -> float:
        """Operations of one forward pass over prompts with responses, each prompt computed once.

        `groups` are (prompt tokens, tokens of each response); `scored` is how many positions go through the output
        layer. A product of [a, b] and [b, c] counts 2abc; attention counts only what causality lets a token see;
        norms, activations and softmax count nothing. A training step is three of these.
        """
        tokens = sum(prompt + sum(responses) for prompt, responses in groups)
        seen = sum(
            prompt * (prompt + 1) / 2 + sum(n * prompt + n * (n + 1) / 2 for n in responses)
            for prompt, responses in groups
        )
        return (
            2.0 * tokens * self.linear_weights
            + 4.0 * self.layers * self.attention_width * seen
            + 2.0 * scored * self.hidden * self.vocabulary
        )
