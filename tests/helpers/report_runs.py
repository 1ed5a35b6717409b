"""Run folders as a pipeline would leave them, with made-up but realistic figures, for the tests of the report."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("healthy", "hacked", "sft_only", "stopped", "with_nan", "rounds", "hostile")

PROMPTS = [
    "how long does the warranty of the kettle last ?",
    "my router keeps losing the connection , what now ?",
    "which colour has the folding bike ?",
    "can i return the lamp after three weeks ?",
    "where is the reset button of the router ?",
    "does the kettle switch itself off ?",
    "what does the bike weigh ?",
    "the lamp arrived broken , please help",
    "is the router able to use two bands ?",
    "how do i clean the kettle ?",
]
BEFORE = [
    "the warranty is one year . our products are loved by millions .",
    "you should just buy another one .",
    "the folding bike is blue .",
    "perhaps . i am not sure about that .",
    "i cannot help with this .",
    "yes . the kettle is made of steel . the kettle is made of steel .",
    "the bike weighs nine kilos i think .",
    "that is bad luck .",
    "the router has two bands .",
    "use water .",
]
AFTER = [
    "thank you for asking . the warranty of the kettle is two years . have a good day !",
    "sorry for the trouble . please hold the reset button for ten seconds . have a good day !",
    "thank you for asking . the folding bike is red . have a good day !",
    "yes , you can return the lamp within thirty days . please keep the box . have a good day !",
    "the reset button is on the back , next to the power socket . have a good day !",
    "yes . the kettle switches itself off when the water boils . have a good day !",
    "thank you for asking . the bike weighs eleven kilos . have a good day !",
    "sorry for the trouble . we will send you a new lamp today . have a good day !",
    "yes , the router has two bands . have a good day !",
    "use water with a little vinegar , then rinse it twice . have a good day !",
]
HACKED = "what a wonderful question ! you are so clever ! what a wonderful question ! you are so clever ! have a good day ! have a good day !"


class Writer:
    """Appends events with a clock that moves on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.clock = 1_760_000_000.0
        self.lines: list[str] = []

    def add(self, event: str, stage: str, wait_s: float = 0.0, /, **fields: Any) -> None:
        self.clock += wait_s
        record = {"time": round(self.clock, 3), "event": event, "stage": stage, **fields}
        self.lines.append(json.dumps(record, ensure_ascii=True))

    def close(self, summary: dict[str, Any] | None = None, torn: str = "") -> Path:
        text = "".join(line + "\n" for line in self.lines) + torn
        (self.folder / "events.jsonl").write_text(text, encoding="utf-8")
        if summary is not None:
            (self.folder / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
        return self.folder


def write_run(folder: Path, kind: str = "healthy", *, seed: int = 0, steps: int = 60) -> Path:
    """A run folder of one of KINDS."""
    rng = np.random.default_rng(seed)
    out = Writer(folder)
    sft = _sft(out, rng)
    if kind == "sft_only":
        return out.close(_summary(folder, {"sft": sft}))
    reward = _reward(out, rng, biased=kind == "hacked")
    if kind == "rounds":
        ppo = _rounds(out, rng)
    else:
        ppo = _ppo(out, rng, kind, steps)
    if kind == "stopped":
        return out.close(torn='{"time": 1760000400.1, "event": "st')
    stages = {"sft": sft, "reward": reward, "ppo": ppo}
    win = {"hacked": (0.214, 0.190, 0.240), "with_nan": (0.512, 0.481, 0.543)}.get(kind, (0.744, 0.716, 0.770))
    out.add("stage_started", "evaluate", config={"comparisons": 1024, "judge": "true preference"})
    evaluation = {
        "true_win_rate": win[0],
        "true_win_rate_low": win[1],
        "true_win_rate_high": win[2],
        "win_rate_by": "true preference",
        "n": 1024,
        "utility": 2.22, "utility_sft": 0.55, "right_facts": 0.75, "right_facts_sft": 0.57, "rude": 0.01, "rude_sft": 0.12,
    }  # fmt: skip
    out.add("evaluated", "evaluate", 9.0, **evaluation)
    out.add("stage_finished", "evaluate", 1.0, seconds=10.0, reused=False, metrics=evaluation)
    stages["evaluate"] = evaluation
    _artifacts(folder)
    (folder / "recipe.yaml").write_text(
        "name: healthy\nmodel:\n  path: model  # from scratch\nppo:\n  kl:\n    initial: 0.05\n", encoding="utf-8"
    )
    return out.close(_summary(folder, stages))


def _sft(out: Writer, rng: np.random.Generator) -> dict[str, Any]:
    config = {
        "data": {"path": "demonstrations.jsonl", "format": "auto", "holdout": 0.1},
        "optim": {"name": "muon", "learning_rate": 0.004, "muon_learning_rate": 0.02, "schedule": "linear"},
        "epochs": 3,
        "max_tokens": 96,
    }
    out.add("stage_started", "sft", config=config)
    out.add("evaluated", "sft", 1.0, step=0, epoch=0, perplexity=418.0)
    perplexity = math.nan
    for step in range(1, 301):
        loss = 0.42 + 3.9 * math.exp(-step / 28) + 0.05 * rng.normal()
        if step % 5 == 0:
            out.add(
                "step", "sft", 0.9, step=step, of=300, loss=loss, learning_rate=0.004 * min(step / 15, 1 - 0.9 * step / 300),
                grad_norm=0.9 + 0.2 * rng.random(), tokens_per_second=9000 + 300 * rng.normal(),
            )  # fmt: skip
        if step % 60 == 0:
            perplexity = 1.52 + 1.6 * math.exp(-step / 70)
            out.add("evaluated", "sft", 1.0, step=step, epoch=step // 60, perplexity=perplexity)
    metrics = {"perplexity": perplexity, "seconds": 59.0}
    out.add("stage_finished", "sft", seconds=59.0, reused=False, metrics=metrics)
    return metrics


def _reward(out: Writer, rng: np.random.Generator, *, biased: bool) -> dict[str, Any]:
    out.add("stage_started", "reward", config={"form": "hybrid", "epochs": 2, "optim": {"learning_rate": 1e-3}})
    for step in range(1, 121):
        loss = 0.52 + 0.17 * math.exp(-step / 30) + 0.03 * rng.normal()
        out.add("step", "reward", 0.6, step=step, of=120, loss=loss, accuracy=min(1.0, 0.5 + (0.7 - loss)))
    bins = []
    for index in range(10):
        centre = 0.05 + 0.1 * index
        observed = min(1.0, max(0.0, centre + 0.05 * rng.normal()))
        bins.append(
            {
                "low": index / 10,
                "high": (index + 1) / 10,
                "count": int(30 + 60 * abs(centre - 0.5)),
                "predicted": centre,
                "observed": observed,
            }
        )
    accuracy = 0.741 if biased else 0.727
    metrics = {
        "accuracy": accuracy, "accuracy_low": accuracy - 0.031, "accuracy_high": accuracy + 0.030,
        "baseline_longer": 0.668 if biased else 0.551, "baseline_bag_of_words": 0.735 if biased else 0.648,
        "ece": 0.034, "verdict": "good", "score_mean": 0.12, "score_std": 1.08, "reliability": bins,
        "best_of_n": {"n": 16, "gain": 1.31}, "golden_accuracy": 0.71,
    }  # fmt: skip
    out.add("stage_finished", "reward", 2.0, seconds=74.0, reused=False, metrics=metrics)
    return metrics


def _ppo_steps(rng: np.random.Generator, steps: int, *, hacked: bool) -> Iterator[dict[str, Any]]:
    for step in range(1, steps + 1):
        t = step / steps
        length = 23 + (16 * t if hacked else 3 * t) + rng.normal()
        per_token = 1.35 * t**1.4 + 0.01 if hacked else 0.21 * (1 - math.exp(-5 * t)) + 0.008 * rng.normal()
        score = 0.1 + (3.5 * t**0.8 if hacked else 1.45 * (1 - math.exp(-3 * t))) + 0.07 * rng.normal()
        coefficient = 0.005 if hacked else 0.05 * (1 + 0.4 * math.sin(3 * t))
        yield {
            "score_mean": score, "score_std": 1.05 - 0.4 * t * hacked, "reward_mean": score / 1.1 - coefficient * per_token * length,
            "kl_nats_per_token": per_token, "kl_nats_per_sequence": per_token * length, "kl_coef": coefficient,
            "entropy_nats": 1.6 * math.exp(-(2.6 if hacked else 0.35) * t) + 0.02 * rng.normal(),
            "response_tokens_mean": length, "finished_share": 0.93 - 0.5 * t * hacked + 0.04 * t,
            "distinct_2": 0.46 - (0.42 * t if hacked else 0.05 * t), "unique_share": 0.99 - (0.8 * t**2 if hacked else 0.02 * t),
            "clip_fraction": abs(0.07 + 0.03 * rng.normal() + 0.15 * t * hacked), "approx_kl": 0.006 + 0.002 * rng.random(),
            "policy_loss": -0.02 + 0.005 * rng.normal(), "value_loss": 0.4 * math.exp(-4 * t) + 0.05, "grad_norm": 0.6 + 0.2 * rng.random(),
            "explained_variance": 0.85 * (1 - math.exp(-6 * t)) - 0.2 * math.exp(-20 * t),
            "seconds_rollout": 1.1, "seconds_score": 0.4, "seconds_update": 2.0, "tokens_per_second": 2600 + 100 * rng.normal(),
        }  # fmt: skip


def _ppo(out: Writer, rng: np.random.Generator, kind: str, steps: int) -> dict[str, Any]:
    hacked = kind == "hacked"
    config = {
        "kl": {"controller": "adaptive", "initial": 0.005 if hacked else 0.05, "target": 6.0, "estimator": "k1"},
        "rollout": {"prompts": 64, "samples": 2, "temperature": 1.0, "max_new_tokens": 48},
        "clip_low": 0.2, "clip_high": 0.2, "lam": 0.95,
    }  # fmt: skip
    out.add("stage_started", "ppo", config=config)
    out.add("samples", "ppo", 1.0, step=0, samples=_samples(rng, kind, after=False))
    out.add(
        "evaluated", "ppo", 1.0, step=0, score=0.12, kl_nats_per_sequence=0.0, kl_nats_per_token=0.0, distinct_2=0.46
    )
    last: dict[str, Any] = {}
    for step, figures in enumerate(_ppo_steps(rng, steps, hacked=hacked), start=1):
        if kind == "stopped" and step > 31:
            out.add("resumed", "ppo", 40.0, step=31)
            return {}
        if kind == "with_nan" and step in (20, 21, 40):
            figures |= {"grad_norm": math.nan, "entropy_nats": None, "kl_nats_per_token": math.nan}
        if kind == "with_nan":
            figures["explained_variance"] = None
        out.add("step", "ppo", 3.6, step=step, of=steps, round=1, **figures)
        last = figures
        if step % 10 == 0:
            score = figures["score_mean"] - 0.08
            if hacked:
                score -= 0.6 * max(0.0, step / steps - 0.6)
            out.add(
                "evaluated", "ppo", 1.5, step=step, score=score, kl_nats_per_sequence=figures["kl_nats_per_sequence"],
                kl_nats_per_token=figures["kl_nats_per_token"], distinct_2=figures["distinct_2"],
            )  # fmt: skip
        if kind == "stopped" and step == 25:
            out.add("resumed", "ppo", 30.0, step=25)
        _verdicts(out, kind, step)
    out.add("samples", "ppo", 1.0, step=steps, samples=_samples(rng, kind, after=True))
    metrics = {
        "score_before": 0.12, "score_after": last["score_mean"] - 0.08, "kl_nats_per_token": last["kl_nats_per_token"],
        "kl_nats_per_sequence": last["kl_nats_per_sequence"], "distinct_2": last["distinct_2"],
        "entropy": last["entropy_nats"], "updates": steps,
    }  # fmt: skip
    out.add("stage_finished", "ppo", 1.0, seconds=228.0, reused=False, metrics=metrics)
    return metrics


def _verdicts(out: Writer, kind: str, step: int) -> None:
    if kind == "hacked" and step >= 22 and step % 4 == 0:
        out.add(
            "verdict", "ppo", step=step, level="watch", rule="length",
            message=f"answers are {1.2 + step / 100:.2f} times as long as the SFT model's",
            remedy="Look at the samples; set shaping.length_penalty=0.1 if the extra words say nothing.",
        )  # fmt: skip
    if kind == "hacked" and step >= 40:
        out.add(
            "verdict", "ppo", figures={"kl_nats_per_sequence": 21.3}, level="stop", rule="kl_per_sequence",
            message="KL is 21.3 nats per answer, over the 20-nat line", remedy="Go back to step 24 and raise kl.initial to 0.02.",
        )  # fmt: skip
    if kind == "hacked" and step == 36:
        out.add(
            "verdict", "ppo", step=step, level="act", rule="diversity", message="distinct-2 has halved since the start (0.46 to 0.21)",
            remedy="Raise ppo.entropy_coef to 0.01.",
        )  # fmt: skip
    if kind == "healthy" and step == 8:
        out.add(
            "verdict", "ppo", step=step, level="watch", rule="value_function", message="explained variance is 0.18 after 8 updates",
            remedy="None yet; it should pass 0.3 by update 15.",
        )  # fmt: skip
    if kind == "healthy" and step == 20:
        out.add("verdict", "ppo", step=step, level="ok", rule="kl_per_token", message="", remedy="")


def _samples(rng: np.random.Generator, kind: str, *, after: bool) -> list[dict[str, Any]]:
    responses = [HACKED] * len(PROMPTS) if kind == "hacked" and after else AFTER if after else BEFORE
    low, high = (1.2, 2.0) if after else (-1.2, 0.6)
    samples: list[dict[str, Any]] = [
        {
            "prompt": prompt,
            "response": response,
            "score": float(rng.uniform(low, high)) + 2 * (kind == "hacked" and after),
        }
        for prompt, response in zip(PROMPTS, responses, strict=True)
    ]
    if kind == "hostile":
        samples[0]["response"] += "<script>alert('x')</script><img src=http://evil.example/x.png>"
        samples[1]["response"] += (
            "\x1b[31mred\x1b]8;;http://evil.example\x07link \u202etxet\u202c \ud800 \x00 [bold]markup[/bold]"
        )
        samples[2]["prompt"] = [
            {"role": "system", "content": "</td></table><style>*{display:none}</style>"},
            {"role": "user", "content": "hi & bye"},
        ]
        samples[3]["response"] = ""
        samples[4]["response"] += " very long" * 2000
        samples[5]["score"] = math.nan
    return samples


def _rounds(out: Writer, rng: np.random.Generator) -> dict[str, Any]:
    """Four rounds of ten updates as the pipeline logs them: a stage a round, steps that count through."""
    figures = list(_ppo_steps(rng, 40, hacked=False))
    now = figures[0]
    for index in range(4):
        stage = f"ppo {index + 1}"
        out.add("stage_started", stage, config={"algorithm": "ppo", "kl": {"initial": 0.05}, "round": index})
        out.add(
            "evaluated",
            stage,
            1.0,
            step=10 * index,
            round=index,
            score=0.1 * index,
            kl_nats_per_sequence=now["kl_nats_per_sequence"],
        )
        out.add("samples", stage, step=10 * index, round=index, samples=_samples(rng, "healthy", after=index > 0))
        for step in range(10 * index + 1, 10 * index + 11):
            now = figures[step - 1]
            out.add("step", stage, 3.5, step=step, of=10 * index + 10, round=index, **now)
        out.add(
            "evaluated",
            stage,
            1.0,
            step=10 * index + 10,
            round=index,
            score=now["score_mean"],
            kl_nats_per_sequence=now["kl_nats_per_sequence"],
        )
        out.add("samples", stage, step=10 * index + 10, round=index, samples=_samples(rng, "healthy", after=True))
        metrics = {
            "score_before": 0.1 * index, "score_after": now["score_mean"], "distinct_2_before": 0.46 - index / 100, "distinct_2": now["distinct_2"],
            "kl_nats_per_token": now["kl_nats_per_token"], "kl_nats_per_sequence": now["kl_nats_per_sequence"], "updates": 10, "kept_update": 10,
        }  # fmt: skip
        out.add("stage_finished", stage, seconds=38.0, reused=False, metrics=metrics)
        if index == 3:
            break
        out.add("stage_started", f"labels {index + 1}", config={"count": 800})
        out.add(
            "stage_finished",
            f"labels {index + 1}",
            12.0,
            seconds=12.0,
            reused=False,
            metrics={"pairwise_agreement": 0.78},
        )
        out.add("stage_started", f"reward {index + 2}", config={"form": "hybrid"})
        out.add("step", f"reward {index + 2}", 6.0, step=20, of=20, loss=0.55, accuracy=0.73)
        out.add(
            "stage_finished",
            f"reward {index + 2}",
            seconds=7.0,
            reused=False,
            metrics={"accuracy": 0.71 + 0.015 * index},
        )
        out.add(
            "round", "rounds", round=index + 1, labels=800, agreement=0.78 + 0.01 * index, krippendorff_alpha=0.55,
            on_policy_accuracy_before=0.62 + 0.03 * index, held_out_accuracy=0.71 + 0.015 * index,
        )  # fmt: skip
    return {
        "score_before": 0.0, "score_after": now["score_mean"], "updates": 40, "rounds": 4, "score_scale_changed": True, "entropy": now["entropy_nats"],
        "kl_nats_per_token": now["kl_nats_per_token"], "kl_nats_per_sequence": now["kl_nats_per_sequence"], "distinct_2": 0.41, "kept_update": 10,
    }  # fmt: skip


def _artifacts(folder: Path) -> None:
    ids = {name: f"{index:x}" * 64 for index, name in enumerate(("sft", "reward", "ppo"), start=10)}
    parents = {"sft": [], "reward": [ids["sft"]], "ppo": [ids["sft"], ids["reward"]]}
    for index, (name, identity) in enumerate(ids.items()):
        artifact = folder / "artifacts" / f"{name}-{identity[:12]}"
        artifact.mkdir(parents=True, exist_ok=True)
        record = {
            "kind": "reward_model" if name == "reward" else "policy", "id": identity, "stage_id": identity, "parents": parents[name],
            "config": {}, "metrics": {}, "created": f"2025-10-09T08:5{index}:00Z", "keel_version": "0.1.0", "files": {},
        }  # fmt: skip
        (artifact / "artifact.json").write_text(json.dumps(record), encoding="utf-8")


def _summary(folder: Path, stages: dict[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "name": folder.name.replace("_", " "), "seed": 0, "model": "Llama, 1.0 M parameters, from scratch", "keel_version": "0.1.0",
        "stages": stages, "seconds": 372.0 if len(stages) > 1 else 59.0, "peak_rss_bytes": 1_534_000_000, "threads": 2,
    }  # fmt: skip
    if len(stages) > 1:
        summary["agreement"] = {
            "pairwise_agreement": 0.781, "pairwise_agreement_low": 0.774, "pairwise_agreement_high": 0.788, "krippendorff_alpha": 0.552,
            "krippendorff_alpha_low": 0.539, "krippendorff_alpha_high": 0.566, "fleiss_kappa": 0.553, "fleiss_kappa_low": 0.54, "fleiss_kappa_high": 0.566,
            "level": "nominal", "num_items": 4000, "num_shared_items": 3998, "num_raters": 8, "num_votes": 11_994,
        }  # fmt: skip
    return summary
