"""Figures as a training program wrote them: one mapping of names to numbers for each step of its log.

Read are: `trainer_state.json` of transformers' Trainer (so all of TRL), JSON and JSONL of mappings (as exported from
W&B), what programs print (mappings, and the figures behind a tqdm bar), and TensorBoard's event files.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keel.core.errors import ArtifactError
from keel.diagnose.event_file import MARK, scalars
from keel.report.values import number

Row = dict[str, float]

STEPS = ("global_step", "step", "_step", "steps")
"""Names of the step, the one that counts first: W&B's `_step` counts calls, not updates."""
BOOKKEEPING = {*STEPS, "epoch", "_runtime", "_timestamp"}
SUMMARY = "train_runtime"
"""Stands only in the entry with which transformers' Trainer sums up a run."""
LOGS = ("*.jsonl", "*.log", "*.out", "*.txt")
VALUE = r"-?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
PRINTED = re.compile(rf"['\"]([\w./@ -]+)['\"]: ['\"]?({VALUE})\b")
BEHIND_BAR = re.compile(rf"([A-Za-z_][\w/]*)=({VALUE})(?=[,\]])")
BAR = re.compile(r"(?:Episode \[|Train step of epoch).*\|.*\[(.*\])")
STEP_PRINTED = re.compile(r"global[_ ]step[ :=]+(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rows:
    """A log's figures in the words of whoever wrote them, with `train/` and `eval_` taken off the names."""

    path: Path
    kind: str
    """What sort of file it was read from."""
    train: list[Row]
    evaluation: list[Row]

    def names(self) -> set[str]:
        """Every figure that stands in the training rows."""
        return {name for row in self.train for name in row} - BOOKKEEPING

    def evaluation_names(self) -> set[str]:
        return {name for row in self.evaluation for name in row} - BOOKKEEPING


def read_rows(path: Path) -> Rows:
    """The figures of a log file, or of the log that a folder holds."""
    if not path.exists():
        raise ArtifactError(f"{path}: there is no such file or folder. Give a run folder or a log file.")
    file = log_in(path) if path.is_dir() else path
    if MARK in file.name:
        return _sorted(file.parent, "TensorBoard event files", _from_event_files(file.parent))
    text = file.read_text(encoding="utf-8", errors="replace")
    if not text.strip():
        raise ArtifactError(f"{file} is empty: nothing was logged.")
    kind, entries = _entries(file, text)
    return _sorted(file, kind, entries)


def log_in(folder: Path) -> Path:
    """The log of a run folder: its own trainer_state.json, that of its last checkpoint, event files, other logs."""
    if (own := folder / "trainer_state.json").is_file():
        return own
    saved = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=_number_of_checkpoint)
    if saved:
        return saved[-1]
    if event_files := [file for file in folder.rglob(f"*{MARK}*") if file.is_file()]:
        return max(event_files, key=lambda file: file.stat().st_mtime)
    logs = [file for pattern in LOGS for file in folder.glob(pattern) if file.is_file()]
    if len(logs) == 1:
        return logs[0]
    if logs:
        names = ", ".join(sorted(file.name for file in logs)[:6])
        raise ArtifactError(f"{folder} holds several logs: {names}. Name the one to read.")
    raise ArtifactError(
        f"{folder} holds no log that keel knows. Looked for: events.jsonl (keel), trainer_state.json here or in "
        f"checkpoint-* (TRL), TensorBoard event files, and {', '.join(LOGS)} (OpenRLHF and others)."
    )


def _number_of_checkpoint(path: Path) -> int:
    digits = path.parent.name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def _entries(file: Path, text: str) -> tuple[str, list[Row]]:
    """What a text file holds, by its content."""
    if text.lstrip()[0] in "{[":
        try:
            document = json.loads(text)
        except ValueError:
            document = None  # lines of JSON, or printed mappings
        if isinstance(document, dict) and isinstance(document.get("log_history"), list):
            return "trainer_state.json, its log_history", _numbers(document["log_history"])
        if isinstance(document, list):
            return "a JSON list", _numbers(document)
        if isinstance(document, dict):
            return "JSON", _numbers([document])
        if rows := _json_lines(text):
            return "JSON lines", rows
    return "printed text", _printed(text)


def _json_lines(text: str) -> list[Row]:
    """Rows of lines that are JSON mappings; other lines say nothing."""
    found = []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return _numbers(found)


def _printed(text: str) -> list[Row]:
    """Rows of mappings that a program printed; without any, of the figures behind its progress bars."""
    rows, bars = [], []
    for line in re.split(r"[\r\n]+", text):
        if pairs := PRINTED.findall(line):
            row = {name: float(value) for name, value in pairs}
            if step := STEP_PRINTED.search(line):
                row.setdefault("global_step", float(step[1]))
            if "eval_metrics" in line:
                row = {name if name in STEPS or name.startswith("eval_") else f"eval_{name}": row[name] for name in row}
            rows.append(row)
        elif behind := BAR.search(line):
            row = {name: float(value) for name, value in BEHIND_BAR.findall(behind[1])}
            if row and (not bars or bars[-1] != row):  # a bar is drawn again without news
                bars.append(row)
    return rows or bars


def _from_event_files(folder: Path) -> list[Row]:
    found: list[Row] = []
    for file in sorted(folder.glob(f"*{MARK}*")):
        found += [{name: value, "global_step": float(step)} for step, name, value in scalars(file)]
    return found


def _numbers(entries: Iterable[Any]) -> list[Row]:
    """The numeric part of each mapping; a figure written as null is missing, nan and inf are kept."""
    rows = []
    for entry in entries:
        if isinstance(entry, Mapping) and SUMMARY not in entry:
            row = {str(key): number(value) for key, value in entry.items() if _is_number(value)}
            if row:
                rows.append(row)
    return rows


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(rf"[-+]?{VALUE}", value.strip(), re.IGNORECASE) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sorted(path: Path, kind: str, entries: list[Row]) -> Rows:
    """Training and evaluation apart, one row a step, in order. A step that was logged twice counts once, the last
    time: a run that was resumed wrote it again.
    """
    train: dict[float, Row] = {}
    evaluation: dict[float, Row] = {}
    latest = 0.0
    for entry in entries:
        named = {_plain(name): value for name, value in entry.items()}
        step = next((named[name] for name in STEPS if math.isfinite(named.get(name, math.nan))), None)
        training = {name: v for name, v in named.items() if not name.startswith("eval_")}
        evaluated = {name.removeprefix("eval_"): v for name, v in named.items() if name.startswith("eval_")}
        if evaluated:
            at = latest if step is None else step
            evaluation.setdefault(at, {}).update(evaluated, step=at)
        if set(training) - BOOKKEEPING:
            latest = latest + 1 if step is None else step
            train.setdefault(latest, {}).update(training, step=latest)
    return Rows(path, kind, [train[step] for step in sorted(train)], [evaluation[step] for step in sorted(evaluation)])


def _plain(name: str) -> str:
    """A name without the section that trackers sort it under: train/kl is kl, eval/loss is eval_loss."""
    if name.startswith("train/"):
        return name.removeprefix("train/")
    if name.startswith("eval/"):
        rest = name.removeprefix("eval/")
        return rest if rest in STEPS else f"eval_{rest.removeprefix('eval_')}"
    return name
