"""Gauges of one line: a figure on its ladder of bands, a share with its interval on a scale from 0 to 100 %."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from keel.report.records import KLBands


@dataclass(frozen=True, slots=True)
class Band:
    """A named stretch of a ladder up to `end` (inf: the last one), and the part of the line that it takes."""

    name: str
    end: float
    style: str
    share: float


@dataclass(frozen=True, slots=True)
class Pens:
    """Characters that this terminal can show."""

    blocks: str
    line: str
    mark: str
    low: str
    high: str
    bar: str
    middle: str
    to: str
    dot: str

    @classmethod
    def of(cls, encoding: str) -> "Pens":
        if encoding.lower().startswith("utf"):
            return cls("▁▂▃▄▅▆▇█", "─", "◆", "├", "┤", "━", "╎", "→", "·")
        return cls("_.-=+*#@", "-", "O", "[", "]", "=", ":", "->", "|")


def token_bands(bands: KLBands) -> tuple[Band, ...]:
    """The ladder of nats per token."""
    return (
        Band("stalled", bands.stalled, "blue", 0.26),
        Band("healthy", bands.healthy, "green", 0.32),
        Band("watch", bands.act, "yellow", 0.23),
        Band("act", math.inf, "red", 0.19),
    )


def answer_bands(bands: KLBands) -> tuple[Band, ...]:
    """The ladder of nats per answer."""
    return (Band("in bounds", bands.roll_back, "green", 0.80), Band("stop", math.inf, "bold red", 0.20))


def band_of(value: float, bands: Sequence[Band]) -> Band | None:
    """The band that `value` lies in, nothing for nan. A value on a line is still in the band below."""
    if math.isnan(value):
        return None
    return next(band for band in bands if value <= band.end)


def ladder(value: float, bands: Sequence[Band], width: int, pens: Pens) -> Text:
    """A line of `width` columns: the bands with their names, the lines between them, and a mark at `value`.

    The band that holds the mark goes without its name: the mark would stand on it.
    """
    line = Text(no_wrap=True)
    current = band_of(value, bands)
    low, begun, total = 0.0, 0, 0.0
    for band in bands:
        total += band.share
        tick = f"{band.end:g}" if math.isfinite(band.end) else ""
        end = round(width * total) if tick else width
        room = max(1, end - begun - len(tick))
        if band is current:
            place = min(room - 1, int(_within(value, low, band.end) * room))
            line.append(pens.line * place, style=band.style)
            line.append(pens.mark, style=f"bold reverse {band.style.removeprefix('bold ')}")
            line.append(pens.line * (room - place - 1), style=band.style)
        else:
            line.append(band.name[:room].center(room, pens.line), style=band.style)
        line.append(tick, style="dim")
        low, begun = band.end, end
    return line


def _within(value: float, low: float, end: float) -> float:
    """How far into its band a value is, in [0, 1]. The last band has no end: it is drawn up to twice its line."""
    if math.isinf(value):
        return 1.0
    span = end - low if math.isfinite(end) else max(low, 1e-9)
    return min(1.0, max(0.0, (value - low) / max(span, 1e-9)))


def share_gauge(share: float, low: float, high: float, width: int, pens: Pens) -> Text:
    """A scale from 0 to 100 % with a tick at 50, the interval as a bar and a mark at `share`; all in [0, 1]."""
    cells = [pens.line] * width
    styles = ["dim"] * width

    def column(value: float) -> int:
        return min(width - 1, max(0, int(value * width)))

    cells[column(0.5)] = pens.middle
    style = "green" if low > 0.5 else "red" if high < 0.5 else "yellow"
    if math.isfinite(low) and math.isfinite(high):
        for at in range(column(low), column(high) + 1):
            cells[at], styles[at] = pens.bar, style
        cells[column(low)], cells[column(high)] = pens.low, pens.high
    if math.isfinite(share):
        cells[column(share)], styles[column(share)] = pens.mark, f"bold {style}"
    text = Text(no_wrap=True)
    for cell, shown in zip(cells, styles, strict=True):
        text.append(cell, style=shown)
    return text
