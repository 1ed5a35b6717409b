"""What both sides train: a random Llama with a tokenizer made for the data, and HH pairs as token ids."""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from keel.core.errors import DataError
from keel.core.files import tree_sha256

FORMAT = "3"  # of the cached folder


@dataclass(frozen=True, kw_only=True)
class LlamaShape:
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    tied: bool = True
    """Whether the output layer is the embedding."""


SHAPES = {
    "tiny": LlamaShape(hidden=32, inner=64, layers=2, heads=2, kv_heads=1),
    "7m": LlamaShape(hidden=256, inner=688, layers=8, heads=4, kv_heads=2),
    "12m": LlamaShape(hidden=384, inner=1024, layers=6, heads=6, kv_heads=3),
}


@dataclass(frozen=True, kw_only=True)
class Material:
    """A cached folder."""

    model: Path
    reward_model: Path
    records: Path
    """JSON list of {prompt_text, prompt, chosen, rejected}."""
    count: int
    parameters: int


def prepare(
    cache: Path, data: Path, *, model: str, vocabulary: int, max_tokens: int, ending_tokens: int, seed: int
) -> Material:
    """The material for these settings, made when it is not cached.

    `model` names a shape or a folder of any causal language model. A response ends at the end-of-sequence token and at
    `ending_tokens` further ones drawn at random: a random model says each token about equally often, so with k of V
    tokens a response has about V / k tokens.
    """
    source = hh_file(data)
    key = {
        "format": FORMAT,
        "data": [source.name, source.stat().st_size],
        "model": model if model in SHAPES else tree_sha256(Path(model)),
        "shape": asdict(SHAPES[model]) if model in SHAPES else None,
        "vocabulary": vocabulary,
        "max_tokens": max_tokens,
        "ending_tokens": ending_tokens,
        "seed": seed,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / "material" / name
    made = folder / "made.json"
    if not made.is_file():
        work = folder.with_name(f"{name}.{os.getpid()}")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        from peers.making import make

        facts = make(
            work,
            source,
            model=model,
            shape=SHAPES.get(model),
            vocabulary=vocabulary,
            max_tokens=max_tokens,
            ending_tokens=ending_tokens,
            seed=seed,
        )
        (work / "made.json").write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    facts = json.loads(made.read_text(encoding="utf-8"))
    return Material(model=folder / "model", reward_model=folder / "reward", records=folder / "records.json", **facts)


def hh_file(data: Path) -> Path:
    """The training file of an HH folder."""
    for name in ("train.jsonl.gz", "train.jsonl"):
        if (data / name).is_file():
            return data / name
    raise DataError(
        f"{data} holds no train.jsonl.gz. The comparison runs on HH pairs: name a folder that has the harmless-base "
        "part of https://github.com/anthropics/hh-rlhf with --data."
    )
