"""`keel show` and `keel report`: what a run did."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.render import next_step, out
from keel.core.errors import ArtifactError


def add(commands: Any) -> None:
    parser = commands.add_parser("show", help="the figures of a run, in the terminal")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("--json", action="store_true", help="print RUN/summary.json instead")
    parser.set_defaults(call=show, parser=parser)

    parser = commands.add_parser("report", help="write RUN/report.html, a page that needs nothing else")
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    parser.set_defaults(call=report, parser=parser)


def show(arguments: argparse.Namespace) -> None:
    """Print the summary of a run."""
    run_dir = _run_folder(arguments.run)
    if arguments.json:
        summary = run_dir / "summary.json"
        if not summary.is_file():
            raise ArtifactError(
                f"{summary}: not there yet, the run has not come that far. keel show {run_dir} says more."
            )
        out(summary.read_text(encoding="utf-8").rstrip())
        return
    from keel.report.terminal import show as show_run

    show_run(run_dir)
    page = run_dir / "report.html"
    next_step(f"open {page}" if page.is_file() else f"keel report {run_dir} writes the same as a page")


def report(arguments: argparse.Namespace) -> None:
    """Write the report of a run."""
    run_dir = _run_folder(arguments.run)
    from keel.report.html import write_report

    out(f"wrote {write_report(run_dir)}")
    next_step(f"open {run_dir / 'report.html'} in a browser")


def _run_folder(path: Path) -> Path:
    """`path` if a run began there, else an ArtifactError that names runs nearby."""
    if (path / "events.jsonl").is_file() or (path / "summary.json").is_file():
        return path
    near = sorted({str(found.parent) for root in (path, Path("runs")) for found in root.glob("*/events.jsonl")})
    hint = f" Runs nearby: {', '.join(near[:5])}." if near else " Start one with keel demo or keel run RECIPE.yaml."
    state = "holds no run (no events.jsonl)" if path.is_dir() else "there is no such folder"
    raise ArtifactError(f"{path}: {state}.{hint}")
