"""Figures as people read them, with their units."""

import math


def percent(share: float, digits: int = 1) -> str:
    """A share in [0, 1] as percent; an em dash when it is not known."""
    return f"{100 * share:.{digits}f} %" if math.isfinite(share) else "—"


def interval(low: float, high: float) -> str:
    """An interval of shares in brackets, after a space; empty when it is not known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def plain(value: float, digits: int = 2) -> str:
    """A number with so many digits after the point, a real minus sign, and no minus before zero."""
    text = f"{value:.{digits}f}"
    if text.startswith("-"):
        text = text[1:] if float(text) == 0 else f"−{text[1:]}"
    return text


def signed(value: float) -> str:
    """A number with its sign and two digits."""
    return f"{value:+.2f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: 8.4 s, 3 min 12 s, 2 h 05 min, 3 d 4 h."""
    if not math.isfinite(seconds):
        return "—"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def gibibytes(count: object) -> str:
    """A number of bytes in GiB or MiB; empty when it is not known."""
    if not isinstance(count, int | float) or not math.isfinite(count) or count <= 0:
        return ""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def sureness(probability: float) -> str:
    """A probability of trouble in words; nothing that is learned from samples is certain."""
    return "over 99% sure" if probability > 0.99 else f"{probability:.0%} sure"
