"""Templates to HTML answers: one environment, the filters that pages share, and addresses of static files."""

import hashlib
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from keel.studio.markdown import safe_html

HERE = Path(__file__).parent.parent
STATIC = HERE / "static"
MINUTE, HOUR, DAY = 60, 3600, 86_400


@cache
def static_address(name: str) -> str:
    """`/static/name?v=...`, where v changes with the file, so that browsers may keep it."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]}"


def number(value: float | None, digits: int = 0) -> str:
    """`1,234`; an en dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def kappa(value: float | None) -> str:
    """`0.62`, with a real minus sign."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}".replace("-", "−")


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def usd(value: float | None) -> str:
    """`$0.36`, `$1,234`."""
    return "–" if value is None or not math.isfinite(value) else f"${value:,.2f}" if value < 100 else f"${value:,.0f}"


def seconds(value: float | None) -> str:
    """`42 s`, `3 min`, `5.5 h`."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / MINUTE:.0f} min" if value < 1.5 * HOUR else f"{value / HOUR:.1f} h"


def ago(at: float | None, now: float | None = None) -> str:
    """`just now`, `5 min ago`, `3 h ago`, then the day."""
    if at is None:
        return "never"
    past = max(0.0, (time.time() if now is None else now) - at)
    if past < MINUTE:
        return "just now"
    if past < HOUR:
        return f"{past / MINUTE:.0f} min ago"
    return f"{past / HOUR:.0f} h ago" if past < DAY else day(at)


def day(at: float | None) -> str:
    """`3 March 2027`, UTC."""
    return "–" if at is None else f"{datetime.fromtimestamp(at, UTC):%-d %B %Y}"


def short_day(at: float | None) -> str:
    """`3 Mar`, UTC."""
    return "–" if at is None else f"{datetime.fromtimestamp(at, UTC):%-d %b}"


def moment(at: float | None) -> str:
    """`2027-03-03 14:05`, UTC."""
    return "–" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def plural(count: float, one: str, many: str | None = None) -> str:
    """`1 vote`, `2 votes`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def initials(name: str) -> str:
    """Two letters to know somebody by: `rater-07` gives `07`, `amber fox` gives `AF`."""
    words = [word for word in re.split(r"[^\w]+", name) if word]
    if words and words[-1].isdigit():
        return words[-1][-2:]
    return "".join(word[0] for word in words[:2]).upper()


def prompt_text(prompt: Any) -> str:
    """A prompt of the API, a text or a list of turns, as one text."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def markdown(text: str) -> Markup:
    return Markup(safe_html(text))  # cleaned by nh3


templates = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.globals["static"] = static_address
templates.filters.update(
    {
        f.__name__: f
        for f in (
            number,
            kappa,
            percent,
            usd,
            seconds,
            ago,
            day,
            short_day,
            moment,
            plural,
            initials,
            prompt_text,
            markdown,
        )
    }
)


def page(template: str, context: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """The template as an answer."""
    return HTMLResponse(templates.get_template(template).render(context), status)
