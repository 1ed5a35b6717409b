"""The command line: `keel COMMAND`, one module of `keel.cli.commands` each.

Exit status 0; 1 where `keel diagnose --fail-on` found something; 2 with one message for everything that keel can
explain; 130 when interrupted.
"""

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence

from keel.cli.commands import (
    advise,
    collect,
    config,
    data,
    demo,
    diagnose,
    judge,
    judge_ai,
    prioritise,
    promote,
    run,
    sample,
    show,
    studio,
    version,
    watch,
)
from keel.cli.parser import Parser
from keel.cli.render import fail, note
from keel.core.errors import KeelError

DESCRIPTION = """Reinforcement learning from human feedback, end to end.

  keel demo                     see all of it happen in a few minutes, offline
  keel run recipes/NAME.yaml    fine-tune, train a reward model, optimise, evaluate
  keel watch RUN                follow it while it goes on
  keel judge RUN                compare its answers with SFT's, blind
  keel show RUN                 look at a run"""
TRAIN_PACKAGES = {"torch", "transformers", "peft", "datasets", "safetensors", "tokenizers", "matplotlib", "accelerate"}
OUTSIDE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
"""Refusals of the machine, which are not faults of the program."""


def parser() -> Parser:
    """The whole command line."""
    top = Parser(prog="keel", description=DESCRIPTION)
    commands = top.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for module in (
        *(demo, advise, run, config, watch, judge, show, diagnose, promote),
        *(data, studio, sample, judge_ai, collect, prioritise, version),
    ):
        module.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    # Threads that wait by spinning bring two busy cores to a crawl (measured: 6 times slower); set before torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that knows no arrows gets a question mark, not an error
        sys.stdout.reconfigure(errors="replace")
    try:
        arguments: argparse.Namespace = parser().parse_strictly(argv)
        arguments.call(arguments)
        sys.stdout.flush()
    except SystemExit as error:  # argparse, after --help or a message of its own
        return error.code if isinstance(error.code, int) else 2
    except KeelError as error:
        fail(str(error))
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TRAIN_PACKAGES:
            raise
        fail(f"this command needs {error.name}. Install it with: pip install 'keel-rlhf[train]'")
        return 2
    except BrokenPipeError:  # whoever read our output has seen enough
        _abandon_output()
        return 0
    except OSError as error:
        if error.errno not in OUTSIDE:
            raise
        if not error.filename:  # then it was standard output itself
            _abandon_output()
        fail(f"{error.filename or 'standard output'}: {error.strerror}. Nothing already made is lost.")
        return 2
    except KeyboardInterrupt:
        note("\nStopped. Nothing finished is lost; resume with the same command.")
        return 130
    return 0


def _abandon_output() -> None:
    """Nothing more can be written to standard output; without this the interpreter would try again on its way out."""
    with contextlib.suppress(io.UnsupportedOperation):  # not a real file, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
