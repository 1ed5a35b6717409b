"""The score sheet: what a run truly achieved, written where the run cannot see it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keel.train.rollout import Judged

Truth = Callable[[Sequence[str], Sequence[str], Sequence[bool]], list[float]]


class Sheet:
    """Looks on at a run and notes the true reward of every rollout and evaluation, one JSON line each."""

    def __init__(self, path: Path, truth: Truth, *, texts: bool = False) -> None:
        self.path, self.truth, self.texts = path, truth, texts

    def __call__(self, stage: str, step: int, kind: Literal["step", "evaluated"], judged: Judged) -> None:
        said = judged.responses
        finished = said.finished.tolist()
        values = self.truth(said.prompt_texts, said.response_texts, finished)
        row: dict[str, Any] = {
            "stage": stage,
            "step": step,
            "kind": kind,
            "truth": float(np.mean(values)),
            "truth_std": float(np.std(values)),
            "responses": len(values),
            "proxy": float(judged.scores.raw.mean()),
            "truths": values,
        }
        if self.texts:
            row |= {
                "prompts": list(said.prompt_texts),
                "texts": list(said.response_texts),
                "finished": finished,
                "proxies": judged.scores.raw.tolist(),
            }
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read_sheet(path: Path) -> list[dict[str, Any]]:
    """Its rows; of a step that was done twice, after an interruption, the later one."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return list({(row["stage"], row["kind"], row["step"]): row for row in rows}.values())
