"""`keel watch`: a run that is going on, live in the terminal."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keel.cli.render import next_step, note, out
from keel.core.errors import ArtifactError

if TYPE_CHECKING:
    from keel.cli.keys import Keys
    from keel.report.watch import Watched

DESCRIPTION = """Follow a run while it goes on: KL ladder, reward beside the judges' win rate, curves, alarms, samples.
It only reads; the run does not notice. q quits, the run goes on. Without a terminal it prints a line an event."""
EVERY_S = 1.0  # between looks at the folder
KEY_S = 0.1  # between looks at the keyboard


def add(commands: Any) -> None:
    parser = commands.add_parser("watch", help="follow a run live in the terminal", description=DESCRIPTION)
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder; it may not exist yet")
    parser.add_argument("--once", action="store_true", help="print what there is now, all of it, and exit")
    parser.add_argument("--json", action="store_true", help="one JSON object an event, with a summary as text")
    parser.set_defaults(call=watch, parser=parser)


def watch(arguments: argparse.Namespace) -> None:
    """Follow a run until it ends or somebody quits."""
    from keel.report.watch import Watched

    watched = Watched(arguments.run)
    try:
        if arguments.once:
            once(watched, as_json=arguments.json)
        elif arguments.json or not sys.stdout.isatty():
            stream(watched, as_json=arguments.json)
        else:
            live(watched)
    except KeyboardInterrupt:
        note("")
    if not arguments.json:
        next_step(advice(watched))


def advice(watched: "Watched") -> str:
    """What to do after watching."""
    run_dir = watched.run_dir
    if watched.state == "running":
        return f"the run goes on; keel watch {run_dir} looks again"
    if watched.state == "waiting":
        return f"start a run with keel run RECIPE.yaml --out {run_dir}"
    if watched.troubled:
        return f"keel diagnose {run_dir} says what went wrong; keel show {run_dir} has the figures"
    if watched.state == "stopped":
        return f"the command that started it resumes it; keel show {run_dir} has the figures so far"
    return f"keel show {run_dir}, or open {run_dir / 'report.html'}"


def once(watched: "Watched", *, as_json: bool) -> None:
    """Everything there is now."""
    for event in watched.news():
        if as_json:
            out(json.dumps(watched.summary(event)))
    if watched.state == "waiting":
        raise ArtifactError(
            f"{watched.run_dir}: no run has written there yet (no events.jsonl). Without --once, keel watch waits for "
            "one to begin."
        )
    if as_json:
        return
    from rich.console import Console

    from keel.report.frame import frame

    console = Console(highlight=False)
    for line in frame(watched.view(), console, console.width, None):
        console.print(line, no_wrap=True, overflow="crop")


def stream(watched: "Watched", *, as_json: bool) -> None:
    """A line for each event as it comes, until the run ends."""
    told = False
    while True:
        for event in watched.news():
            out(json.dumps(watched.summary(event)) if as_json else watched.summary(event)["text"])
        sys.stdout.flush()
        if watched.ended:
            return
        if watched.state == "waiting" and not told:
            note(f"Waiting for a run to begin in {watched.run_dir}; Ctrl-C ends the wait.")
            told = True
        time.sleep(EVERY_S)


def live(watched: "Watched") -> None:
    """A screen that is drawn again every second, and once more for good at the end."""
    from rich.console import Console, Group
    from rich.live import Live

    from keel.cli.keys import keyboard
    from keel.report.frame import frame

    console = Console(highlight=False)
    with keyboard() as keys, Live(console=console, screen=True, auto_refresh=False) as screen:
        looked, size, went_on = 0.0, (0, 0), False
        while True:
            now, current = time.monotonic(), (console.width, console.height)
            if now - looked >= EVERY_S or current != size:
                looked, size = now, current
                watched.refresh()
                went_on = went_on or watched.state == "running"
                if watched.state == "finished" or (watched.state == "stopped" and went_on):
                    break
                screen.update(Group(*frame(watched.view(footnote(watched)), console, *size)), refresh=True)
            if quits(keys, KEY_S):
                break
    if watched.state != "waiting":
        for line in frame(watched.view(*ending(watched)), console, console.width, None):
            console.print(line, no_wrap=True, overflow="crop")


def quits(keys: "Keys", seconds: float) -> bool:
    """Whether q is pressed within so many seconds; a screen whose input is no terminal goes on without keys."""
    from keel.cli.keys import END

    if keys.terminal:
        return keys.read(seconds) in ("q", END)
    time.sleep(seconds)
    return False


def footnote(watched: "Watched") -> str:
    """The last line of the screen."""
    if watched.state == "waiting":
        return f"waiting for a run to begin in {watched.run_dir}; q quits"
    if watched.state == "stopped":
        return "the run has stopped; its command resumes it, and this goes on; q quits"
    return "q quits; the run goes on"


def ending(watched: "Watched") -> tuple[str, ...]:
    """How the run ended, nothing while it goes on."""
    words = {"finished": ("the run has finished",), "stopped": ("the run has stopped before its end",)}
    return words.get(watched.state, ())
