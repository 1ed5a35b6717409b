"""Logs as TRL and OpenRLHF write them, with the names of their source, of runs that are well or have a planted fault."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

UPDATES = 60
Log = list[dict[str, Any]]


def line(start: float, end: float, noise: float = 0.0, *, since: int = 0, updates: int = UPDATES, seed: int = 0):
    """[updates] from `start` to `end`, which begins to move at `since`, with normal noise."""
    moved = np.clip((np.arange(updates) - since) / max(1, updates - 1 - since), 0, 1)
    return start + (end - start) * moved + noise * np.random.default_rng(seed).standard_normal(updates)


def rows(figures: dict[str, Any], every: int = 1) -> Log:
    """Columns as rows with a step; a column that is one number stands in every row."""
    length = max(len(np.atleast_1d(values)) for values in figures.values())
    columns = {name: np.broadcast_to(values, length) for name, values in figures.items()}
    return [
        {name: float(column[at]) for name, column in columns.items()} | {"step": (at + 1) * every}
        for at in range(length)
    ]


def grpo(run: int = 0, **changed: Any) -> Log:
    """TRL's GRPOTrainer, a run that is well."""
    figures = {
        "loss": line(0.0, 0.01, 0.002, seed=100 * run + 1),
        "grad_norm": line(0.4, 0.4, 0.05, seed=100 * run + 2),
        "learning_rate": line(1e-6, 1e-7),
        "num_tokens": line(1e4, 6e5),
        "completions/mean_length": line(118, 124, 3, seed=100 * run + 3),
        "completions/min_length": 20.0,
        "completions/max_length": 256.0,
        "completions/clipped_ratio": np.abs(line(0.02, 0.02, 0.01, seed=100 * run + 4)),
        "completions/mean_terminated_length": line(116, 121, 3, seed=100 * run + 5),
        "rewards/helpful/mean": line(0.2, 0.7, 0.04, seed=100 * run + 6),
        "rewards/helpful/std": line(0.4, 0.35, 0.02, seed=100 * run + 7),
        "reward": line(0.2, 0.7, 0.04, seed=100 * run + 6),
        "reward_std": line(0.4, 0.35, 0.02, seed=100 * run + 7),
        "frac_reward_zero_std": np.abs(line(0.05, 0.08, 0.02, seed=100 * run + 8)),
        "kl": np.abs(line(0.001, 0.15, 0.005, seed=100 * run + 9)),
        "entropy": line(1.2, 1.05, 0.02, seed=100 * run + 10),
        "clip_ratio/low_mean": 0.0,
        "clip_ratio/high_mean": 0.0,
        "clip_ratio/region_mean": np.abs(line(0.01, 0.02, 0.003, seed=100 * run + 11)),
        "step_time": 4.0,
        "epoch": line(0, 1),
    }
    return rows(figures | changed)


def grpo_length_hack() -> Log:
    return grpo(
        **{
            "completions/mean_length": line(120, 420, 4, since=14, seed=3),
            "completions/clipped_ratio": np.clip(line(0.02, 0.7, 0.01, since=14, seed=4), 0, 1),
            "kl": np.abs(line(0.001, 0.6, 0.005, since=10, seed=9)),
            "reward": line(0.2, 1.6, 0.04, seed=6),
        }
    )


def grpo_collapse() -> Log:
    return grpo(
        **{
            "entropy": np.maximum(line(1.2, 0.02, 0.01, since=10, seed=10), 0.01),
            "frac_reward_zero_std": np.clip(line(0.05, 0.98, 0.01, since=10, seed=8), 0, 1),
            "reward_std": np.maximum(line(0.4, 0.0, 0.005, since=10, seed=7), 0.0),
            "rewards/helpful/std": np.maximum(line(0.4, 0.0, 0.005, since=10, seed=7), 0.0),
            "reward": line(0.2, 0.5, 0.004, since=10, seed=6),
            "kl": np.abs(line(0.001, 0.9, 0.005, since=10, seed=9)),
        }
    )


def ppo(run: int = 0, **changed: Any) -> Log:
    """TRL's PPOTrainer (PPOv2), a run that is well. objective/kl is per sequence."""
    kl = np.abs(line(0.0, 7.0, 0.3, seed=100 * run + 1))
    figures = {
        "eps": 8.0,
        "objective/kl": kl,
        "objective/entropy": line(60, 50, 2, seed=100 * run + 2),
        "objective/non_score_reward": -0.05 * kl,
        "objective/rlhf_reward": line(0.0, 1.4, 0.1, seed=100 * run + 3) - 0.05 * kl,
        "objective/scores": line(0.0, 1.4, 0.1, seed=100 * run + 3),
        "policy/approxkl_avg": np.abs(line(0.01, 0.01, 0.002, seed=100 * run + 4)),
        "policy/clipfrac_avg": np.abs(line(0.05, 0.05, 0.01, seed=100 * run + 5)),
        "loss/policy_avg": line(-0.01, -0.01, 0.003, seed=100 * run + 6),
        "loss/value_avg": np.abs(line(0.5, 0.1, 0.02, seed=100 * run + 7)),
        "val/clipfrac_avg": 0.01,
        "policy/entropy_avg": line(1.5, 1.3, 0.05, seed=100 * run + 8),
        "val/ratio": line(1.0, 1.0, 0.01, seed=100 * run + 9),
        "val/ratio_var": 0.001,
        "val/num_eos_tokens": 40.0,
        "lr": line(3e-6, 1e-8),
        "episode": np.arange(UPDATES) * 64 + 64,
        "epoch": line(0, 1),
    }
    return rows(figures | changed)


def ppo_drift() -> Log:
    kl = np.abs(line(0.0, 65.0, 0.5, since=12, seed=1))
    return ppo(
        **{"objective/kl": kl, "objective/non_score_reward": -0.05 * kl, "objective/scores": line(0, 5, 0.1, seed=3)}
    )


def ppo_nan() -> Log:
    broken = line(0.0, 1.4, 0.1, seed=3)
    broken[30:] = np.nan
    return ppo(**{"objective/scores": broken, "loss/policy_avg": np.where(np.arange(UPDATES) < 30, -0.01, np.nan)})


def dpo(**changed: Any) -> Log:
    """TRL's DPOTrainer, a run that is well, evaluated every tenth step."""
    figures = {
        "loss": line(0.693, 0.5, 0.02, seed=1),
        "grad_norm": line(3, 3, 0.3, seed=2),
        "learning_rate": line(5e-7, 1e-8),
        "rewards/chosen": line(0.0, 0.3, 0.05, seed=3),
        "rewards/rejected": line(0.0, -0.5, 0.05, seed=4),
        "rewards/accuracies": np.clip(line(0.5, 0.74, 0.03, seed=5), 0, 1),
        "rewards/margins": line(0.0, 0.8, 0.05, seed=6),
        "logps/chosen": line(-150, -147, 2, seed=7),
        "logps/rejected": line(-160, -165, 2, seed=8),
        "logits/chosen": -2.0,
        "logits/rejected": -2.1,
        "epoch": line(0, 1),
    }
    evaluated = {
        "eval_loss": line(0.68, 0.55, 0.003, updates=6),
        "eval_rewards/accuracies": line(0.55, 0.72, 0.005, updates=6),
        "eval_rewards/margins": line(0.05, 0.6, 0.01, updates=6),
        "eval_logps/chosen": line(-150, -147, 0.2, updates=6),
        "eval_runtime": 3.0,
    }
    training = {name: value for name, value in changed.items() if not name.startswith("eval_")}
    held_out = {name: value for name, value in changed.items() if name.startswith("eval_")}
    return [*rows(figures | training), *rows(evaluated | held_out, every=10)]


def dpo_overfit() -> Log:
    return dpo(
        **{
            "loss": np.abs(line(0.693, 0.02, 0.01, seed=1)),
            "rewards/accuracies": np.clip(line(0.5, 1.0, 0.01, seed=5), 0, 1),
            "eval_loss": np.array([0.66, 0.62, 0.6, 0.68, 0.8, 0.95]),
            "eval_rewards/accuracies": np.array([0.6, 0.66, 0.68, 0.67, 0.66, 0.66]),
        }
    )


def dpo_displaced() -> Log:
    return dpo(
        **{
            "rewards/chosen": line(0.0, -6.0, 0.05, since=10, seed=3),
            "logps/chosen": line(-150, -210, 2, since=10, seed=7),
            "eval_logps/chosen": line(-150, -208, 0.2, updates=6),
        }
    )


def reward(**changed: Any) -> Log:
    """TRL's RewardTrainer."""
    figures = {
        "loss": line(0.69, 0.52, 0.02, seed=1),
        "grad_norm": 2.0,
        "learning_rate": line(1e-5, 1e-7),
        "min_reward": line(-1, -4, 0.2, seed=2),
        "mean_reward": line(0, 0.1, 0.05, seed=3),
        "max_reward": line(1, 4, 0.2, seed=4),
        "accuracy": np.clip(line(0.5, 0.73, 0.03, seed=5), 0, 1),
        "margin": line(0, 0.9, 0.05, seed=6),
        "num_tokens": line(1e4, 5e5),
    }
    evaluated = {"eval_loss": line(0.68, 0.54, updates=6), "eval_accuracy": line(0.58, 0.71, updates=6)}
    training = {name: value for name, value in changed.items() if not name.startswith("eval_")}
    held_out = {name: value for name, value in changed.items() if name.startswith("eval_")}
    return [*rows(figures | training), *rows(evaluated | held_out, every=10)]


def reward_noise() -> Log:
    """Labels by the toss of a coin."""
    return reward(
        loss=line(0.693, 0.692, 0.005, seed=1),
        accuracy=line(0.5, 0.51, 0.02, seed=5),
        eval_accuracy=line(0.5, 0.515, updates=6),
        eval_loss=line(0.694, 0.693, updates=6),
    )


def sft() -> Log:
    """TRL's SFTTrainer."""
    figures = {
        "loss": line(2.2, 1.3, 0.03, seed=1),
        "grad_norm": 1.0,
        "learning_rate": line(2e-5, 0),
        "mean_token_accuracy": line(0.5, 0.66, 0.01, seed=2),
        "entropy": 1.4,
        "num_tokens": line(1e4, 6e5),
    }
    return [*rows(figures), *rows({"eval_loss": line(2.0, 1.35, updates=6), "eval_runtime": 2.0}, every=10)]


def openrlhf(run: int = 0, **changed: Any) -> Log:
    """OpenRLHF's train_ppo_ray from 0.11, a run that is well. kl is per token."""
    figures = {
        "policy_loss": line(0.0, -0.01, 0.003, seed=100 * run + 1),
        "entropy_loss": line(1.1, 0.95, 0.02, seed=100 * run + 2),
        "actor_lr": line(1e-6, 1e-7),
        "actor_grad_norm": line(0.5, 0.5, 0.05, seed=100 * run + 3),
        "kl": np.abs(line(0.0, 0.2, 0.005, seed=100 * run + 4)),
        "logprobs_diff": np.abs(line(0.0, 0.2, 0.005, seed=100 * run + 4)),
        "reward": line(0.1, 1.3, 0.08, seed=100 * run + 5),
        "return": line(0.0, 0.1, 0.02, seed=100 * run + 6),
        "response_length": line(200, 208, 4, seed=100 * run + 7),
        "total_length": line(300, 308, 4, seed=100 * run + 7),
        "truncated": np.abs(line(0.02, 0.02, 0.005, seed=100 * run + 8)),
        "response_clip_ratio": 0.0,
        "ppo_clip_ratio": np.abs(line(0.01, 0.02, 0.002, seed=100 * run + 9)),
        "ppo_kl": np.abs(line(0.001, 0.001, 0.0002, seed=100 * run + 10)),
        "group_reward_std": line(0.5, 0.45, 0.02, seed=100 * run + 11),
        "critic_loss": np.abs(line(0.4, 0.1, 0.01, seed=100 * run + 12)),
        "values": line(0, 1, 0.05, seed=100 * run + 13),
        "rollout/reward_mean": line(0.1, 1.3, 0.08, seed=100 * run + 5),
        "rollout/reward_std": line(0.8, 0.75, 0.03, seed=100 * run + 14),
        "rollout/response_length_mean": line(200, 208, 4, seed=100 * run + 7),
        "rollout/truncated_rate": np.abs(line(0.02, 0.02, 0.005, seed=100 * run + 8)),
        "timing/generation": 12.0,
    }
    return rows(figures | changed)


def openrlhf_drift() -> Log:
    kl = np.abs(line(0.0, 3.2, 0.01, since=15, seed=4))
    return openrlhf(kl=kl, logprobs_diff=kl)


def openrlhf_hack() -> Log:
    length = line(200, 700, 6, since=15, seed=7)
    cut = np.clip(line(0.02, 0.8, 0.005, since=15, seed=8), 0, 1)
    kl = np.abs(line(0.0, 0.8, 0.005, since=12, seed=4))
    return openrlhf(
        **{
            "response_length": length,
            "rollout/response_length_mean": length,
            "truncated": cut,
            "rollout/truncated_rate": cut,
            "kl": kl,
            "logprobs_diff": kl,
            "rollout/reward_mean": line(0.1, 3.5, 0.08, seed=5),
        }
    )


def trainer_state(log: Log, folder: Path, checkpoint: int | None = None) -> Path:
    """A trainer_state.json as transformers' Trainer saves it, with the entry that sums the run up."""
    inside = folder / f"checkpoint-{checkpoint}" if checkpoint else folder
    inside.mkdir(parents=True, exist_ok=True)
    end = {
        "train_runtime": 12.0,
        "train_loss": 0.1,
        "train_samples_per_second": 9.0,
        "total_flos": 0.0,
        "step": UPDATES,
    }
    state = {
        "best_metric": None,
        "epoch": 1.0,
        "global_step": UPDATES,
        "is_local_process_zero": True,
        "log_history": [*sorted(log, key=lambda entry: entry["step"]), end],
        "max_steps": UPDATES,
    }
    path = inside / "trainer_state.json"
    path.write_text(json.dumps(state, indent=2))
    return path


def json_lines(log: Log, path: Path) -> Path:
    """As exported from W&B: train/ before each name."""
    lines = [{f"train/{name}": value for name, value in row.items() if name != "step"} for row in log]
    for entry, row in zip(lines, log, strict=True):
        entry["train/global_step"] = row["step"]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return path


def printed(log: Log, path: Path) -> Path:
    """What OpenRLHF prints, among other things."""
    text = ["INFO 08-13 19:20:01 ppo_trainer.py:224] Sample: ['Hello {there}', 0.5]\n"]
    for row in log:
        figures = {name: value for name, value in row.items() if name != "step"}
        text.append(f"(PPOTrainer pid=77) INFO ppo_trainer.py:547] ✨ Global step {row['step']}: {figures}\n")
        text.append("Train epoch [1/1]: 100%|██████████| 4/4 [00:02<00:00, act_loss=0.01, kl=9, reward=7]\r")
    path.write_text("".join(text), encoding="utf-8")
    return path


def event_file(log: Log, folder: Path, section: str = "train/") -> Path:
    """A TensorBoard event file with one scalar a record, as SummaryWriter writes them; checksums are left at 0."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.1700000000.host.1.0"
    records = [_record(_field(3, 2, b"brain.Event:2"))]
    for row in log:
        for name, value in row.items():
            if name != "step":
                scalar = _field(1, 2, f"{section}{name}".encode()) + _field(2, 5, struct.pack("<f", value))
                event = _field(1, 1, struct.pack("<d", 1.7e9)) + _field(2, 0, _varint(int(row["step"])))
                records.append(_record(event + _field(5, 2, _field(1, 2, scalar))))
    path.write_bytes(b"".join(records))
    return path


def _record(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + bytes(4) + data + bytes(4)


def _field(number: int, wire: int, payload: bytes) -> bytes:
    return _varint(number << 3 | wire) + (_varint(len(payload)) if wire == 2 else b"") + payload


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
