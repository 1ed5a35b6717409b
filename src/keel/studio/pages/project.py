"""The list of projects, a project at a glance, and its raters."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from keel.studio.api.access import FIGURES, LEADS
from keel.studio.pages import charts
from keel.studio.pages.inside import PageError, PageRoute, act, get
from keel.studio.pages.shell import myself, opened, shown

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Field = Annotated[str, Form()]
UNKNOWN = {"value": None, "low": None, "high": None}
DAYS = 28


@router.get("/")
async def projects(request: Request) -> Response:
    me = await myself(request)
    return await shown(request, "projects.html", {"projects": await get(request, "/projects")}, me=me)


@router.post("/projects")
async def new_project(request: Request, name: Field, title: Field, csrf: Field = "") -> Response:
    body = {"name": name.strip(), "title": title.strip()}
    return await act(
        request, "POST", "/projects", body, then=f"/p/{name.strip()}", told="The project is there.", csrf=csrf
    )


async def maybe(request: Request, path: str, instead: Any) -> Any:
    """A part of a page that a role may not see, or that cannot be told yet, is left out."""
    try:
        return await get(request, path)
    except PageError as error:
        if error.status in (400, 403, 404, 409):
            return instead
        raise


@router.get("/p/{name}")
async def dashboard(request: Request, name: str) -> Response:
    me = await myself(request)
    project = await get(request, f"/projects/{name}")
    if project.get("role") == "rater":
        return RedirectResponse(f"/p/{name}/judge", 303)
    me, project = await opened(request, name, who=FIGURES)
    base = f"/projects/{name}"
    progress = await get(request, f"{base}/progress")
    agreement = {**EMPTY_AGREEMENT, **await maybe(request, f"{base}/agreement", {})}
    forecast = {**EMPTY_FORECAST, **await maybe(request, f"{base}/forecast", {})}
    cards = await maybe(request, f"{base}/raters", []) if project["can"]["lead"] else []
    states = state_counts(progress["items"])
    alpha = agreement["alpha"]
    context = {
        "project": project,
        "progress": progress,
        "agreement": agreement,
        "forecast": forecast,
        "states": states,
        "disputes": progress["items"].get("disputed", 0),
        "cards": cards,
        "raters": raters_at_work(progress.get("raters", []), cards),
        "next_step": next_step(project, progress),
        "counts": {"/disputes": progress["items"].get("disputed", 0)},
        "charts": {
            "days": charts.day_bars(all_days(progress.get("days", []))),
            "states": charts.shares(states),
            "kappa": charts.kappa_scale(alpha["value"], alpha["low"], alpha["high"], project["settings"]["min_kappa"]),
            "heat": charts.heat_map(agreement["raters"], agreement["pairwise"]),
        },
    }
    return await shown(request, "dashboard.html", context, me=me)


EMPTY_AGREEMENT: Mapping[str, Any] = {
    "kappa": UNKNOWN,
    "alpha": UNKNOWN,
    "raw": None,
    "items": 0,
    "raters": [],
    "pairwise": [],
    "verdict": None,
}
EMPTY_FORECAST: Mapping[str, Any] = dict.fromkeys(
    ("usd_spent", "usd_total", "usd_per_pair", "pairs_per_hour", "votes_left", "finish")
)


def state_counts(items: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """(name, count, CSS class) of the states that pairs can be in, for chart and legend."""
    kinds = (
        ("complete", "done"),
        ("settled", "settled"),
        ("disputed", "disputed"),
        ("parked", "parked"),
        ("open", "open"),
    )
    return [(state, items.get(state, 0), f"c-{css}") for state, css in kinds]


def all_days(days: list[dict[str, Any]], most: int = DAYS) -> list[tuple[str, float]]:
    """The last `most` days up to today, at least two weeks, those without votes as 0."""
    counts = {row["day"]: row["votes"] for row in days}
    today = datetime.now(UTC).date()
    first = min((datetime.fromisoformat(day).date() for day in counts), default=today)
    length = max(14, min(most, (today - first).days + 1))
    past = [today - timedelta(days=back) for back in range(length - 1, -1, -1)]
    return [(f"{day:%-d %b}", counts.get(day.isoformat(), 0)) for day in past]


def raters_at_work(rows: list[dict[str, Any]], cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name = {card["pseudonym"]: card for card in cards}
    found = []
    for row in sorted(rows, key=lambda row: -row["done"]):
        card = by_name.get(row["pseudonym"])
        pace = charts.spark_line(card["series"]["seconds"], "Seconds a pair over time", 0) if card else ""
        found.append({**row, "kappa": card["kappa_with_others"]["value"] if card else None, "spark": pace})
    return found


def next_step(project: Mapping[str, Any], progress: Mapping[str, Any]) -> str:
    """What a lead does next, in a sentence."""
    if not sum(progress["items"].values()):
        return "Next: import the pairs to judge, under Items."
    if not project["guide_version"]:
        return "Next: write the guide that raters judge by."
    if project["state"] == "setup":
        return "Next: invite raters under Members, then start the first calibration round."
    if project["state"] == "calibrating":
        return "Raters are in calibration: the same pairs for everybody, until they agree."
    if project["state"] == "paused":
        return "Paused. Raters wait; nothing is lost."
    left = max(0, progress["votes_wanted"] - progress["votes"])
    return f"{left:,} votes to go." if left else "Every pair has its votes: freeze a snapshot to train on."


LEVELS = ("ok", "warn", "stop")


@router.get("/p/{name}/raters")
async def raters(request: Request, name: str) -> Response:
    me, project = await opened(request, name, who=LEADS)
    cards = [card_of(card) for card in await get(request, f"/projects/{name}/raters")]
    return await shown(request, "raters.html", {"project": project, "raters": cards}, me=me)


def card_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """A rater's figures with their small charts, and how much attention they ask for."""

    def small(name: str, key: str, ends: tuple[float, float], even: float) -> Markup:
        value = card[key]
        return charts.interval(value["value"], value["low"], value["high"], ends=ends, even=even, label=name)

    level = max((card[verdict]["level"] for verdict in ("drift", "fatigue")), key=LEVELS.index)
    told = [card[verdict]["message"] for verdict in ("drift", "fatigue") if card[verdict]["level"] != "ok"]
    if not card["usable"]:
        level = "stop"
    elif card["habit"] not in ("fine", "unknown") and level == "ok":
        level = "warn"
    return {
        **card,
        "level": level,
        "told": told,
        "charts": {
            "kappa": small("Kappa with others", "kappa_with_others", (0, 1), charts.ENOUGH),
            "gold": small("Known answers right", "gold_accuracy", (0.3, 1), 0.8),
            "self": small("Same choice again", "self_consistency", (0.3, 1), 0.8),
            "side": small("Chooses answer 1", "position_bias", (0.2, 0.8), 0.5),
            "seconds": charts.spark_line(card["series"]["seconds"], "Seconds a pair over time", 0),
            "agreement": charts.spark_line(card["series"]["agreement"], "Same choice as others over time", 0, 1),
            "right": charts.spark_line(card["series"]["gold"], "Known answers right over time", 0, 1),
        },
        "latest": {name: (card["series"][name] or [None])[-1] for name in ("agreement", "gold")},
    }
