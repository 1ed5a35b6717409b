"""Runs code that a model wrote, in a subprocess with limits, and tells what came of it.

On Linux with seccomp the kernel itself denies the code network, processes, signals and writing (and with Landlock,
kernel 5.13 or later, reading outside Python's own folders). Elsewhere Python's audit hook is all there is: it stops
accidents and no attacker. `locks` says what holds here. What it is not: a virtual machine. A bug of the kernel or of
the processor is open to the code; where answers may be hostile, run all of keel in a container or a machine of its own.
"""

import functools
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from keel.core.errors import ConfigError

SCRIPT = Path(__file__).with_name("confined.py")
STARTING_S = 20.0
"""An interpreter that takes longer to start is broken."""
_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/dev/null")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one run of code may take."""

    seconds: float = 5.0
    memory_bytes: int = 256 * 2**20
    output_bytes: int = 64 * 2**10
    kernel: bool = True
    """Whether to refuse where the kernel's locks are missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a run of code ended."""

    output: bytes
    stopped: str = ""
    """Why it was stopped; empty where it ended by itself."""
    status: int = 0
    """Exit status; minus the signal that killed it."""
    seconds: float = 0.0

    def lines(self) -> list[dict[str, Any]]:
        """The results among the output; whatever is no JSON object is left out."""
        found = []
        for line in self.output.splitlines():
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    found.append(value)
        return found


@functools.cache
def readable() -> tuple[str, ...]:
    """The places that code may read: Python's own, and the system's libraries."""
    own = (str(Path(os.__file__).parent), sys.base_prefix + "/lib", sys.base_prefix + "/lib64")
    return tuple(dict.fromkeys(os.path.realpath(path) for path in (*own, *_SYSTEM) if Path(path).exists()))


@functools.cache
def locks(kernel: bool = True) -> tuple[str, ...]:
    """What holds the code here: seccomp, landlock, audit hook. ConfigError where `kernel` locks are asked for in vain.

    A program is run that only says so; where even that fails, no answer could be judged.
    """
    limits = Limits(seconds=STARTING_S, kernel=kernel)
    ended = confined({"mode": "probe"}, b"", limits)
    said = next(iter(ended.lines()), {})
    if "refused" in said:
        raise ConfigError(
            f"The sandbox for code needs seccomp, which only Linux has, and {said['refused']} here. Run keel on Linux, "
            "or set require: any in the part's code section where the answers come from a model that you trust."
        )
    if "locks" not in said:
        how = ended.stopped or f"ended with status {ended.status}"
        raise ConfigError(f"The sandbox for code cannot start a Python interpreter ({sys.executable}): it {how}.")
    return tuple(str(name) for name in said["locks"])


def confined(job: Mapping[str, Any], behind: bytes, limits: Limits) -> Ended:
    """Run one job of `keel.verify.confined`; `behind` is what follows it in the pipe. Safe in several threads.

    The folder it starts in is empty and removed afterwards, its environment holds nothing of ours, and whatever is left
    of its processes is killed.
    """
    told = {
        **job,
        "seconds": limits.seconds,
        "memory": limits.memory_bytes,
        "readable": list(readable()),
        "kernel": limits.kernel,
    }
    data = json.dumps(told).encode()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="keel-answer-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-S", "-s", "-P", "-B", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},  # the same answer gives the same verdict
            cwd=folder,
            start_new_session=True,
        )
        try:
            output, stopped = _talk(process, struct.pack(">I", len(data)) + data + behind, begun, limits)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
    return Ended(output=output, stopped=stopped, status=status, seconds=time.monotonic() - begun)


def _talk(process: subprocess.Popen[bytes], data: bytes, begun: float, limits: Limits) -> tuple[bytes, str]:
    """Write the job, read the output, until its end or a limit; and why it has to be stopped."""
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise RuntimeError("the process was started without pipes")
    until = begun + limits.seconds
    output, left = bytearray(), memoryview(data)
    with selectors.DefaultSelector() as ready:
        for pipe, event in ((stdin, selectors.EVENT_WRITE), (stdout, selectors.EVENT_READ)):
            os.set_blocking(pipe.fileno(), False)
            ready.register(pipe, event)
        while True:
            wait = until - time.monotonic()
            if wait <= 0:
                return bytes(output), f"took more than {limits.seconds:g} s"
            for key, _ in ready.select(wait):
                if key.fileobj is stdin:
                    try:
                        left = left[os.write(stdin.fileno(), left[:65536]) :]
                    except BrokenPipeError:
                        left = left[:0]
                    if not left:
                        ready.unregister(stdin)
                        with suppress(BrokenPipeError):
                            stdin.close()
                    continue
                part = os.read(stdout.fileno(), 65536)
                output += part
                if len(output) > limits.output_bytes:
                    return bytes(output[: limits.output_bytes]), f"printed more than {limits.output_bytes // 1024} KiB"
                if not part:
                    return bytes(output), _end(process, until, limits)


def _end(process: subprocess.Popen[bytes], until: float, limits: Limits) -> str:
    """Wait for a process that has closed its output."""
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"took more than {limits.seconds:g} s"
    return ""


def made(value: Any) -> Any:
    """The value that `confined.plain` wrote down. ValueError for what it never writes."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        (kind, inner), *_ = value.items()
        try:
            return _MAKERS[kind](inner)
        except (LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
            raise ValueError("no value") from error
    raise ValueError("no value")


def _items(inner: Sequence[Any]) -> list[Any]:
    return [made(item) for item in inner]


_MAKERS = {
    "int": lambda inner: int(inner, 16),
    "float": float.fromhex,
    "complex": lambda inner: complex(float.fromhex(inner[0]), float.fromhex(inner[1])),
    "ratio": lambda inner: Fraction(int(inner[0], 16), int(inner[1], 16)),
    "bytes": bytes.fromhex,
    "list": _items,
    "tuple": lambda inner: tuple(_items(inner)),
    "set": lambda inner: set(_items(inner)),
    "frozenset": lambda inner: frozenset(_items(inner)),
    "dict": lambda inner: {made(key): made(item) for key, item in inner},
}
