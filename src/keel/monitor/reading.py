"""What a figure did over a run: where it began, where it was best, where it is, and whether that is more than noise."""

from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from keel.monitor.history import Series
from keel.monitor.verdict import Figure, Level, Verdict
from keel.stats.arrays import Floats, Ints
from keel.stats.change import noise

LEAST_UPDATES = 6
"""Below so many known values a rule about change says nothing."""
START = 4
"""Values at the beginning whose mean is where a figure came from."""
RECENT = 2
"""Newest values whose mean is where a figure is: one reading is not enough, three are late."""
SURE = 3.0
"""Standard errors that a change must exceed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A figure against an earlier level of its own."""

    name: str
    before: float
    """The earlier level: at the start, or the lowest or highest since."""
    now: float
    """Mean of the newest values."""
    errors: float
    """now - before in standard errors of that difference; read from the series' own noise."""
    since: int
    """Step at which the newest level began."""

    @property
    def difference(self) -> float:
        return self.now - self.before

    @property
    def ratio(self) -> float:
        """Factor from before to now; nan where that means nothing."""
        return self.now / self.before if self.before > 0 else nan

    @property
    def times(self) -> str:
        """The ratio in words; nothing where it means nothing."""
        return f", a factor of {self.ratio:.2f}" if isfinite(self.ratio) else ""

    @property
    def figures(self) -> dict[str, Figure]:
        return {self.name: self.now, f"{self.name}_before": self.before, "since": self.since}


def reading(series: Series, name: str, against: Literal["start", "lowest", "highest"] = "start") -> Reading | None:
    """None while too little is known. `lowest` and `highest` are of means over START values, the newest left out.

    The lowest is looked for where the policy was no further from the reference than it is now: one that is on its way
    back writes again as it did, and that is no rise.
    """
    values = series.values(name)
    places = np.flatnonzero(np.isfinite(values))
    known = values[places]
    if len(known) < LEAST_UPDATES:
        return None
    earlier = known[:-RECENT]
    means = trailing(earlier, START)
    level = {"start": means[0], "lowest": means[_no_further(series, places)].min(), "highest": means.max()}[against]
    now = float(known[-RECENT:].mean())
    spread = noise(known).spread
    error = spread * sqrt(1 / RECENT + 1 / START)
    difference = now - float(level)
    errors = difference / error if error > 0 else 0.0
    half = level + difference / 2
    beyond = known > half if difference > 0 else known < half
    first = len(known) - 1
    while first > 0 and (beyond[first - 1] or beyond[max(0, first - 2)]):
        first -= 1
    step = int(series.rows[int(places[first])]["step"])
    return Reading(name=name, before=float(level), now=now, errors=float(errors), since=step)


def _no_further(series: Series, places: Ints) -> NDArray[np.bool_]:
    """Which windows of START values, the newest left out, had no larger KL than the newest; the first one always."""
    kl = series.values("kl_nats_per_sequence")[places]
    means = trailing(kl[:-RECENT], START)
    near = ~(means > kl[-RECENT:].mean())  # an unknown KL excludes nothing
    near[0] = True
    return near


def trailing(values: Floats, window: int) -> Floats:
    """Means of every `window` neighbouring values."""
    sums = np.concatenate([[0.0], values.cumsum()])
    width = min(window, len(values))
    return (sums[width:] - sums[:-width]) / width


def graded(size: float, watch: float, act: float) -> tuple[Level, float]:
    """The level of a change of this size, and how sure that is: 0.5 at the watch line, 0.95 from the act line on."""
    if not isfinite(size) or size < watch:
        return "ok", 0.0
    if size >= act:
        return "act", min(0.99, 0.95 + 0.04 * (size - act) / (act - watch)) if act > watch else 0.95
    return "watch", 0.5 + 0.45 * (size - watch) / (act - watch)


def unknown(rule: str, name: str, least: int = LEAST_UPDATES) -> Verdict:
    """What a rule says while it cannot tell."""
    return Verdict("ok", rule, f"Not judged: fewer than {least} updates with a figure {name}.")
