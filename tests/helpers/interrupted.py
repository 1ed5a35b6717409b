"""Runs that are killed at random moments and begun again, in processes of their own."""

import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from helpers.recipes import recipe
from tqdm import tqdm

from keel.core.events import read_events
from keel.core.files import file_sha256

# The server imports torch once; every child is forked from it and has never run a backward pass before.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["helpers.interrupted", "keel.stages.pipeline", "bitsandbytes"])


tqdm.get_lock()  # made here, in the server, so that a killed child leaves no semaphore of its own behind


def work(folder: Path, to: str, changes: dict[str, Any]) -> None:
    """One attempt at the whole recipe; the page is left out, it takes longer than the training."""
    import torch

    from keel.core.progress import Silent
    from keel.stages import pipeline

    torch.set_num_threads(1)
    with patch.object(pipeline, "write_report"):
        pipeline.run(recipe(folder, **changes), folder / to, Silent(), recipe_folder=folder)


def attempt(folder: Path, to: str, changes: dict[str, Any], kill_after_seconds: float | None = None) -> bool:
    """True when the run ended by itself; with a time given, it is killed then (signal 9)."""
    process = PROCESSES.Process(target=work, args=(folder, to, changes))
    process.start()
    process.join(kill_after_seconds)
    if ended := process.exitcode is not None:
        assert process.exitcode == 0
    else:
        process.kill()
        process.join()
    process.close()
    return ended


def interrupted(folder: Path, changes: dict[str, Any], kills: int, longest_s: float, seed: int = 0) -> list[Path]:
    """Run folders whose runs were killed `kills` times in all before they ended, each time within `longest_s`.

    A run that ends before its kill makes way for a new one.
    """
    draw, finished, killed = random.Random(seed), [], 0
    while killed < kills:
        to = f"interrupted {len(finished)}"
        if attempt(folder, to, changes, draw.uniform(0.02, longest_s)):
            finished.append(folder / to)
        else:
            killed += 1
    to = f"interrupted {len(finished)}"
    assert attempt(folder, to, changes)
    return [*finished, folder / to]


def work_until(folder: Path, to: str, changes: dict[str, Any], moments: int) -> None:
    """One attempt that kills itself (signal 9) at its `moments`-th moment: just before or after something is written."""
    from keel.core.events import EventLog
    from keel.store.queue import Queue
    from keel.train import resume

    left = moments

    def moment() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def calling(*arguments: Any, **named: Any) -> Any:
            moment()
            result = call(*arguments, **named)
            moment()
            return result

        return calling

    writers: list[tuple[Any, str]] = [
        *((EventLog, name) for name in ("append", "drop")),
        *((Queue, name) for name in ("ask", "answer_all", "verdicts")),
        (resume, "save_file"),
        (Path, "rename"),
        (shutil, "rmtree"),
    ]
    with ExitStack() as stack:
        for owner, name in writers:
            stack.enter_context(patch.object(owner, name, watched(getattr(owner, name))))
        work(folder, to, changes)


def killed_at(folder: Path, to: str, changes: dict[str, Any], moments: int) -> bool:
    """False when the run ended by itself before that moment."""
    process = PROCESSES.Process(target=work_until, args=(folder, to, changes, moments))
    process.start()
    process.join()
    status = process.exitcode
    process.close()
    assert status in (0, -signal.SIGKILL)
    return status != 0


def cut_short(folder: Path, changes: dict[str, Any], kills: int, furthest: int, seed: int = 0) -> list[Path]:
    """Like `interrupted`, but killed where it hurts: at moments that something is written, within `furthest`."""
    draw, finished, killed = random.Random(seed), [], 0
    while killed < kills:
        to = f"cut short {len(finished)}"
        if killed_at(folder, to, changes, draw.randint(1, furthest)):
            killed += 1
        else:
            finished.append(folder / to)
    to = f"cut short {len(finished)}"
    assert attempt(folder, to, changes)
    return [*finished, folder / to]


CLOCKS = {"seconds", "time", "tokens_per_second", "created", "peak_rss_bytes", "record_sha256"}
EVERY_ATTEMPT = {"stage_started", "stage_finished", "resumed", "records", "agreement", "round"}
"""Events that each attempt leaves, or that say how it went."""


def without_clocks(value: Any) -> Any:
    """`value` without what two equal runs differ in."""
    if isinstance(value, dict):
        return {k: without_clocks(v) for k, v in value.items() if k not in CLOCKS and not k.startswith("seconds_")}
    return [without_clocks(item) for item in value] if isinstance(value, list) else value


def left_behind(directory: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions: files of artifacts, their records, events, summary."""
    files = sorted(path for path in (directory / "artifacts").rglob("*") if path.is_file())
    events = [e for e in read_events(directory / "events.jsonl") if e["event"] not in EVERY_ATTEMPT]
    events.sort(key=lambda e: "step" in e)  # a verdict without a step is said anew when a stage goes on
    stages = dict.fromkeys(e["stage"] for e in events)
    return {
        "files": {
            path.relative_to(directory).as_posix(): file_sha256(path) for path in files if path.name != "artifact.json"
        },
        "records": {
            p.parent.name: without_clocks(json.loads(p.read_text())) for p in files if p.name == "artifact.json"
        },
        "events": {stage: [without_clocks(e) for e in events if e["stage"] == stage] for stage in stages},
        "summary": without_clocks(json.loads((directory / "summary.json").read_text())),
        "unfinished": sorted(p.name for p in (directory / "artifacts").glob(".*")),
        "checkpoints": sorted(p.name for p in (directory / "checkpoints").glob("*")),
    }
