"""Small drawings as inline SVG: one style, units on the axes, colours that follow the page's light or dark scheme.

matplotlib draws with stand-in colours that are then replaced by CSS variables of the page, so one drawing serves light,
dark and print. It is imported when the first plot is drawn, without pyplot and so without any global state or backend.
"""

import importlib.util
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from keel.core.errors import ConfigError
from keel.report.curves import Array, Curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What matplotlib draws with, and the CSS variable that takes its place.
STAND_INS = {
    "ink": "#010203",
    "muted": "#010204",
    "hair": "#010205",
    "blue": "#010206",
    "ochre": "#010207",
    "teal": "#010208",
    "red": "#010209",
    "violet": "#01020a",
    "paper": "#01020b",
}
NARROW, WIDE = 3.1, 4.2  # inches; the page shows three narrow or two wide drawings in a row
HEIGHT = 2.15
POINTS = 320  # a curve is thinned to about this many points: the width of a drawing in pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One drawing with its heading and the sentence that says what to look for."""

    title: str
    look_for: str
    svg: str
    wide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One figure of `curves` drawn as a line, or as dots joined by a line when `dots`."""

    curves: Curves
    figure: str
    label: str = ""
    colour: str = "blue"
    dots: bool = False
    smooth: bool = False
    """Draw a moving average on top of the values, which turn faint."""


def require_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "The report page draws with matplotlib, which is not installed. Install it with "
            "pip install 'keel-rlhf[train]', or read the run with keel show, which does without."
        )


def draw(
    paint: Callable[["Axes"], None],
    *,
    name: str,
    unit: str,
    steps: str = "",
    wide: bool = False,
    ladder: bool = False,
    height: float = HEIGHT,
    left: float = 0.5,
) -> str:
    """One SVG. `paint` draws on the axes; `unit` stands over the vertical axis, `steps` under the horizontal one.

    `name` is what a screen reader says. `ladder` leaves room at the right for the names of bands, `left` (inches) for
    the labels of the vertical axis.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    width = WIDE if wide else NARROW
    ink, muted, hair = STAND_INS["ink"], STAND_INS["muted"], STAND_INS["hair"]
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 8.5,
        "text.color": ink,
        "axes.edgecolor": muted,
        "axes.labelcolor": muted,
        "axes.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.formatter.useoffset": False,
        "axes.unicode_minus": True,
        "grid.color": hair,
        "grid.linewidth": 0.6,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.major.size": 2.5,
        "xtick.major.width": 0.6,
        "ytick.major.size": 0,
        "ytick.major.pad": 4,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        right = 0.72 if ladder else 0.12
        axes = figure.add_axes(
            (left / width, 0.4 / height, (width - left - right) / width, (height - 0.4 - 0.3) / height)
        )
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="y")
        axes.locator_params(axis="x", nbins=6)
        axes.locator_params(axis="y", nbins=5)
        paint(axes)
        axes.text(-left / (width - left - right), 1.07, unit, transform=axes.transAxes, color=muted, fontsize=8)
        if steps:
            axes.set_xlabel(steps, loc="right", fontsize=8, labelpad=2)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """The SVG file of matplotlib as an element of a page that sets its own fonts and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.S)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {view_box[0] if view_box else ""} role="img" aria-label="{escape(name)}">'
    svg = opening + svg[svg.index(">") + 1 :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font: (?:\S+ )?([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r" ?font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r'"[^"]*"', lambda quoted: re.sub(r"(\d+\.\d{2})\d+", r"\1", quoted[0]), svg)
    for colour, stand_in in STAND_INS.items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def lines(axes: "Axes", drawn: Sequence[Line]) -> None:
    """Draw figures over their steps, with names when there are several, crosses where a figure was not a number.

    A stretch that was rolled back is grey and dashed; the line goes on from where it went back to.
    """
    for line in drawn:
        undone = line.curves.abandoned
        at, values = line.curves.at[~undone], line.curves.get(line.figure)[~undone]
        colour = STAND_INS[line.colour]
        known = np.isfinite(values)
        if line.dots or known.sum() == 1:
            whole = np.isfinite(line.curves.get(line.figure)) & ~undone
            for number, part in enumerate(line.curves.by_round(whole)):
                label = line.label if number == 0 else ""
                points = line.curves.at[part], line.curves.get(line.figure)[part]
                axes.plot(*points, color=colour, lw=1, marker="o", ms=3, label=label)
        elif line.smooth and known.sum() > 20:
            axes.plot(*thin(at, values), color=colour, lw=0.7, alpha=0.35)
            axes.plot(*thin(at[known], moving_average(values[known])), color=colour, lw=1.5, label=line.label)
        else:
            axes.plot(*thin(at, values), color=colour, lw=1.4, label=line.label)
        _gone_back(axes, line)
        broken = line.curves.broken.get(line.figure)
        if broken is not None:
            axes.plot(
                broken,
                np.zeros(len(broken)),
                "x",
                color=STAND_INS["red"],
                ms=4,
                mew=1.2,
                clip_on=False,
                zorder=5,
                transform=axes.get_xaxis_transform(),
            )
    for boundary in {at: None for line in drawn for at in line.curves.boundaries}:
        axes.axvline(boundary, color=STAND_INS["muted"], lw=0.7, ls=(0, (1, 3)))
    # Evaluations end a rollback a hair earlier than steps do (keel.report.curves).
    for back_to, at in {(to, round(at, 6)): None for line in drawn for to, at in line.curves.rollbacks}:
        axes.axvspan(back_to, at, color=STAND_INS["muted"], alpha=0.1, lw=0, zorder=0)
        axes.axvline(at, color=STAND_INS["red"], lw=0.9)
    if sum(bool(line.label) for line in drawn) > 1:
        names(axes)


def _gone_back(axes: "Axes", line: Line) -> None:
    """The course that was given up, from where it was gone back to."""
    at, values, undone = line.curves.at, line.curves.get(line.figure), line.curves.abandoned
    for back_to, until in line.curves.rollbacks:
        stretch = undone & (at > back_to) & (at <= until)
        start = np.flatnonzero((at <= back_to) & ~undone)[-1:]
        chosen = np.concatenate([start, np.flatnonzero(stretch)])
        marker = "o" if line.dots else ""
        colour = STAND_INS[line.colour]
        axes.plot(at[chosen], values[chosen], color=colour, lw=1, ls=(0, (3, 2)), alpha=0.55, marker=marker, ms=2)


def panel(
    title: str,
    look_for: str,
    drawn: Sequence[Line],
    *,
    unit: str,
    steps: str,
    finish: Callable[["Axes"], None] | None = None,
    wide: bool = False,
    ladder: bool = False,
) -> Plot:
    """A plot of lines over steps; `finish` sets limits or shades bands once the lines are drawn."""

    def paint(axes: "Axes") -> None:
        lines(axes, drawn)
        if finish is not None:
            finish(axes)

    svg = draw(paint, name=title, unit=unit, steps=steps, wide=wide, ladder=ladder)
    return Plot(title=title, look_for=look_for, svg=svg, wide=wide)


def from_zero(drawn: Sequence[Line]) -> Callable[["Axes"], None]:
    """Starts the axis at 0, so that small wiggles look small, unless some of the `drawn` values lie below."""
    extremes = [line.curves.extremes(line.figure) for line in drawn]
    low, high = min(0.0, *(low for low, _ in extremes)), max(0.0, *(high for _, high in extremes))
    margin = 0.08 * (high - low) or 1.0

    def finish(axes: "Axes") -> None:
        axes.set_ylim(low - margin if low < 0 else 0, high + margin)

    return finish


def names(axes: "Axes") -> None:
    """Names of the lines in their own colours, above the plot at the right."""
    from matplotlib.lines import Line2D

    handles, labels = axes.get_legend_handles_labels()
    colours = [handle.get_color() for handle in handles if isinstance(handle, Line2D)]
    axes.legend(
        [Line2D([], [], color=colour, lw=0) for colour in colours],
        labels,
        loc="lower right",
        bbox_to_anchor=(1.02, 0.98),
        ncols=3,
        frameon=False,
        labelcolor="linecolor",
        handlelength=0,
        handletextpad=0,
        columnspacing=1.1,
        borderpad=0.1,
    )


def logarithmic(axes: "Axes") -> None:
    """A logarithmic vertical axis with plain numbers at 1 and 3 times the powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=12))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def bands(axes: "Axes", edges: Sequence[tuple[float, float, str, str]]) -> None:
    """Shade (low, high, colour, name) behind the curves; a name stands at the right where its band has room for it.

    A band without an upper end begins with a line.
    """
    bottom, top = axes.get_ylim()
    room = 0.075 * (top - bottom)
    for low, high, colour, name in edges:
        seen_low, seen_high = max(low, bottom), min(high, top)
        if seen_high <= seen_low:
            continue
        if high == math.inf:
            axes.axhline(low, color=STAND_INS[colour], lw=0.8)
        axes.axhspan(seen_low, seen_high, color=STAND_INS[colour], alpha=0.13, lw=0, zorder=0)
        if seen_high - seen_low >= room:
            axes.text(
                1.015,
                (seen_low + seen_high) / 2,
                name,
                transform=axes.get_yaxis_transform(),
                color=STAND_INS[colour],
                fontsize=8,
                va="center",
            )
    axes.set_ylim(bottom, top)


def moving_average(values: Array) -> Array:
    """Centred mean over about a twentieth of the series, [N] to [N]; narrower at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def thin(at: Array, values: Array) -> tuple[Array, Array]:
    """A long series with fewer points: of every stretch the lowest and the highest, so that no spike is lost."""
    if len(at) <= POINTS:
        return at, values
    keep: list[int] = [0]
    for stretch in np.array_split(np.arange(len(at)), POINTS // 2):
        known = stretch[np.isfinite(values[stretch])]
        if len(known) < len(stretch):
            keep.append(int(stretch[~np.isfinite(values[stretch])][0]))  # a gap stays a gap
        if len(known):
            keep += [int(known[values[known].argmin()]), int(known[values[known].argmax()])]
    chosen = np.unique([*keep, len(at) - 1])
    return at[chosen], values[chosen]
