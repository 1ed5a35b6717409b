"""A virtual environment of each peer's own, made once under the cache folder."""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from common import STAGES

from keel.core.errors import ConfigError

SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup_env.py"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library to compare with."""

    package: str
    version: str

    @property
    def folder(self) -> str:
        return f"{self.package}-{self.version}"


TRL = Peer(package="trl", version="1.16.0")
TRL_WITH_PPO = Peer(package="trl", version="1.12.0")  # the last minor releases dropped PPO
PEERS: dict[str, Peer] = dict.fromkeys(STAGES, TRL) | {"ppo": TRL_WITH_PPO}


def ensure(peer: Peer, cache: Path) -> Path:
    """The interpreter of the peer's environment, made or repaired when it is not complete.

    torch, transformers and peft have the versions that keel runs with, so that only the peer's own code differs.
    torch comes first: on a machine without an NVIDIA GPU no CUDA build is pulled.
    """
    folder = cache / "peers" / peer.folder
    python, ready = folder / "bin" / "python", folder / "ready.json"
    pins = {name: version(name).partition("+")[0] for name in ("torch", "transformers", "peft")}
    if ready.is_file() and json.loads(ready.read_text(encoding="utf-8")) == pins:
        return python
    say(f"Making {folder} ...")
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    install(pip, torch_request(pip, pins["torch"]))
    rest = [f"{name}=={pin}" for name, pin in pins.items()]
    try:
        install(pip, [f"{peer.package}=={peer.version}", *rest])
    except ConfigError as missing:
        nearest = nearest_version(pip, peer)
        say(f"{missing} Using the nearest instead: {peer.package} {nearest}; the record names it.")
        install(pip, [f"{peer.package}=={nearest}", *rest])
    ready.write_text(json.dumps(pins), encoding="utf-8")
    return python


def torch_request(pip: Sequence[str], pin: str) -> list[str]:
    """What asks pip for this torch without CUDA packages, as `make` does for keel itself."""
    spec = importlib.util.spec_from_file_location("setup_env", SETUP)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{SETUP} is missing; run the benchmarks from a whole checkout.")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    requested = setup.torch_request(list(pip))
    return [f"torch=={pin}" if item.startswith("torch") else item for item in requested]


def install(pip: Sequence[str], requirements: Sequence[str]) -> None:
    done = subprocess.run([*pip, "install", *requirements], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise ConfigError(f"pip could not install {' '.join(requirements)}: {' '.join(reason[-2:])}")


def nearest_version(pip: Sequence[str], peer: Peer) -> str:
    """The release on the registry that is nearest to the wanted one, older ones first."""
    with tempfile.TemporaryDirectory() as folder:
        listing = subprocess.run(
            [*pip, "download", "--no-deps", "--dest", folder, f"{peer.package}==0.0.0.0"],
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    found = re.search(r"from versions: ([^)]*)\)", listing)
    released = [v.strip() for v in found.group(1).split(",")] if found else []
    numbers = {v: tuple(map(int, v.split("."))) for v in released if re.fullmatch(r"\d+(\.\d+)*", v)}
    if not numbers:
        raise ConfigError(
            f"No release of {peer.package} is on the registry that pip asks. Check the network or pip's index "
            "settings, or measure keel alone with --keel-only."
        )
    wanted = tuple(map(int, peer.version.split(".")))
    older = [v for v, number in numbers.items() if number <= wanted]
    return max(older, key=numbers.__getitem__) if older else min(numbers, key=numbers.__getitem__)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
