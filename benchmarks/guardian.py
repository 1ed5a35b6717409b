"""What the guardian is worth, where the truth is known: the same runs with guards off and on, flaw by flaw.

    python benchmarks/guardian.py --json                 # all worlds and flaws, ten seeds each; hours on two cores
    python benchmarks/guardian.py --seeds 2 --worlds helpdesk --flaws none,length

Two worlds (gold/helpdesk.py, gold/sentiment.py) whose true reward is a function of the text that no run ever sees: an
observer notes it on a score sheet. Every pair of runs shares its reward model; the guarded one begins as the other
does. Finished runs are kept in --cache and not done again. Seeds 0 to 2 set the guardian's lines, the others report;
--all prints both.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[1]
WORLDS = ("helpdesk", "sentiment")
SET_THE_LINES = (0, 1, 2)
"""Seeds whose runs the thresholds were chosen on."""
SAMPLES = 960
"""Answers that measure SFT and the kept policies."""


def one(world: str, flaw: str, seed: int, guards: str, cache: Path) -> dict[str, Any]:
    """Do one run in this process, and say what it truly achieved."""
    from gold import helpdesk, sentiment
    from gold.outcome import measured
    from gold.sheet import Sheet

    from keel.core.progress import Silent
    from keel.stages.paths import locate
    from keel.stages.pipeline import run

    made = {"helpdesk": helpdesk, "sentiment": sentiment}[world]
    place = cache / world
    files, out = place / "files" / f"{flaw}-{seed}", place / "runs" / f"{flaw}-{seed}-{guards}"
    place.mkdir(parents=True, exist_ok=True)
    mode, _, budget = guards.partition("-")
    overrides = ["guardian.mode=silent", "guardian.checks.every=0"] if mode == "off" else []
    if budget:
        overrides = [f"guardian.checks.label_budget={budget}"]
    recipe = made.build(place, files, seed, flaw, overrides)
    shared = place / "runs" / f"{flaw}-{seed}-off" / "artifacts"
    if mode == "on" and shared.is_dir() and not out.is_dir():
        for folder in [*shared.glob("reward-*"), *shared.glob("data-*")]:
            shutil.copytree(folder, out / "artifacts" / folder.name)
    out.mkdir(parents=True, exist_ok=True)
    truth = made.truth_of(seed)
    run(recipe, out, Silent(), recipe_folder=files, only="ppo", observe=Sheet(out / "sheet.jsonl", truth))
    return measured(locate(recipe, files), out, truth, SAMPLES)


def result_of(world: str, flaw: str, seed: int, guards: str, cache: Path) -> dict[str, Any]:
    """The result of one run, from the cache or from a process of its own."""
    file = cache / world / "results" / f"{flaw}-{seed}-{guards}.json"
    if not file.is_file():
        command = [sys.executable, __file__, "--cache", str(cache), "--one", world, flaw, str(seed), guards]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(f"{world} {flaw} {seed} {guards} failed:\n{done.stderr[-3000:]}")
    return json.loads(file.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each flaw (10)")
    parser.add_argument("--first", type=int, default=0, help="first seed (0)")
    parser.add_argument("--worlds", default=",".join(WORLDS), help="which worlds, with commas")
    parser.add_argument("--flaws", default="", help="which flaws, with commas (all)")
    parser.add_argument("--guards", default="off,on", help="off, on, on-N for a budget of N labels, with commas")
    parser.add_argument("--all", action="store_true", help="report on the seeds that set the lines too")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "guardian", help="where runs are kept")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one core each")
    parser.add_argument("--plot", type=Path, help="write the curves over sqrt(KL) as an SVG here")
    parser.add_argument("--one", nargs=4, metavar=("WORLD", "FLAW", "SEED", "GUARDS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    cache = options.cache.resolve()
    if options.one:
        world, flaw, seed, guards = options.one
        file = cache / world / "results" / f"{flaw}-{seed}-{guards}.json"
        found = one(world, flaw, int(seed), guards, cache)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".partial")
        draft.write_text(json.dumps(found))
        draft.replace(file)
        return

    from gold import helpdesk, sentiment

    flaws = {"helpdesk": helpdesk.FLAWS, "sentiment": sentiment.FLAWS}
    wanted = [
        (world, flaw, seed)
        for seed in range(options.first, options.first + options.seeds)
        for world in options.worlds.split(",")
        for flaw in (options.flaws.split(",") if options.flaws else flaws[world])
        if flaw in flaws[world]
    ]

    def both(task: tuple[str, str, int]) -> dict[str, Any]:
        world, flaw, seed = task
        runs = {guards: result_of(world, flaw, seed, guards, cache) for guards in options.guards.split(",")}
        print(f"{world} {flaw} {seed} done", file=sys.stderr)
        return {"world": world, "flaw": flaw, "seed": seed, **runs}

    # A seed's first run makes what its others share, so no two runs of a seed are at work at once.
    groups: dict[tuple[str, int], list[tuple[str, str, int]]] = {}
    for task in wanted:
        groups.setdefault((task[0], task[2]), []).append(task)
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = [row for group in pool.map(lambda tasks: [both(t) for t in tasks], groups.values()) for row in group]
    if options.guards != "off,on":
        return
    from gold.score import figures, tables

    others = [row for row in rows if row["seed"] not in SET_THE_LINES]
    reporting = rows if options.all or not others else others
    if not others:
        print("only seeds that set the guardian's lines were run: these figures flatter it", file=sys.stderr)
    found = figures(reporting)
    if options.plot:
        from gold.curves import plot

        plot(rows, options.plot)
    print(json.dumps(found) if options.json else tables(found, reporting))


if __name__ == "__main__":
    main()
