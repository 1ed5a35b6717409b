"""Tiny recipes: a model folder, data of a toy world written on the spot, and a whole pipeline in a second or two.

The toy world: questions about parcels; an answer with `thank` in it is better than one with `late` in it.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from helpers.tiny import tiny_model, tiny_tokenizer

from keel.core.artifacts import Artifact, load_artifact
from keel.core.config import load_config
from keel.core.events import read_events
from keel.core.progress import Silent
from keel.models.load import save_causal_lm
from keel.stages import pipeline
from keel.stages.recipe import Recipe

ADJECTIVES = ("new", "old", "red", "blue", "broken", "found", "lost", "fast", "slow", "good")
NOUNS = ("parcel", "order", "refund", "cat", "dog")
PROMPTS = tuple(f"how is my {adjective} {noun} ?" for noun, adjective in itertools.product(NOUNS, ADJECTIVES))


def answers(number: int) -> tuple[str, str]:
    """A better and a worse answer, of changing length."""
    day = ("now", "soon", "again", "this week", "yes please")[number % 5]
    return f" thank you . it is found {day} .", f" sorry it was late {day} ." + " no ." * (number % 3)


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """JSON lines; strings are written as they are, so that broken lines can be planted."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def as_chat(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text.strip()}]


def write_data(folder: Path, count: int = 40, *, chat: bool = False) -> None:
    """demos.jsonl, pairs.jsonl (better answers on both sides) and prompts.jsonl in `folder`."""
    demos, pairs, prompts = [], [], []
    for number, prompt in enumerate(PROMPTS[:count]):
        better, worse = answers(number)
        a, b = (better, worse) if number % 2 else (worse, better)
        if chat:
            demos.append({"messages": as_chat(prompt) + as_chat(better, "assistant")})
            sides = {"response_a": as_chat(a, "assistant"), "response_b": as_chat(b, "assistant")}
            pairs.append({"prompt": as_chat(prompt), **sides, "preference": float(a == better)})
            prompts.append({"prompt": as_chat(prompt)})
        else:
            demos.append({"prompt": prompt, "response": better})
            pairs.append({"prompt": prompt, "response_a": a, "response_b": b, "preference": float(a == better)})
            prompts.append({"prompt": prompt})
    for name, rows in (("demos", demos), ("pairs", pairs), ("prompts", prompts)):
        write_lines(folder / f"{name}.jsonl", rows)


def model_folder(path: Path, name: str = "llama", *, seed: int = 0, chat: bool = False, **changes: Any) -> Path:
    """A tiny random model with its tokenizer, as transformers saves it."""
    save_causal_lm(path, tiny_model(name, seed, **changes), tiny_tokenizer(chat=chat))
    return path


BASE: dict[str, Any] = {
    "threads": 1,
    "data": {
        "demonstrations": {"path": "demos.jsonl"},
        "comparisons": {"path": "pairs.jsonl", "holdout": 0.25},
        "prompts": {"path": "prompts.jsonl", "holdout": 0.25},
        "max_tokens": 64,
    },
    "sft": {"epochs": 1, "batch": 16, "optim": {"learning_rate": 3e-3}},
    "reward": {"batch": 16, "best_of": 2, "best_of_prompts": 4, "optim": {"learning_rate": 3e-3}},
    "ppo": {
        "updates": 2,
        "prompts": 4,
        "samples": 2,
        "max_new_tokens": 8,
        "evaluate_every": 1,
        "evaluate_prompts": 4,
        "ppo": {"epochs": 1, "minibatches": 2},
        "optim": {"learning_rate": 1e-3},
    },
    "evaluate": {"prompts": 6},
}
"""Every stage, as small as it goes. Paths start at the recipe's folder."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, dict by dict; None removes a key."""
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        if value is None:
            out.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(old, Mapping):
            out[key] = merged(old, value)
        else:
            out[key] = value
    return out


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    """The recipe's values for the model in `folder`/model."""
    return merged({**BASE, "model": {"path": str(folder / "model")}}, changes)


def recipe(folder: Path, overrides: Iterable[str] = (), **changes: Any) -> Recipe:
    """BASE with `changes` and the model of `folder`."""
    return load_config(Recipe, None, list(overrides), base=values(folder, **changes))


class Workplace:
    """A folder with a model, data and runs."""

    def __init__(
        self, folder: Path, name: str | None = "llama", *, count: int = 40, chat: bool = False, **model: Any
    ) -> None:
        """`name` None makes no model."""
        self.folder = folder
        if name is not None:
            model_folder(folder / "model", name, chat=chat, **model)
        write_data(folder, count, chat=chat)

    def write(self, name: str, content: str | Iterable[Any]) -> Path:
        """A file of text, or of JSON lines."""
        path = self.folder / name
        if isinstance(content, str):
            path.write_text(content)
            return path
        return write_lines(path, content)

    def recipe(self, overrides: Iterable[str] = (), **changes: Any) -> Recipe:
        return recipe(self.folder, overrides, **changes)

    def run(
        self,
        overrides: Iterable[str] = (),
        *,
        only: str | None = None,
        to: str = "run",
        page: bool = False,
        reuse: Sequence[Path] = (),
        **changes: Any,
    ) -> "Ran":
        """Run the recipe in process, without progress; the page takes half of the time, so it is drawn on request."""
        target = self.folder / to
        with nullcontext() if page else patch.object(pipeline, "write_report"):
            summary = pipeline.run(
                self.recipe(overrides, **changes),
                target,
                Silent(),
                only=only,
                reuse=reuse,
                recipe_folder=self.folder,
            )
        return Ran(target, summary)


class Ran:
    """A run that has ended."""

    def __init__(self, directory: Path, summary: dict[str, Any]) -> None:
        self.directory, self.summary = directory, summary

    @property
    def stages(self) -> dict[str, Any]:
        return self.summary["stages"]

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        found = read_events(self.directory / "events.jsonl")
        return found if event is None else [e for e in found if e["event"] == event]

    def trained(self) -> list[str]:
        """Labels of the stages that did work, in order, over all runs in this folder."""
        return [e["stage"] for e in self.events("stage_started")]

    def artifact(self, stage: str) -> Artifact:
        return load_artifact(self.directory / "artifacts" / self.stages[stage]["artifact"], verify=True)
