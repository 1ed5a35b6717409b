"""What a run achieved in truth: SFT, peak, end, first alarm; from the score sheet and from the policy that was kept."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gold.sheet import Truth, read_sheet
from keel.core.artifacts import load_artifact
from keel.core.seed import derive
from keel.data.chat import decode_response
from keel.data.formats import read_prompts
from keel.data.split import split
from keel.models.generate import InProcessSampler
from keel.models.load import eos_ids
from keel.stages.encode import encode_prompts, fitting
from keel.stages.policy import PolicyFiles, frozen, load_policy, read_tokenizer
from keel.stages.recipe import Recipe
from keel.train.rollout import as_responses, sample_batch

WINDOW = 5
"""Updates whose rollouts make one point of the curve of true reward."""


def measured(recipe: Recipe, out: Path, truth: Truth, samples: int) -> dict[str, Any]:
    """The run's truth on its training prompts: SFT and the kept policy by `samples` answers, the way by rollouts."""
    base = PolicyFiles.of_model(recipe.model)
    kept = max(out.glob("artifacts/ppo-*"), key=lambda path: path.stat().st_mtime)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step" and event["stage"] == "ppo"]
    rows = [row for row in read_sheet(out / "sheet.jsonl") if row["kind"] == "step"]
    truths = np.array([row["truths"] for row in rows])
    actions = [event for event in events if event["event"] == "action"]
    checks = [event for event in events if event["event"] == "checked"]
    return {
        "sft": true_reward(recipe, base, truth, samples),
        "end": true_reward(recipe, base.of_artifact(load_artifact(kept, "policy")), truth, samples),
        "peak": cross_fitted_peak(truths),
        "truth": truths.mean(1).tolist(),
        "proxy": [step["score_mean"] for step in steps],
        "kl": [step["kl_nats_per_sequence"] for step in steps],
        "length": [step["response_tokens_mean"] for step in steps],
        "signals_share": float(
            np.median(
                [
                    s["seconds_signals"] / (s["seconds_rollout"] + s["seconds_score"] + s["seconds_update"])
                    for s in steps
                ]
            )
        ),
        "actions": [
            {
                name: a.get(name)
                for name in ("step", "action", "taken", "to_step", "rules", "after", "reason", "confidence")
            }
            for a in actions
        ],
        "labels": checks[-1]["labels_spent"] if checks else 0,
        "win_rates": [(c["step"], c["win_rate"]) for c in checks],
    }


def cross_fitted_peak(truths: np.ndarray) -> float:
    """Highest true reward [updates, responses] of WINDOW updates in a row: chosen on one half of the responses and
    read off the other, so that luck does not count, and the other way round.
    """
    halves = [smooth(truths[:, start::2].mean(1)) for start in (0, 1)]
    return float(np.mean([halves[1][halves[0].argmax()], halves[0][halves[1].argmax()]]))


def smooth(values: np.ndarray) -> np.ndarray:
    """Means of WINDOW values in a row."""
    return np.convolve(values, np.ones(min(WINDOW, len(values))) / min(WINDOW, len(values)), "valid")


def true_reward(recipe: Recipe, files: PolicyFiles, truth: Truth, samples: int) -> float:
    """Mean true reward of `samples` answers to training prompts, the same prompts for every policy."""
    tokenizer, model = read_tokenizer(files), frozen(load_policy(files))
    prompts = training_prompts(recipe, tokenizer)
    asked = [prompts[derive(0, "score", i) % len(prompts)] for i in range(samples)]
    batch, drawn = sample_batch(
        InProcessSampler(model, eos_ids(model, tokenizer)),
        asked,
        samples=1,
        max_new_tokens=recipe.ppo.max_new_tokens,
        temperature=recipe.ppo.temperature,
        seed=derive(0, "score"),
    )
    said = as_responses(batch, drawn.finished, [p.text for p in asked], partial(decode_response, tokenizer))
    return float(np.mean(truth(said.prompt_texts, said.response_texts, drawn.finished.tolist())))


def training_prompts(recipe: Recipe, tokenizer: Any) -> list:
    """The prompts that the run trained on."""
    train, _ = split(read_prompts(recipe.data.prompts), recipe.data.prompts.holdout)
    return encode_prompts(train, tokenizer, fitting(recipe.data), recipe.ppo.max_new_tokens, "ppo")
