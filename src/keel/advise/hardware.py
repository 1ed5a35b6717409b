"""What the machine has, asked of the system: no library is loaded for it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from keel.advise.facts import Hardware
from keel.core.errors import ConfigError

QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
SECONDS = 10


def detect(gpus: int | None = None, gpu_gib: float | None = None, ram_gib: float | None = None) -> Hardware:
    """The machine as it is, except for what is given. Raises ConfigError where what is given cannot be."""
    if gpus is not None and gpus < 0:
        raise ConfigError(f"--gpus {gpus}: expected 0 or more.")
    for name, value in (("--gpu-gib", gpu_gib), ("--ram-gib", ram_gib)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} {value:g}: expected GiB above 0.")
    found = [] if gpus is not None and (gpus == 0 or gpu_gib is not None) else memories()
    count = len(found) if gpus is None else gpus
    if gpu_gib is not None and count == 0:
        if gpus == 0:
            raise ConfigError(f"--gpu-gib {gpu_gib:g} with --gpus 0: leave one of them out.")
        count = 1
    each = gpu_gib if gpu_gib is not None else min(found, default=0.0)
    if count and not each:
        raise ConfigError(
            f"--gpus {count}: this machine has none to ask how large they are. Add --gpu-gib, such as 80."
        )
    told = [name for name, value in (("GPUs", gpus), ("GPU memory", gpu_gib), ("RAM", ram_gib)) if value is not None]
    source = f"{' and '.join(told)} as given, the rest found" if told else "found on this machine"
    ram = ram_gib if ram_gib is not None else physical_gib()
    return Hardware(gpus=count, gpu_gib=each if count else 0.0, ram_gib=ram, cores=os.cpu_count() or 1, source=source)


def memories() -> list[float]:
    """GiB of each NVIDIA GPU; empty where the driver's tool is missing or has nothing to say."""
    if shutil.which(QUERY[0]) is None:
        return []
    try:
        answer = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = answer.stdout.split() if answer.returncode == 0 else []
    return [float(line) / 1024 for line in lines if re.fullmatch(r"\d+(\.\d+)?", line)]


def physical_gib() -> float:
    """RAM of the machine, or of the container where that has less; 0 where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return 0.0
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return min(total, int(allowed) if allowed.isdigit() else total) / 2**30
