"""Every method side by side on the demo's world, at equal compute: true win-rate over SFT, KL, seconds.

    python benchmarks/methods.py --json                       # all methods, seed 1
    python benchmarks/methods.py --only dpo,rloo --seeds 1,2  # some of them, two seeds
    python benchmarks/methods.py --plot docs/methods.svg

What is shared within a seed: the model, SFT, 2,500 comparisons of SFT samples judged by the world's raters, the reward
model trained on them, and the held-out questions of the evaluation, which the world's true preference judges. A method
may spend BUDGET CPU-seconds of one thread on top, 20 % more or less, by counts that were set once (METHODS) and not by
a clock, so that runs can be repeated. Best of n trains nothing and pays when it serves. `--only` runs some; finished
runs are kept in --cache and not done again.

Learning rates and KL coefficients were chosen on seed 0, which is not reported unless asked for.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[1]
BUDGET = 65.0
"""CPU-seconds that a method may train, sampling and judging included."""
COMPARISONS = 2500
PROMPTS = 1024
"""Held-out questions of the evaluation, one answer each."""
SHARED = (
    "threads=1",
    "reward.best_of=0",
    "guardian.mode=silent",
    "guardian.checks.every=0",
    f"rounds.first_comparisons={COMPARISONS}",
    f"evaluate.prompts={PROMPTS}",
)
ONLINE = ("ppo.kl={preset: none, controller: fixed, initial: 0.2}", "ppo.evaluate_every=1000")
GROUPS = ("ppo.optim.learning_rate=2.0e-4",)
OFFLINE = (
    "prefer.optim.learning_rate=1.0e-4",
    "prefer.batch=32",
    "prefer.max_new_tokens=48",
    "prefer.evaluate_every=33",
)
BEST_OF = ("best_of.n=8", "best_of.max_new_tokens=48")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a method runs here."""

    word: str
    """What `method:` says."""
    settings: tuple[str, ...]
    trains: str
    """The stage whose end ends training."""
    judge: str
    """Who says what is better while it learns."""
    labels: int = COMPARISONS
    """Human comparisons that it rests on."""
    budget: bool = True
    """Whether it spends the budget on training."""


def rl(word: str, updates: int, *settings: str, **more: Any) -> Entry:
    fixed = ("rounds.count=1", f"ppo.updates={updates}", *ONLINE)
    return Entry(word=word, settings=(*fixed, *settings), trains="ppo", judge="reward model", **more)


def pairs(word: str, epochs: int, *settings: str, judge: str = "people", **more: Any) -> Entry:
    fixed = ("rounds.count=1", f"prefer.epochs={epochs}", *OFFLINE)
    return Entry(word=word, settings=(*fixed, *settings), trains="prefer", judge=judge, **more)


METHODS: dict[str, Entry] = {
    "ppo": rl(
        "ppo", 24, "ppo.optim.learning_rate=4.0e-4", "ppo.ppo={epochs: 2, minibatches: 2, critic_learning_rate: 1.0e-3}"
    ),
    "rloo": rl("rloo", 48, *GROUPS),
    "grpo": rl("grpo", 48, *GROUPS, "ppo.grpo={preset: dr_grpo}"),
    "reinforce_pp": rl("reinforce_pp", 48, *GROUPS),
    "online_dpo": rl("online_dpo", 48, *GROUPS),
    "dpo": pairs("dpo", 3),
    "ipo": pairs("ipo", 3),
    "iterative_dpo": pairs(
        "iterative_dpo",
        1,
        "prefer.optim.learning_rate=2.0e-4",
        "rounds.count=3",
        "rounds.comparisons=400",
        "rounds.judge=reward",
        judge="people, then reward model",
    ),
    "rejection": Entry(
        word="rejection",
        settings=(
            "rounds.count=1",
            *BEST_OF,
            "best_of.prompts=512",
            "best_of.rounds=3",
            "best_of.train.optim.learning_rate=2.0e-4",
        ),
        trains="best_of",
        judge="reward model",
    ),
    "best_of_8": Entry(
        word="best_of_n", settings=("rounds.count=1", *BEST_OF), trains="evaluate", judge="reward model", budget=False
    ),
    "rlaif": pairs(
        "dpo",
        3,
        "rounds=null",
        "reward=null",
        f"feedback={{judge: {{python: 'assistant.py:judge'}}, comparisons: {COMPARISONS}}}",
        judge="AI",
        labels=0,
    ),
    "cai": pairs(
        "dpo",
        2,
        "rounds=null",
        "reward=null",
        "constitution={path: constitution.yaml, critic: {python: 'assistant.py:revise'}, prompts: 1000, rounds: 4, "
        "preferences: all, max_new_tokens: 48, "
        "sft: {epochs: 1, batch: 32, optim: {learning_rate: 2.0e-4, warmup_share: 0.1}}}",
        f"feedback={{judge: {{python: 'assistant.py:judge'}}, comparisons: {COMPARISONS}}}",
        judge="AI, by principles",
        labels=0,
    ),
    "rloo_in_rounds": rl(
        "rloo", 10, *GROUPS, "rounds.count=4", "rounds.comparisons=800", labels=COMPARISONS + 3 * 800, budget=False
    ),
}
"""Side by side. The last one is the demo's own course, with 2,400 further labels where the policy is."""
FIGURES = ("true_win_rate", "true_win_rate_low", "true_win_rate_high", "kl_nats_per_sequence")
FURTHER = (
    "utility",
    "utility_sft",
    "right_facts",
    "right_facts_sft",
    "garbled",
    "response_tokens_mean",
    "unique_share",
)


def recipe_of(files: Path, seed: int, settings: Sequence[str]) -> Any:
    """The demo's recipe for one method, with sections of all of them."""
    from keel.core.config import load_config
    from keel.stages.recipe import Recipe

    sections = ("prefer={}", "best_of={}")
    return load_config(Recipe, files / "recipe.yaml", [f"seed={seed}", *sections, *SHARED, *settings])


def world_of(cache: Path, seed: int) -> Path:
    """The files of a world, as the demo writes them."""
    from keel.demo.run import build

    files = cache / f"world-{seed}"
    if not files.is_dir():
        build(files, seed)
    return files


def shared(cache: Path, seed: int) -> dict[str, float]:
    """SFT, labels and reward model of a seed, once; CPU-seconds of SFT, and of labels with the reward model."""
    from keel.core.progress import Silent
    from keel.stages.pipeline import run

    note, out, files = cache / f"shared-{seed}.json", cache / f"shared-{seed}", world_of(cache, seed)
    if note.is_file():
        return json.loads(note.read_text())
    recipe = recipe_of(files, seed, ["method=rloo", "rounds.count=1"])
    begun = time.process_time()
    run(recipe, out, Silent(), recipe_folder=files, only="sft")
    tuned = time.process_time()
    run(recipe, out, Silent(), recipe_folder=files, only="reward")
    seconds = {"sft": tuned - begun, "labels_and_reward_model": time.process_time() - tuned}
    note.write_text(json.dumps(seconds))
    return seconds


def one(name: str, seed: int, extra: Sequence[str], cache: Path) -> dict[str, Any]:
    """Train and evaluate one method in this process."""
    from keel.core.progress import Silent
    from keel.stages.pipeline import run

    entry = METHODS[name]
    seconds = shared(cache, seed)
    files, out = world_of(cache, seed), cache / "runs" / key(name, seed, extra)
    if not out.is_dir():
        shutil.copytree(cache / f"shared-{seed}" / "artifacts", out / "artifacts")
    recipe = recipe_of(files, seed, [f"method={entry.word}", *entry.settings, *extra])
    before = done_seconds(out)
    begun = time.process_time()
    if entry.trains != "evaluate":
        run(recipe, out, Silent(), recipe_folder=files, only=entry.trains)
    spent = before + time.process_time() - begun
    (out / "cpu_seconds").write_text(str(spent))
    begun = time.process_time()
    summary = run(recipe, out, Silent(), recipe_folder=files)
    found = summary["stages"]["evaluate"]
    return {
        **{figure: found[figure] for figure in FIGURES},
        "seconds": spent if entry.budget or entry.trains != "evaluate" else time.process_time() - begun,
        "seconds_shared": seconds,
        "labels": entry.labels,
        "judge": entry.judge,
        "budgeted": entry.budget,
        **{figure: found[figure] for figure in FURTHER if figure in found},
    }


def done_seconds(out: Path) -> float:
    """CPU-seconds of an earlier, interrupted run in this folder that finished training."""
    note = out / "cpu_seconds"
    return float(note.read_text()) if note.is_file() else 0.0


def key(name: str, seed: int, extra: Sequence[str]) -> str:
    """Same for the same settings of the same method."""
    told = json.dumps([SHARED, METHODS[name].word, METHODS[name].settings, list(extra)])
    return f"{name}-{seed}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def result_of(name: str, seed: int, extra: Sequence[str], cache: Path) -> dict[str, Any]:
    """From the cache, or from a process of its own; {"error": ...} where the method cannot run."""
    file = cache / "results" / f"{key(name, seed, extra)}.json"
    if not file.is_file():
        changes = [word for setting in extra for word in ("-s", setting)]
        command = [sys.executable, __file__, "--cache", str(cache), "--one", name, str(seed), *changes]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return {"error": "\n".join(lines[-3:])}
    return json.loads(file.read_text())


def together(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of several seeds: means, and an interval of the mean win-rate from those of the seeds."""
    count = len(results)
    row = {
        name: sum(r[name] for r in results) / count for name in (*FIGURES, "seconds", *FURTHER) if name in results[0]
    }
    halves = [(r["true_win_rate_high"] - r["true_win_rate_low"]) / 2 for r in results]
    half = math.sqrt(sum(h * h for h in halves)) / count
    if count > 1:
        row |= {"true_win_rate_low": row["true_win_rate"] - half, "true_win_rate_high": row["true_win_rate"] + half}
    same = {name: results[0][name] for name in ("labels", "judge", "budgeted", "seconds_shared")}
    return {**row, **same, "by_seed": [r["true_win_rate"] for r in results]}


def table(found: dict[str, dict[str, Any]]) -> str:
    """The rows as a Markdown table, the best first."""
    lines = [
        "| method | true win-rate over SFT | KL, nats per sequence | utility | right facts | tokens | judge | labels "
        "| CPU-s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(found.items(), key=lambda item: -item[1]["true_win_rate"]):
        rate = f"{row['true_win_rate']:.3f} ({row['true_win_rate_low']:.3f} to {row['true_win_rate_high']:.3f})"
        lines.append(
            f"| `{name}` | {rate} | {row['kl_nats_per_sequence']:.2f} | {row.get('utility', math.nan):.2f} | "
            f"{row.get('right_facts', math.nan):.2f} | {row['response_tokens_mean']:.0f} | {row['judge']} | "
            f"{row['labels']:,} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def plot(found: dict[str, dict[str, Any]], path: Path) -> None:
    """True win-rate over KL, with intervals."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    colours = {"people": "#188038", "reward model": "#1a6fb0", "AI": "#c2571a"}
    with mpl.rc_context({"svg.hashsalt": "keel", "font.size": 9}):
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        panel = figure.subplots()
        panel.axhline(0.5, color="#999999", linewidth=0.6)
        seen = set()
        for row in sorted(found.values(), key=lambda row: row["kl_nats_per_sequence"]):
            kind = next(kind for kind in colours if row["judge"].startswith(kind))
            x, y = row["kl_nats_per_sequence"], row["true_win_rate"]
            error = [[y - row["true_win_rate_low"]], [row["true_win_rate_high"] - y]]
            label = None if kind in seen else f"judged by {kind}"
            seen.add(kind)
            panel.errorbar([x], [y], yerr=error, fmt="o", color=colours[kind], markersize=4, linewidth=0.8, label=label)
        panel.set_xlabel("KL from SFT (nats per sequence)")
        panel.set_ylabel("true win-rate over SFT")
        panel.set_xlim(left=0)
        panel.legend(fontsize=7.5, frameon=False, loc="lower right")
        write_names(panel, found)
        figure.savefig(path, metadata={"Date": None})


def write_names(panel: Axes, found: dict[str, dict[str, Any]]) -> None:
    """Each name beside its point, where it covers no other name, point or interval."""
    canvas = FigureCanvasAgg(panel.figure)
    canvas.draw()
    taken = []
    for row in found.values():
        ends = [(row["kl_nats_per_sequence"], row[f"true_win_rate_{end}"]) for end in ("low", "high")]
        taken.append(Bbox(panel.transData.transform(ends)).padded(3))
    for name, row in found.items():
        for far, (side, up) in product(range(5, 60, 5), product(("left", "right"), (0.6, -1.2, 1.8))):
            note = panel.annotate(
                name,
                (row["kl_nats_per_sequence"], row["true_win_rate"]),
                xytext=(far if side == "left" else -far, up * far),
                textcoords="offset points",
                ha=side,
                fontsize=7.5,
                arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#777777"} if far > 5 else None,
            )
            note.update_positions(canvas.get_renderer())
            box = Text.get_window_extent(note, canvas.get_renderer())  # without its line
            if panel.bbox.x0 < box.x0 and box.x1 < panel.bbox.x1 and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            note.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--only", default=",".join(METHODS), help="which methods, with commas (all)")
    parser.add_argument("--seeds", default="1", help="which seeds, with commas (1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "methods", help="where runs are kept")
    parser.add_argument("--plot", type=Path, help="write true win-rate over KL as an SVG here")
    parser.add_argument("-s", "--set", action="append", default=[], help="change a setting of every run, to try it")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    cache = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    if options.one:
        name, seed = options.one[0], int(options.one[1])
        if name == "shared":
            shared(cache, seed)
            return
        found = one(name, seed, options.set, cache)
        file = cache / "results" / f"{key(name, seed, options.set)}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found))
        return
    names, seeds = options.only.split(","), [int(seed) for seed in options.seeds.split(",")]
    if unknown := [name for name in names if name not in METHODS]:
        raise SystemExit(f"unknown: {', '.join(unknown)}. Known: {', '.join(METHODS)}")
    for seed in seeds:  # before runs at the same time would make it twice
        done = subprocess.run(
            [sys.executable, __file__, "--cache", str(cache), "--one", "shared", str(seed)],
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )
        if done.returncode:
            raise SystemExit(f"what all methods share could not be made for seed {seed}")

    def task(pair: tuple[str, int]) -> tuple[str, dict[str, Any]]:
        name, seed = pair
        found = result_of(name, seed, options.set, cache)
        told = found.get("error") or f"{found['true_win_rate']:.3f}, {found['seconds']:.0f} s"
        print(f"{name} {seed}: {told}", file=sys.stderr)
        return name, found

    results: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for name, found in pool.map(task, [(name, seed) for seed in seeds for name in names]):
            if "error" in found:
                failed[name] = found["error"]
            else:
                results.setdefault(name, []).append(found)
    rows = {name: together(found) for name, found in results.items()}
    for name, row in rows.items():
        if row["budgeted"] and abs(row["seconds"] / BUDGET - 1) > 0.2:
            print(f"{name} spent {row['seconds']:.0f} s, not {BUDGET:.0f} within 20 %", file=sys.stderr)
    if options.plot and rows:
        plot(rows, options.plot)
    if options.json:
        print(json.dumps({"seeds": seeds, "budget_seconds": BUDGET, "methods": rows, "failed": failed}, indent=1))
    else:
        print(table(rows))
    if failed:
        raise SystemExit(f"failed: {', '.join(f'{name} ({why})' for name, why in failed.items())}")


if __name__ == "__main__":
    main()
