"""Small charts as SVG text, drawn on the server. Colours are CSS classes, so both themes and the strict content policy
hold; every chart says in words what it shows.
"""

import math
from collections.abc import Sequence
from html import escape

from markupsafe import Markup

LOW, ENOUGH = 0.4, 0.6
"""Kappa below `LOW` stops training on the votes, from `ENOUGH` on they are good to scale up."""
HEAT_STEPS = (0.0, 0.2, 0.4, 0.6, 0.8)
"""Where the heat map changes its colour: the customary bands of kappa (Landis and Koch 1977)."""


def _svg(width: float, height: float, label: str, parts: Sequence[str], css: str) -> Markup:
    body = "".join(parts)
    return Markup(  # numbers and escaped text only
        f'<svg class="{css}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def kappa_scale(
    estimate: float | None, low: float | None = None, high: float | None = None, wanted: float = ENOUGH
) -> Markup:
    """Agreement on a scale with its bands, its interval as a bar and what the project asks for as a tick."""
    width, height, left, right = 300.0, 60.0, 6.0, 294.0

    def x(value: float) -> float:
        return left + (right - left) * min(1.0, max(0.0, value))

    bands = ((0.0, LOW, "bad"), (LOW, ENOUGH, "warn"), (ENOUGH, 1.0, "good"))
    parts = [
        f'<rect class="band {css}" x="{x(a):.1f}" y="26" width="{x(b) - x(a):.1f}" height="12"/>' for a, b, css in bands
    ]
    parts += [f'<text class="tick" x="{x(v):.1f}" y="56" text-anchor="middle">{v:g}</text>' for v in (LOW, ENOUGH)]
    parts.append(f'<text class="tick" x="{x(0):.1f}" y="56">0</text>')
    parts.append(f'<text class="tick" x="{x(1):.1f}" y="56" text-anchor="end">1</text>')
    parts.append(f'<path class="wanted" d="M{x(wanted):.1f} 20v24"/>')
    if estimate is None or not math.isfinite(estimate):
        return _svg(width, height, "Agreement is not known yet", parts, "kappa-scale")
    label = f"Agreement {_two(estimate)}; the project asks for {_two(wanted)}"
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        parts.append(f'<path class="whisker" d="M{x(low):.1f} 32H{x(high):.1f}"/>')
        label += f", 95 % interval {_two(low)} to {_two(high)}"
    parts.append(f'<circle class="point" cx="{x(estimate):.1f}" cy="32" r="7"/>')
    return _svg(width, height, label, parts, "kappa-scale")


def heat_map(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> Markup:
    """Kappa between each two raters, [K, K]; the diagonal and unknown cells stay empty."""
    side = 46.0
    head = 20 + 6.6 * max((len(_short(name)) for name in names), default=0)
    size = head + side * len(names)
    parts = []
    for row, name in enumerate(names):
        y = head + side * row + side / 2
        parts.append(
            f'<text class="name" x="{head - 10:g}" y="{y + 4:g}" text-anchor="end">{escape(_short(name))}</text>'
        )
        x = head + side * row + side / 2
        turn = f"translate({x + 4:g} {head - 10:g}) rotate(-45)"
        parts.append(f'<text class="name" transform="{turn}">{escape(_short(name))}</text>')
        for column, other in enumerate(names):
            value = values[row][column]
            if row == column or value is None or not math.isfinite(value):
                css, text, words = "none", "", f"{name} and {other}: not known"
            else:
                step = sum(value >= limit for limit in HEAT_STEPS)
                css, text, words = f"heat{step}", _two(value), f"{name} and {other}: kappa {_two(value)}"
            at = f'x="{head + side * column:g}" y="{head + side * row:g}"'
            cell = f'<rect class="{css}" {at} width="{side - 2:g}" height="{side - 2:g}" rx="5"/>'
            middle = f'x="{head + side * column + side / 2 - 1:g}" y="{y + 3.5:g}"'
            label = f'<text class="cell {css}" {middle} text-anchor="middle">{text}</text>' if text else ""
            title = "" if row == column else f"<title>{escape(words)}</title>"
            parts.append(f"<g>{title}{cell}{label}</g>")
    return _svg(size + 0.5 * head, size, f"Kappa between each two of {len(names)} raters", parts, "heat-map")


def _short(name: str, most: int = 12) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def spark_line(
    values: Sequence[float | None], label: str, low: float | None = None, high: float | None = None
) -> Markup:
    """A line without axes, its last value marked; scaled to [low, high] or to the values."""
    known = [(i, v) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    width, height, edge = 120.0, 30.0, 4.0
    if len(known) < 2:
        return _svg(
            width, height, f"{label}: too little yet", [f'<path class="flat" d="M4 15H{width - 4:g}"/>'], "spark"
        )
    bottom = min(v for _, v in known) if low is None else low
    top = max(v for _, v in known) if high is None else high
    span, steps = (top - bottom) or 1.0, max(1, len(values) - 1)
    points = [
        (
            edge + (width - 2 * edge) * i / steps,
            height - edge - (height - 2 * edge) * min(1, max(0, (v - bottom) / span)),
        )
        for i, v in known
    ]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    x, y = points[-1]
    parts = [f'<path class="line" d="{line}"/>', f'<circle class="last" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>']
    return _svg(width, height, f"{label}: from {known[0][1]:.3g} to {known[-1][1]:.3g}", parts, "spark")


def day_bars(days: Sequence[tuple[str, float]], unit: str = "votes") -> Markup:
    """A bar a day, oldest first; the tallest is labelled."""
    width, height, foot = 640.0, 190.0, 20.0
    top = max((count for _, count in days), default=0.0) or 1.0
    step = width / max(14, len(days))
    parts = []
    for place, (day, count) in enumerate(days):
        tall = (height - foot - 18) * count / top
        x, y = place * step, height - foot - tall
        parts.append(
            f'<g><title>{escape(day)}: {count:,.0f} {unit}</title><rect class="bar" x="{x + 2:.1f}" y="{y:.1f}" '
            f'width="{step - 4:.1f}" height="{max(tall, 1.5):.1f}" rx="3"/></g>'
        )
        if count == top:
            parts.append(
                f'<text class="value" x="{x + step / 2:.1f}" y="{y - 5:.1f}" text-anchor="middle">{count:,.0f}</text>'
            )
        if place in (0, len(days) - 1):
            anchor = "start" if place == 0 else "end"
            parts.append(
                f'<text class="tick" x="{x + (2 if place == 0 else step - 2):.1f}" y="{height - 4:g}" '
                f'text-anchor="{anchor}">{escape(day)}</text>'
            )
    total = sum(count for _, count in days)
    return _svg(width, height, f"{total:,.0f} {unit} over {len(days)} days", parts, "day-bars")


def shares(parts: Sequence[tuple[str, float, str]]) -> Markup:
    """One bar cut into (name, count, CSS class) in proportion."""
    total = sum(count for _, count, _ in parts) or 1.0
    x, drawn = 0.0, []
    for name, count, css in parts:
        width = 640.0 * count / total
        if width > 0:
            drawn.append(
                f"<g><title>{escape(name)}: {count:,.0f}</title>"
                f'<rect class="{css}" x="{x:.1f}" y="0" width="{max(1.0, width - 2):.1f}" height="14" rx="3"/></g>'
            )
        x += width
    label = ", ".join(f"{count:,.0f} {name}" for name, count, _ in parts)
    return _svg(640, 14, label, drawn, "shares")


def interval(
    estimate: float | None, low: float | None, high: float | None, *, ends: tuple[float, float], even: float, label: str
) -> Markup:
    """An estimate with its interval on the scale `ends`, and a tick where all would be even."""
    width, height = 120.0, 22.0

    def x(value: float) -> float:
        return 5 + (width - 10) * min(1.0, max(0.0, (value - ends[0]) / (ends[1] - ends[0])))

    parts = [f'<path class="flat" d="M5 11H{width - 5:g}"/>', f'<path class="wanted" d="M{x(even):.1f} 4v14"/>']
    if estimate is None or not math.isfinite(estimate):
        return _svg(width, height, f"{label}: not known yet", parts, "interval")
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        parts.append(f'<path class="whisker" d="M{x(low):.1f} 11H{x(high):.1f}"/>')
        label += f", 95 % interval {_two(low)} to {_two(high)}"
    parts.append(f'<circle class="point" cx="{x(estimate):.1f}" cy="11" r="4.5"/>')
    return _svg(width, height, f"{label}: {_two(estimate)}", parts, "interval")
