"""The child process in which reward functions run. A script of its own: `keel.stages.worker` starts it.

Messages are JSON behind their length in four bytes. What the function prints goes to the error stream, so that it
cannot be taken for an answer.
"""

import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    questions, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    job = receive(questions)
    if "text" in job and hasattr(signal, "setitimer"):
        watch_parent(job["parent"])
    else:
        threading.Thread(target=leave_with_parent, args=(job["parent"],), daemon=True).start()
    sys.path[:] = job["path"]
    from keel.core.errors import KeelError

    try:
        score = scorer(job)
    except KeelError as error:
        send(answers, failure(error))
        return
    send(answers, {"ready": True})
    while question := receive(questions):
        try:
            send(answers, {"scores": written(score(*question))})
        except KeelError as error:
            send(answers, failure(error))


def scorer(job: dict[str, Any]) -> Callable[..., Any]:
    """What answers (prompts, responses, records)."""
    if "text" in job:
        from keel.verify.patterns import check_text
        from keel.verify.settings import TextConfig

        config = TextConfig(**job["text"])
        return lambda prompts, responses, _: [check_text("", response, {}, config).score for response in responses]
    from keel.stages.functions import load_function, takes

    function = load_function(job["python"], job["field"], Path(job["folder"]))
    if takes(function, "records"):
        return function
    return lambda prompts, responses, _: function(prompts, responses)


def failure(error: Exception) -> dict[str, str]:
    return {"failed": type(error).__name__, "said": str(error)}


def written(answer: Any) -> Any:
    """An answer as JSON: its numbers, and of everything else how it shows itself."""
    listed = answer.tolist() if hasattr(answer, "tolist") else answer
    if not isinstance(listed, list | tuple):
        return shown(answer)
    return [number(value) for value in listed]


def number(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    return shown(value)


def shown(value: Any) -> dict[str, str]:
    try:
        return {"other": repr(value)[:200]}
    except Exception:  # somebody else's code
        return {"other": f"a {type(value).__name__}"}


def receive(file: int) -> Any:
    """The next message; None when nobody asks any more."""
    head = exactly(file, 4)
    return json.loads(exactly(file, struct.unpack(">I", head)[0])) if len(head) == 4 else None


def exactly(file: int, size: int) -> bytes:
    parts, left = [], size
    while left and (part := os.read(file, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def send(file: int, message: Any) -> None:
    data = json.dumps(message).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(file, data) :]


def watch_parent(parent: int) -> None:
    """The same by a signal: a regular expression lets no thread in, but looks for signals."""

    def look(*_: object) -> None:
        if os.getppid() != parent:
            os._exit(1)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)


def leave_with_parent(parent: int) -> None:
    """End when keel has been killed, even in the middle of a function that never returns."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
