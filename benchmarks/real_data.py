"""The recipes on real data, held to their bars: one JSON on standard output.

    python benchmarks/real_data.py [--only sentiment] [--out runs/real] [--shared ../shared] [-s KEY=VALUE]

Needs the shared folders with the story model and the sets; each recipe is run by the command at its head. The test part
of each set, which no choice was made by, is given as `data.golden`. A few minutes a recipe on two CPU cores.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REWARD = (
    *("accuracy", "accuracy_low", "accuracy_high", "held_out_pairs", "training_pairs"),
    *("baseline_longer", "baseline_bag_of_words", "golden_accuracy", "golden_accuracy_low", "golden_accuracy_high"),
    *("ece", "score_std", "score_length_correlation", "verdict"),
)
PPO = (
    *("score_before", "score_after", "score_std_before", "kl_nats_per_sequence", "kl_nats_per_token"),
    *("distinct_2_before", "distinct_2", "unique_share", "entropy_before", "entropy"),
    *("response_tokens_before", "response_tokens_mean", "finished_share", "updates", "kept_update"),
)
EVALUATE = ("n", "reward_win_rate", "reward_win_rate_low", "reward_win_rate_high", "distinct_2", "kl_nats_per_sequence")


def settings(recipe: str, shared: Path) -> dict[str, str]:
    """What the command at the head of the recipe changes, and the test part as golden set."""
    model = {"model.path": f"{shared}/models/stories260k"}
    if recipe == "sentiment":
        folder = shared / "data" / "sentence-polarity"
        own = {"data.comparisons.path": f"{folder}/train.jsonl.gz"}
        kind = "labelled_text"
    else:
        folder = shared / "data" / "hh-harmless-base"
        own = {f"data.{part}.path": f"{folder}/train.jsonl.gz" for part in ("demonstrations", "comparisons")}
        kind = "hh"
    golden = {"data.golden.path": f"{folder}/test.jsonl.gz", "data.golden.format": kind}
    return model | own | golden | {"data.golden.on_error": "drop"}


def bars(recipe: str, reward: dict[str, Any], ppo: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each bar with what was found and whether it is met."""
    if recipe == "hh-harmless":
        return {"held-out accuracy >= 0.58": met(reward["accuracy"], reward["accuracy"] >= 0.58)}
    gain = ppo["score_after"] - ppo["score_before"]
    return {
        "held-out accuracy >= 0.76": met(reward["accuracy"], reward["accuracy"] >= 0.76),
        "held-out reward up by 1.0 or by 1 std of the SFT scores": met(gain, gain >= min(1.0, ppo["score_std_before"])),
        "distinct-2 >= 0.35": met(ppo["distinct_2"], ppo["distinct_2"] >= 0.35),
        "KL <= 10 nats per sequence": met(ppo["kl_nats_per_sequence"], ppo["kl_nats_per_sequence"] <= 10),
    }


def met(found: float, is_met: bool) -> dict[str, Any]:
    return {"found": found, "met": is_met}


def measure(recipe: str, shared: Path, out: Path, extra: list[str]) -> dict[str, Any]:
    """Run one recipe by the command line and read its summary."""
    overrides = [f"{name}={value}" for name, value in settings(recipe, shared).items()] + extra
    command = [sys.executable, "-m", "keel.cli.main", "run", f"recipes/{recipe}.yaml", "--out", str(out / recipe)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [word for override in overrides for word in ("-s", override)]
    subprocess.run([*command, *words], cwd=ROOT, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((out / recipe / "summary.json").read_text())
    stages = summary["stages"]
    reward, ppo = stages["reward"], stages["ppo"]
    return {
        "settings": overrides,
        "bars": bars(recipe, reward, ppo),
        "sft": {name: stages["sft"][name] for name in ("perplexity_before", "perplexity")} if "sft" in stages else None,
        "reward": {name: reward[name] for name in REWARD if name in reward}
        | {"best_of_16_gain_in_std": reward["best_of_n"]["gain_in_std"]},
        "ppo": {name: ppo[name] for name in PPO},
        "evaluate": {name: stages["evaluate"][name] for name in EVALUATE},
        "seconds": summary["seconds"],
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "stage_seconds": {name: stage["seconds"] for name, stage in stages.items()},
        "peak_rss_bytes": summary["peak_rss_bytes"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["sentiment", "hh-harmless"])
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("-s", "--set", action="append", default=[], metavar="KEY=VALUE", help="one more setting")
    args = parser.parse_args()
    missing = [name for name in ("models/stories260k", "data") if not (args.shared / name).is_dir()]
    if missing:
        parser.exit(2, f"{args.shared} has no {' and no '.join(missing)}; point --shared at the shared folders.\n")
    shared, out = Path(os.path.relpath(args.shared, ROOT)), args.out.resolve()
    recipes = [args.only] if args.only else ["sentiment", "hh-harmless"]
    found = {recipe: measure(recipe, shared, out, args.set) for recipe in recipes}
    machine = f"{len(os.sched_getaffinity(0))}-core CPU, {platform.machine()}"
    print(json.dumps({"machine": machine, **found}, indent=2))


if __name__ == "__main__":
    main()
