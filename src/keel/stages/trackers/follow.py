"""A run's events to TensorBoard, W&B, MLflow and trackio while it goes on.

A tracker is a guest: it works in a thread of its own, so that a slow server costs no training time, and one that fails
says so once and is left alone from then on. What a resumed run repeats is not sent again.
"""

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keel.core.config import digest, to_dict
from keel.core.errors import ConfigError
from keel.core.events import Event, EventLog, read_events
from keel.core.files import atomic_write_json
from keel.core.progress import Progress
from keel.report.values import printable
from keel.stages.recipe import Recipe
from keel.stages.trackers.base import Place, Tracker
from keel.stages.trackers.messages import Series, send, series_of, shown_stage, step_of

PRODUCTS = {"tensorboard": "TensorBoard", "wandb": "WandB", "mlflow": "MLflow", "trackio": "Trackio"}
"""Name in a recipe and of its module and library, and the class."""
APART = {"trackers", "threads", "checkpoint"}
"""Sections of a recipe that do not make another experiment of it."""
PATIENCE_S = 60.0
"""How long the end of a run waits for a tracker that is still sending."""
UNCERTAIN_STEPS = 100
"""What a tracker that is not durable is sent again after a run was killed: rather a step twice than a gap."""
KEY_DIGITS = 8
NOTES = "trackers.json"

Sent = dict[Series, int]


def require_trackers(names: Sequence[str]) -> None:
    """ConfigError for trackers whose library is missing, all of them at once."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"trackers: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed. Install with "
            f"`pip install 'keel-rlhf[{','.join(missing)}]'`, or take {'it' if len(missing) == 1 else 'them'} out of "
            "trackers in the recipe."
        )


@contextlib.contextmanager
def tracking(recipe: Recipe, directory: Path, events: EventLog, progress: Progress) -> Iterator[None]:
    """Within it, everything that `events` logs also goes to the trackers of the recipe."""
    names = list(dict.fromkeys(recipe.trackers))
    require_trackers(names)
    if not names:
        yield
        return
    trackers = Trackers.open(recipe, directory, read_events(events.path), names, progress)
    events.heard = trackers.hear
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        events.heard = None
        trackers.close(succeeded=succeeded)


class Feed:
    """One tracker, its thread, and what it has been sent."""

    def __init__(self, name: str, tracker: Tracker, sent: Sent) -> None:
        self.name, self.tracker = name, tracker
        self.sent = dict(sent)
        """Last step of each series that was handed over."""
        self.arrived = dict(sent)
        """Last step of each series that the product has taken."""
        self.levels: dict[Series, object] = {}
        self.failure = ""
        self.told = False
        self._succeeded = False
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name=f"keel {name}", daemon=True)
        self._thread.start()

    def offer(self, event: Event) -> None:
        """Hand an event over, unless it was before or the tracker has failed."""
        series = series_of(event)
        if series is None or self.failure:
            return
        step = step_of(event)
        if step <= self.sent.get(series, -1):
            return
        self.sent[series] = step
        level = event.get("level")
        news = level != self.levels.get(series, "ok")
        self.levels[series] = level
        self._work.put(lambda: self._send(series, step, event, news))

    def _send(self, series: Series, step: int, event: Event, news: bool) -> None:
        send(self.tracker, event, news)
        self.arrived[series] = step

    def forget(self, stage: str) -> None:
        """The stage is made anew: its steps count from the start again."""
        for known in (self.sent, self.arrived):
            for series in [series for series in known if series.stage == stage]:
                del known[series]

    def close(self, *, succeeded: bool) -> bool:
        """Wait for what is on its way; False where the tracker was still busy after PATIENCE_S."""
        self._succeeded = succeeded
        self._work.put(None)
        self._thread.join(PATIENCE_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (task := self._work.get()) is not None:
            if not self.failure:
                self._try(task)
        self._try(lambda: self.tracker.close(succeeded=self._succeeded))  # also of one that failed: it may hold data

    def _try(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # whatever a product raises: no server or disk of a guest may end the run
            self.failure = self.failure or reason(error)


class Trackers:
    """The trackers of one run."""

    def __init__(self, notes: Path, key: str, feeds: Sequence[Feed], history: "History", progress: Progress) -> None:
        self.notes, self.key, self.feeds, self.history, self.progress = notes, key, feeds, history, progress

    @classmethod
    def open(
        cls, recipe: Recipe, directory: Path, events: Sequence[Event], names: Sequence[str], progress: Progress
    ) -> "Trackers":
        """Begin a run with each product, or go on with the one that an earlier attempt began."""
        settings = to_dict(recipe)
        key = digest({name: value for name, value in settings.items() if name not in APART})[:KEY_DIGITS]
        notes, history = directory / NOTES, History(events)
        noted = read_notes(notes).get(key, {})
        feeds = []
        for name in names:
            earlier = noted.get(name, {})
            place = Place(directory=directory, name=recipe.name, key=key, config=settings, known=earlier.get("id"))
            try:
                product = import_module(f"keel.stages.trackers.{name}")
                tracker: Tracker = getattr(product, PRODUCTS[name])(place)
            except Exception as error:  # as in Feed: the run goes on without this one
                progress.say(failed(name, reason(error)))
                continue
            feeds.append(Feed(name, tracker, sent_before(earlier, history, tracker) if place.known else {}))
            progress.say(f"{name}: {tracker.where}")
        trackers = cls(notes, key, feeds, history, progress)
        trackers.note_down()
        return trackers

    def hear(self, event: Event) -> None:
        """Pass one event on, and before it what a new tracker has missed of its stage."""
        kind = event.get("event")
        missed: list[Event] = []
        if kind == "stage_started" and self.history.is_finished(event):
            for feed in self.feeds:
                feed.forget(shown_stage(event))
        elif kind == "resumed":
            missed = self.history.until(event)
        elif kind == "stage_finished" and event.get("reused") is True:
            missed = self.history.of_result(event)
        for feed in self.feeds:
            for earlier in missed:
                feed.offer(earlier)
            feed.offer(event)
        self.tell()

    def tell(self) -> None:
        """Say once of each tracker that it failed, and write down how far it came."""
        for feed in self.feeds:
            if feed.failure and not feed.told:
                feed.told = True
                self.progress.say(failed(feed.name, feed.failure))
                self.note_down()

    def note_down(self, *, closed: bool = False) -> None:
        """Which runs of the products belong to this run; of a tracker that failed, also what did arrive."""
        noted = read_notes(self.notes)
        entries = noted.setdefault(self.key, {})
        for feed in self.feeds:
            entry: dict[str, Any] = {"id": feed.tracker.identity, "where": feed.tracker.where}
            entry["closed"] = closed
            if feed.failure:
                entry["arrived"] = [[vars(series), step] for series, step in feed.arrived.items()]
            entries[feed.name] = entry
        atomic_write_json(self.notes, noted)

    def close(self, *, succeeded: bool) -> None:
        for feed in self.feeds:
            if not feed.close(succeeded=succeeded) and not feed.failure:
                feed.failure = f"still busy {PATIENCE_S:.0f} s after the end"
        self.tell()
        self.note_down(closed=True)


class History:
    """What was logged before this attempt, by stage; trackers that are new to a run catch up from it."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._attempts: dict[str, list[list[Event]]] = {}
        self._open: dict[str, bool] = {}
        for event in events:
            label = str(event.get("stage") or "")
            attempts = self._attempts.setdefault(label, [])
            if event.get("event") == "stage_finished" and event.get("reused") is True:
                continue
            if not attempts or not self._open.get(label, False):
                attempts.append([])
                self._open[label] = True
            attempts[-1].append(event)
            if event.get("event") == "stage_finished":
                self._open[label] = False

    def is_finished(self, event: Event) -> bool:
        """Whether the stage of `event` had come to its end."""
        label = str(event.get("stage") or "")
        return bool(self._attempts.get(label)) and not self._open[label]

    def until(self, resumed: Event) -> list[Event]:
        """What the attempt that goes on had logged up to the step after which it does."""
        attempts = self._attempts.get(str(resumed.get("stage") or ""), [])
        return [event for event in attempts[-1] if step_of(event) <= step_of(resumed)] if attempts else []

    def of_result(self, finished: Event) -> list[Event]:
        """What was logged while a reused result was made: the newest attempt that ended with its figures."""
        for attempt in reversed(self._attempts.get(str(finished.get("stage") or ""), [])):
            if attempt[-1].get("event") == "stage_finished" and attempt[-1].get("metrics") == finished.get("metrics"):
                return attempt
        return []

    def reached(self) -> Sent:
        """Last step of each series in the newest attempt of its stage."""
        sent: Sent = {}
        for attempts in self._attempts.values():
            for event in attempts[-1] if attempts else []:
                if (series := series_of(event)) is not None:
                    sent[series] = max(step_of(event), sent.get(series, -1))
        return sent


def sent_before(noted: dict[str, Any], history: History, tracker: Tracker) -> Sent:
    """What earlier attempts sent to a tracker: all that was logged, less what it may have lost when it was killed."""
    if "arrived" in noted:
        try:
            return {Series(**series): int(step) for series, step in noted["arrived"]}
        except (TypeError, ValueError):
            return {}  # damaged: rather a step twice than a gap
    sent = history.reached()
    if noted.get("closed") or tracker.durable:
        return sent
    return {series: step - UNCERTAIN_STEPS for series, step in sent.items()}


def read_notes(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """RUN/trackers.json without what is damaged in it, which costs a new run at the products only."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {
        key: {name: entry for name, entry in entries.items() if isinstance(entry, dict)}
        for key, entries in (noted if isinstance(noted, dict) else {}).items()
        if isinstance(entries, dict)
    }


def reason(error: Exception) -> str:
    """One line on what a product raised."""
    text = printable(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def failed(name: str, why: str) -> str:
    return f"{name}: {why}. The run goes on without it; everything is in events.jsonl."
