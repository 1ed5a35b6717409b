"""`keel judge`: people compare a run's answers with SFT's, blind, in the terminal."""

import argparse
import getpass
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keel.cli.render import next_step, out
from keel.core.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from keel.cli.keys import Keys
    from keel.store.queue import Choice, Question, Queue

DESCRIPTION = """Judge pairs of answers that a run asks about: its policy against SFT, on held-out prompts. Which is
which is not shown. The run reads the verdicts at its next check; nobody has to hurry."""

EPILOG = """keys (from a pipe: a letter a line):
  a, b      the answer under this letter is better (also the arrows left and right)
  t         a tie
  n         neither is any good
  s         skip: no verdict
  u         undo: take the last answer back and show its pair again
  q         quit; what was answered is kept

example:
  keel judge runs/help --judge ann --follow"""

CHOICES: "dict[str, Choice]" = {
    "a": "left",
    "left": "left",
    "b": "right",
    "right": "right",
    "t": "tie",
    "n": "both_bad",
    "s": "skip",
}
HINT = "a, b: better   t: tie   n: neither is good   s: skip   u: undo   q: quit"
LOOK_EVERY_S = 1.0
SIDE_BY_SIDE = 100
"""Columns from which two answers stand beside each other."""


def add(commands: Any) -> None:
    parser = commands.add_parser("judge", help="compare a run's answers with SFT's, blind", description=DESCRIPTION)
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder")
    parser.add_argument("--judge", metavar="NAME", help="who answers (default: your login name)")
    parser.add_argument("--follow", action="store_true", help="wait for new pairs when all are answered")
    parser.set_defaults(call=judge, parser=parser)


def judge(arguments: argparse.Namespace) -> None:
    """Answer a run's pairs until there are none, or the judge quits."""
    from keel.cli.keys import keyboard
    from keel.store.queue import FILE, Queue

    name = arguments.judge or login_name()
    check_name(name)
    path = arguments.run / FILE
    with keyboard() as keys:
        if not path.is_file() and not (arguments.follow and awaited(path, keys)):
            nothing_yet(arguments.run, path, follow=arguments.follow)
            return
        queue = Queue(path)
        Session(queue, name, keys).answer(follow=arguments.follow)
    answered, total = queue.progress(name)
    out(f"{answered} of {total} answered by {name}.")
    again = f"keel judge {arguments.run}" + (f" --judge {shlex.quote(name)}" if arguments.judge else "")
    if answered < total:
        next_step(f"{again} goes on with the other {total - answered}")
    else:
        next_step(f"{again} --follow waits for new pairs; keel show {arguments.run} has the figures")


def login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError("nobody is logged in by name here. Say who answers: --judge NAME.") from error


def check_name(name: str) -> None:
    """A name that people can read, and that no judge of the run has."""
    from keel.report.values import printable
    from keel.store.queue import RULE

    if not name.strip() or name != printable(name) or name == RULE:
        raise ConfigError(
            f"--judge {name!r} cannot be the name of a judge. Give a name of visible characters other than {RULE}, "
            "which is what settles equal answers."
        )


def awaited(path: Path, keys: "Keys") -> bool:
    """Wait until the run has begun its queue; False when the judge quits first."""
    from keel.cli.keys import END

    if not path.parent.is_dir():
        return False
    out("No pairs yet. Waiting for the run to ask; q quits.")
    sys.stdout.flush()
    while not path.is_file():
        if keys.read(LOOK_EVERY_S) in ("q", END):
            return False
    return True


def nothing_yet(run: Path, path: Path, *, follow: bool) -> None:
    """Say why there is nothing to judge."""
    if not run.is_dir():
        raise ArtifactError(f"{run}: there is no such folder. Give the folder of a run.")
    if not follow:
        raise ArtifactError(
            f"{path}: not there, the run has not asked for verdicts. keel judge {run} --follow waits until it does; "
            f"only recipes with checks by judges ask."
        )
    next_step(f"keel judge {run} --follow")


class Session:
    """One judge at the screen."""

    def __init__(self, queue: "Queue", judge: str, keys: "Keys") -> None:
        self.queue, self.judge, self.keys = queue, judge, keys
        self._answered: list[Question] = []

    def answer(self, *, follow: bool) -> None:
        """Show pair after pair until the judge quits or, unless it follows, none is left."""
        from keel.cli.keys import END

        shown: Question | None = None
        again: Question | None = None
        begun, waiting = 0.0, False
        while True:
            question = again or next(iter(self.queue.pending(self.judge, limit=1)), None)
            if question is None and not follow:
                return
            if question is None and not waiting:
                self.say("All answered. Waiting for new pairs; u takes the last answer back, q quits.")
            waiting = question is None
            if question is not None and question != shown:
                show(question, *self.queue.progress(self.judge))
                self.keys.forget()
                shown, begun = question, time.monotonic()
            key = self.keys.read(LOOK_EVERY_S if question is None else None)
            if key in ("q", END):
                return
            if key == "u":
                again, shown = self.undo() or question, None
            elif question is not None and key in CHOICES:
                self.queue.answer(question.id, self.judge, CHOICES[key], round(time.monotonic() - begun, 1))
                self._answered.append(question)
                again = None
            elif key is not None:
                self.say(HINT)

    def undo(self) -> "Question | None":
        """Take the last answer of this session back: a new row says that the judge says nothing."""
        if not self._answered:
            self.say("Nothing to take back in this session.")
            return None
        question = self._answered.pop()
        self.queue.answer(question.id, self.judge, "skip")
        self.say("Taken back.")
        return question

    def say(self, text: str) -> None:
        out(text)
        sys.stdout.flush()


def show(question: "Question", answered: int, total: int) -> None:
    """One pair on the screen. The texts are a model's and people's: nothing in them may steer the terminal."""
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    from keel.data.records import prompt_text
    from keel.report.values import printable

    console = Console(markup=False, highlight=False, emoji=False)
    sides = [
        Panel(
            Text(printable(text)),
            title=letter,
            subtitle=None if finished else "cut off at the length limit",
            title_align="left",
            subtitle_align="left",
        )
        for letter, text, finished in (
            ("a", question.left, question.left_finished),
            ("b", question.right, question.right_finished),
        )
    ]
    beside = Table.grid(expand=True)
    beside.add_column(ratio=1)
    beside.add_column(ratio=1)
    beside.add_row(*sides)
    console.print(
        "",
        Rule(f"{answered} of {total} answered", align="left"),
        Text(printable(prompt_text(question.prompt)), style="bold"),
        beside if console.width >= SIDE_BY_SIDE else Group(*sides),
        Text(HINT, style="dim"),
        sep="\n",
    )
    console.file.flush()
