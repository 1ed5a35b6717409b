"""What the signals of an update cost: `python benchmarks/signals.py` measures in about a minute on one core.

The share of a step comes from a short run of the demo's own recipe (`--run FOLDER` reads a finished run instead); times
of counting are CPU-time, the best of several, on texts whose tokens are as uneven as words are. With sacrebleu
installed its self-BLEU is timed and compared on the same texts.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from keel.batch.collate import EncodedResponse, token_batch
from keel.batch.types import Rollout, widen
from keel.core.events import read_events
from keel.core.progress import Silent
from keel.demo.run import QUICK, main_demo
from keel.stats.coverage import Coverage
from keel.stats.diversity import self_bleu
from keel.train.judge import Responses, Scores
from keel.train.rollout import Judged
from keel.train.signals import signals

SHAPES = ((32, 4, 30, 800), (128, 4, 256, 30_000))
"""Prompts, samples a prompt, tokens a response, vocabulary: the demo's rollout, and a large one."""
SEEN_TEXTS = 20_000
REPEATS = 5
SHORT_DEMO = (
    *QUICK,
    "threads=1",
    "data.demonstrations.limit=4000",
    "rounds.first_comparisons=300",
    "ppo.updates=6",
    "ppo.evaluate_every=6",
    "data.override_agreement=planted raters are meant to be bad",
    "reward.best_of=0",
    "evaluate.prompts=8",
)


def share_of_step(events: Iterable[Mapping[str, Any]]) -> float:
    """Seconds of signals over seconds of the update with its sampling and scoring: the median of RL's updates."""
    steps = [event for event in events if event["event"] == "step" and "seconds_signals" in event]
    return median(
        step["seconds_signals"] / sum(step[f"seconds_{part}"] for part in ("rollout", "score", "update"))
        for step in steps
    )


def demo_run(folder: Path) -> Path:
    """A short run of the demo's recipe: its model, its rollouts, fewer updates."""
    main_demo(folder, 0, SHORT_DEMO, Silent(), quick=True)
    return folder


def texts(count: int, tokens: int, vocabulary: int, seed: int) -> list[list[int]]:
    """Token ids with frequencies that fall as words' do (Zipf)."""
    rng = np.random.default_rng(seed)
    return (rng.zipf(1.3, size=(count, tokens)) % vocabulary).tolist()


def rollout(prompts: int, samples: int, tokens: int, vocabulary: int) -> Judged:
    """A judged rollout of such texts."""
    answers = [EncodedResponse(tokens=t) for t in texts(prompts * samples, tokens, vocabulary, 0)]
    batch = token_batch([[1]] * prompts, [answers[i : i + samples] for i in range(0, len(answers), samples)])
    draw = torch.Generator().manual_seed(0)
    raw = torch.randn(len(answers), generator=draw)
    finished = torch.ones(len(answers), dtype=torch.bool)
    empty = [""] * len(answers)
    return Judged(
        rollout=widen(
            batch,
            Rollout,
            logprobs=-torch.rand(batch.response_tokens.shape, generator=draw),
            ref_logprobs=-torch.rand(batch.response_tokens.shape, generator=draw),
            scores=raw,
            finished=finished,
        ),
        responses=Responses(batch=batch, prompt_texts=empty, response_texts=empty, finished=finished),
        scores=Scores(raw=raw, normalised=raw, parts={"reward_model": raw}),
        seconds_rollout=0.0,
        seconds_score=0.0,
    )


def best(work: Callable[[], object]) -> float:
    """CPU-milliseconds of the fastest of several calls."""
    taken = []
    for _ in range(REPEATS):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return 1000 * min(taken)


def counting(prompts: int, samples: int, tokens: int, vocabulary: int) -> dict[str, float]:
    """Milliseconds of all signals of one rollout, and of a set of what a reward model has seen."""
    judged = rollout(prompts, samples, tokens, vocabulary)
    seen = texts(SEEN_TEXTS, tokens, vocabulary, 1)
    begun = time.process_time()
    coverage = Coverage.of(seen)
    once = time.process_time() - begun
    return {
        "responses": prompts * samples,
        "tokens": tokens,
        "signals_ms": best(lambda: signals(judged, coverage)),
        "seen_trigrams": len(coverage.seen),
        "coverage_once_s": once,
    }


def beside_sacrebleu(count: int, tokens: int, vocabulary: int) -> dict[str, float]:
    """Both self-BLEUs of the same texts, smoothed alike, and how long they take."""
    from sacrebleu.metrics.bleu import BLEU

    logging.getLogger("sacrebleu").setLevel(logging.ERROR)  # it recommends effective_order, once a text
    rows = texts(count, tokens, vocabulary, 2)
    lines = [" ".join(map(str, row)) for row in rows]
    bleu = BLEU(tokenize="none", smooth_method="floor", smooth_value=0.1, effective_order=False)
    begun = time.process_time()
    theirs = np.mean([bleu.sentence_score(x, lines[:i] + lines[i + 1 :]).score / 100 for i, x in enumerate(lines)])
    taken = 1000 * (time.process_time() - begun)
    ours = best(lambda: self_bleu(rows))
    return {
        "responses": count,
        "tokens": tokens,
        "sacrebleu_ms": taken,
        "keel_ms": ours,
        "ratio": taken / ours,
        "difference": abs(float(theirs) - self_bleu(rows)),
    }


def measure(run: Path | None) -> dict[str, Any]:
    """All of it."""
    torch.set_num_threads(1)
    if run is None:
        with tempfile.TemporaryDirectory() as folder:
            share = share_of_step(read_events(demo_run(Path(folder)) / "events.jsonl"))
    else:
        share = share_of_step(read_events(run / "events.jsonl"))
    found: dict[str, Any] = {"signals_share_of_step": share, "counting": [counting(*shape) for shape in SHAPES]}
    if find_spec("sacrebleu"):
        found["self_bleu"] = [beside_sacrebleu(128, 30, 800), beside_sacrebleu(256, 60, 2000)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a finished run folder to take the share of a step from")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.run)
    if args.json:
        print(json.dumps(found))
        return
    print(f"signals: {found['signals_share_of_step']:.2%} of a step")
    for row in found["counting"]:
        print(
            f"{row['responses']} responses of {row['tokens']} tokens: {row['signals_ms']:.1f} ms; beside "
            f"{row['seen_trigrams']:,} seen trigrams, counted once in {row['coverage_once_s']:.2f} s"
        )
    for row in found.get("self_bleu", []):
        print(
            f"self-BLEU of {row['responses']} x {row['tokens']}: sacrebleu {row['sacrebleu_ms']:.0f} ms, keel "
            f"{row['keel_ms']:.1f} ms, {row['ratio']:.0f} times; difference {row['difference']:.1e}"
        )
    if "self_bleu" not in found:
        print("sacrebleu is not installed: its self-BLEU was not timed")


if __name__ == "__main__":
    main()
