"""`keel diagnose`: the doctor's letter about a finished run, keel's own or another tool's."""

import argparse
from pathlib import Path
from typing import Any

from keel.cli.render import next_step, note, out

EPILOG = """RUN is a keel run folder, a trainer_state.json of TRL or a folder that holds one, or what OpenRLHF logged: a
JSONL file, its printed output, TensorBoard event files.

Exit status: 0 when a letter was written, whatever it says; 1 with --fail-on when the run is at least so ill; 2 when
nothing could be read.

examples:
  keel diagnose runs/sentiment
  keel diagnose checkpoint-500 --out letter.md
  keel diagnose train.log -s kl_stop_per_sequence=60 --fail-on act"""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "diagnose",
        help="what was wrong with a finished run, and what to try next",
        description="Read a finished run and write a letter: healthy or not, cause, evidence, next settings to try.",
    )
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder or a log file")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the letter as Markdown into this file, too")
    parser.add_argument("--json", action="store_true", help="print the letter as JSON")
    parser.add_argument(
        "--fail-on", choices=("watch", "act", "stop"), help="exit with status 1 when something is at least so grave"
    )
    parser.add_argument(
        "-s",
        "--set",
        metavar="LINE=VALUE",
        action="append",
        default=[],
        help="draw one line elsewhere, for example -s kl_stop_per_sequence=60 (names: thresholds of a recipe)",
    )
    parser.set_defaults(call=diagnose, parser=parser)


def diagnose(arguments: argparse.Namespace) -> None:
    """Write the letter."""
    from keel.core.files import atomic_write_text
    from keel.diagnose.letter import write_letter
    from keel.diagnose.paper import as_json, markdown, show
    from keel.monitor.verdict import LEVELS

    letter = write_letter(arguments.run, arguments.set)
    if arguments.json:
        out(as_json(letter))
    else:
        show(letter)
    if arguments.out:
        atomic_write_text(arguments.out, markdown(letter))
        note(f"wrote {arguments.out}")
    next_step("change one setting, run again, and compare the two letters")
    if arguments.fail_on and LEVELS.index(letter.level) >= LEVELS.index(arguments.fail_on):
        raise SystemExit(1)
