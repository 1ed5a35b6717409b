"""A run folder that is being watched: looked at again and again, cheaply, whether the run has begun or has ended."""

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from keel.core.events import Event
from keel.report.follow import Follower
from keel.report.frame import View
from keel.report.gauges import band_of, token_bands
from keel.report.live import Live
from keel.report.read import CLOCK_SLACK, is_locked, kl_bands
from keel.report.records import KLBands
from keel.report.units import duration, percent, plain
from keel.report.values import number, printable


class Watched:
    """What a run folder shows now."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.live = Live()
        self.state = "waiting"
        """waiting (no event yet), running, finished or stopped."""
        self._follower = Follower(run_dir / "events.jsonl")
        self._recipe_changed = math.nan
        self._recipe: Mapping[str, Any] = {}
        self._bands = KLBands()

    def look(self) -> list[Event]:
        """Bring everything up to date; the events that are new."""
        return list(self.news())

    def refresh(self) -> None:
        """Bring everything up to date; a long log is not held in memory."""
        for _ in self.news():
            pass

    def news(self) -> Iterator[Event]:
        """The events that are new, each once it is in `live`; at the end everything else is up to date too."""
        moved = False
        while True:
            anew, events = self._follower.look()
            if anew:
                self.live = Live()
            for event in events:
                self.live.add(event)
                yield event
            moved = moved or anew or bool(events)
            if not events:
                break
        self._read_recipe()
        # While nothing new is written a run that had stopped has not begun again, and its lock is left alone: looking
        # takes it for a moment, in which a run that is just starting would find it taken.
        if self.state != "stopped" or moved:
            self.state = self._state()

    def _read_recipe(self) -> None:
        path = self.run_dir / "recipe.yaml"
        try:
            changed = path.stat().st_mtime
            if changed == self._recipe_changed:
                return
            text = path.read_text(encoding="utf-8", errors="replace")
            document = yaml.safe_load(text)
        except (OSError, yaml.YAMLError):
            return
        self._recipe_changed = changed
        self._recipe = document if isinstance(document, dict) else {}
        self._bands = kl_bands(text)

    def _state(self) -> str:
        if math.isnan(self.live.latest):
            return "waiting"
        summary = self.run_dir / "summary.json"
        done = self.live.current is None and summary.is_file()
        if done and summary.stat().st_mtime + CLOCK_SLACK >= self.live.latest:
            return "finished"
        return "running" if is_locked(self.run_dir / ".lock") else "stopped"

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "stopped")

    @property
    def troubled(self) -> bool:
        """Whether a rule that still holds asks for a change or a stop."""
        gravest = self.live.cards.gravest
        return gravest is not None and gravest.level in ("act", "stop")

    def view(self, *notes: str) -> View:
        """As a frame shows it; `notes` go to the last lines."""
        damaged = self._follower.damaged
        if damaged:
            lines = "one line" if damaged == 1 else f"{damaged} lines"
            notes = (f"{lines} of events.jsonl could not be read and were skipped", *notes)
        rounds = self._recipe.get("rounds")
        count = rounds.get("count") if isinstance(rounds, dict) else None
        name = self._recipe.get("name")
        own_name = isinstance(name, str) and name not in ("", "run")
        return View(
            live=self.live,
            name=f"{name} ({self.run_dir})" if own_name else str(self.run_dir),
            state=self.state,
            bands=self._bands,
            rounds=count if isinstance(count, int) else None,
            label_budget=label_budget(self._recipe),
            now=time.time() if self.state == "running" else math.nan,
            notes=notes,
        )

    def summary(self, event: Event) -> dict[str, Any]:
        """One event in short: its place, its numbers, and the same in words as `text`."""
        figures = {
            name: value
            for name, value in event.items()
            if isinstance(value, (int, float, str, bool)) and not (isinstance(value, float) and math.isnan(value))
        }
        band = band_of(number(event.get("kl_nats_per_token")), token_bands(self._bands))
        if event.get("event") == "step" and band is not None:
            figures["kl_band"] = band.name
        return {**figures, "text": event_text(event)}


def label_budget(recipe: Mapping[str, Any]) -> float:
    """The judges' verdicts that RL may ask for; nan where nobody is asked."""
    section: object = recipe
    for name in ("guardian", "checks"):
        section = section.get(name) if isinstance(section, dict) else None
    if not isinstance(section, dict) or not number(section.get("every")) > 0:
        return math.nan
    return number(section.get("label_budget"))


def event_text(event: Event) -> str:
    """An event as one plain line."""
    kind, stage = str(event.get("event") or "event"), str(event.get("stage") or "")
    step = number(event.get("step"))
    of = number(event.get("of"))
    place = f"{stage} {step:.0f}" if math.isfinite(step) else stage
    place += f"/{of:.0f}" if math.isfinite(of) else ""
    if kind in ("step", "evaluated"):
        said = ", ".join(_figures(event)) or "no figures"
        said = f"held-out {said}" if kind == "evaluated" else said
    elif kind == "verdict":
        said = f"{event.get('level')}: {event.get('message') or event.get('rule')}"
    elif kind == "action":
        said = f"{event.get('action')}{'' if event.get('taken', True) else ' (advised only)'}: {event.get('reason')}"
    elif kind == "checked":
        share, low, high = (number(event.get(f"win_rate{end}")) for end in ("", "_low", "_high"))
        said = f"judges prefer it to SFT {percent(share, 0)} of the time ({100 * low:.0f} to {100 * high:.0f} %)"
    elif kind == "stage_finished":
        said = "reused" if event.get("reused") else f"finished in {duration(number(event.get('seconds')))}"
    else:
        said = kind.replace("_", " ")
    return printable(" ".join(f"{place}: {said}".split()))


def _figures(event: Event) -> list[str]:
    named = (
        ("score_mean", "score", 3),
        ("loss", "loss", 3),
        ("accuracy", "accuracy", 3),
        ("perplexity", "perplexity", 3),
        ("kl_nats_per_token", "KL per token", 3),
        ("kl_nats_per_sequence", "per answer", 2),
        ("response_tokens_mean", "tokens", 1),
        ("entropy_nats", "entropy", 2),
        ("true_win_rate", "win rate", 3),
    )
    return [
        f"{title} {plain(number(event.get(name)), digits)}"
        for name, title, digits in named
        if math.isfinite(number(event.get(name)))
    ]
