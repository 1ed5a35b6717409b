"""Make the virtual environment that `make demo` and `make test` use, and install keel into it.

On a machine without an NVIDIA driver this never downloads a CUDA build of torch: pip is first asked what it would
install, and if that includes CUDA packages the CPU wheels of pytorch.org are used instead.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TORCH_PIN = "torch==2.13.0"
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036  # runs on whatever Python the machine has
        print(f"keel needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: make PYTHON=python3.12 ...")
        return 1
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".venv")
    if not (folder / "bin" / "python").exists():
        print(f"Making {folder} ...", flush=True)
        venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    if not installed(pip, "torch"):
        print("Installing torch ...", flush=True)
        subprocess.run([*pip, "install", *torch_request(pip)], check=True)
    print("Installing keel and its development tools ...", flush=True)
    subprocess.run([*pip, "install", "-e", ".[train,studio,postgres,dev]"], check=True)
    return 0


def installed(pip: list[str], package: str) -> bool:
    return subprocess.run([*pip, "show", package], capture_output=True, check=False).returncode == 0


def torch_request(pip: list[str]) -> list[str]:
    """What to ask pip for so that a machine without an NVIDIA GPU gets no CUDA packages."""
    if shutil.which("nvidia-smi"):
        return ["torch>=2.10"]
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        plan = subprocess.run(
            [*pip, "install", "--dry-run", "--report", report.name, TORCH_PIN], capture_output=True, check=False
        )
        if plan.returncode == 0:
            names = [item["metadata"]["name"].lower() for item in json.load(report)["install"]]
            if not any(name.startswith(("nvidia", "triton")) for name in names):
                return [TORCH_PIN]
    return [TORCH_PIN, "--index-url", CPU_WHEELS]


if __name__ == "__main__":
    sys.exit(main())
