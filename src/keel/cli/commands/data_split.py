"""`keel data split`: a file of records parted into training and held-out rows."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.commands.data_source import add_source, source
from keel.cli.render import columns, next_step, out


def add(actions: Any) -> None:
    action = actions.add_parser(
        "split",
        help="part records into training and held-out files, by prompt",
        description="Part records into OUT/train and OUT/held_out by the hash of the prompt, as they are written. "
        "Near-copies of a prompt stand together, and a prompt keeps its side as rows are added at the end.",
    )
    add_source(action)
    action.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder to make")
    action.add_argument(
        "--holdout", metavar="SHARE", type=float, default=0.1, help="share of the prompts held out (default: 0.1)"
    )
    action.add_argument(
        "--alike",
        metavar="J",
        type=float,
        default=0.8,
        help="Jaccard index of three-word shingles from which prompts are near-copies, in (0, 1] (default: 0.8)",
    )
    action.add_argument("--suffix", metavar="S", help="kind of the new files, such as .jsonl.gz (default: as read)")
    action.add_argument("--replace", action="store_true", help="write over DIR if it is there")
    action.add_argument(
        "--on-error", choices=["stop", "drop"], default="stop", help="what to do with unusable records (default: stop)"
    )
    action.set_defaults(call=split, parser=action)


def split(arguments: argparse.Namespace) -> None:
    """Write both files; say how many records and prompts stand in each, and what was moved or left out."""
    from keel.cli.progress import watching
    from keel.core.errors import ConfigError
    from keel.data.split_file import part_file
    from keel.report.units import percent

    if not 0 < arguments.holdout < 1:
        raise ConfigError(f"--holdout {arguments.holdout:g}: a share between 0 and 1 was expected, such as 0.1.")
    if not 0 < arguments.alike <= 1:
        raise ConfigError(f"--alike {arguments.alike:g}: a Jaccard index above 0 and up to 1 was expected.")
    config = source(arguments, holdout=arguments.holdout, on_error=arguments.on_error)
    with watching() as bar:
        done = part_file(
            config,
            arguments.out,
            alike=arguments.alike,
            suffix=arguments.suffix,
            replace=arguments.replace,
            progress=bar,
        )
    total = done.num_train + done.num_held_out
    out(f"{arguments.out}: {total:,} records, {done.num_prompts:,} distinct prompts")
    facts = [
        ["format", f"{done.format} ({done.why})"],
        [done.train.name, f"{done.num_train:,} records"],
        [done.held_out.name, f"{done.num_held_out:,} records ({percent(done.num_held_out / total)})"],
        ["near-copies", f"{done.num_moved:,} prompts stand on the side of an earlier near-copy, against their hash"],
    ]
    if done.num_torn:
        facts.append(
            ["torn", f"{done.num_torn:,} prompts nearly repeat prompts of both sides; they went with the first"]
        )
    facts += [
        ["left out", f"{count:,} times: {what}; first: {done.first[what]}"] for what, count in done.dropped.items()
    ]
    out(columns(facts))
    next_step(f"keel data doctor {done.train} --against {done.held_out}")
