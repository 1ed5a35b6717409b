"""Reward functions in a child process that is kept alive: one that hangs can be stopped, one that crashes told of."""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from keel.core import errors
from keel.core.errors import KeelError, TrainingError
from keel.data.prompt_records import PromptRecord
from keel.stages.functions import REPEAT

SCRIPT = Path(__file__).with_name("worker_process.py")
LOADING_S = 60.0
"""A file has at least this long to load: libraries take their time."""


class Other:
    """Something that a function returned in place of a number, as it showed itself."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __repr__(self) -> str:
        return self.shown


class Worker:
    """One child process and what it answers with; it ends with this object."""

    def __init__(self, job: Mapping[str, Any], field: str, timeout_seconds: float) -> None:
        """`job` says what runs there (`keel.stages.worker_process.scorer`), `field` names it in messages.

        Raises what loading the function raises.
        """
        self.field, self.timeout_seconds = field, timeout_seconds
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", **os.environ},
            start_new_session=True,  # Ctrl-C is for keel, which then ends this too
        )
        self._end = weakref.finalize(self, _ended, self.process)
        told = {**job, "field": field, "path": sys.path, "parent": os.getpid()}
        self._ask(told, "to load", max(timeout_seconds, LOADING_S))

    def ask(self, prompts: Sequence[str], responses: Sequence[str], records: Sequence[PromptRecord]) -> Any:
        """What the function returns. TrainingError when it raises, takes too long, or takes its process down."""
        records = records or [{} for _ in responses]
        answer = self._ask([list(prompts), list(responses), [dict(r) for r in records]], f"{len(responses)} responses")
        scores = answer.get("scores")
        return [_shown(value) for value in scores] if isinstance(scores, list) else _shown(scores)

    def close(self) -> None:
        """End the process."""
        self._end()

    def _ask(self, message: Any, what: str, seconds: float | None = None) -> dict[str, Any]:
        seconds = seconds or self.timeout_seconds
        until = time.monotonic() + seconds
        data = json.dumps(message).encode()
        try:
            self._write(struct.pack(">I", len(data)) + data, until)
            answer = json.loads(self._read(struct.unpack(">I", self._read(4, until))[0], until))
        except TimeoutError as error:
            self.close()
            raise TrainingError(
                f"{self.field} has not answered within {seconds:g} s ({what}) and was stopped. Make it "
                f"faster, or raise timeout_seconds of this part. {REPEAT}"
            ) from error
        except (EOFError, BrokenPipeError) as error:
            status = self.process.wait()
            self.close()
            how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
            raise TrainingError(
                f"{self.field}: its process ended {how} ({what}), without an answer. {REPEAT}"
            ) from error
        if "failed" in answer:
            kind = getattr(errors, answer["failed"], KeelError)
            raise kind(answer["said"])
        return answer

    def _write(self, data: bytes, until: float) -> None:
        file = _number(self.process.stdin)
        os.set_blocking(file, False)
        left = memoryview(data)
        while left:
            if not select.select([], [file], [], max(0.0, until - time.monotonic()))[1]:
                raise TimeoutError
            left = left[os.write(file, left) :]

    def _read(self, size: int, until: float) -> bytes:
        file, parts = _number(self.process.stdout), []
        while size:
            if not select.select([file], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError
            part = os.read(file, min(size, 2**20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _number(pipe: Any) -> int:
    return pipe.fileno()


def _shown(value: Any) -> Any:
    return Other(value["other"]) if isinstance(value, dict) else value


def _ended(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
