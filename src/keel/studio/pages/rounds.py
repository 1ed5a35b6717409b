"""The calibration wizard: start a round, see who is done, read the disagreements, mend the guide, go round again."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from keel.studio.api.access import FIGURES
from keel.studio.pages import charts
from keel.studio.pages.inside import PageRoute, act, call, get, onward
from keel.studio.pages.render import kappa
from keel.studio.pages.shell import opened, shown

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Field = Annotated[str, Form()]
UNKNOWN = {"value": None, "low": None, "high": None}
MOST_SHOWN = 25


@router.get("/p/{name}/calibration")
async def calibration(request: Request, name: str) -> Response:
    me, project = await opened(request, name, who=FIGURES)
    wanted = project["settings"]["min_kappa"]
    found = sorted(await get(request, f"/projects/{name}/rounds"), key=lambda row: -row["number"])
    rounds = [round_of(row, wanted) for row in found]
    following = await get(request, f"/projects/{name}/rounds/next")
    context = {
        "project": project,
        "settings": project["settings"],
        "rounds": rounds,
        "steps": steps(following["step"]),
        "following": following,
    }
    return await shown(request, "calibration.html", context, me=me)


def round_of(row: Mapping[str, Any], wanted: float) -> dict[str, Any]:
    """A round with its chart."""
    figures = row.get("figures") or {}
    own = figures.get("kappa") or UNKNOWN
    raters = row.get("raters") or []
    done = bool(raters) and all(rater["done"] >= rater["of"] for rater in raters)
    apart = figures.get("disagreements") or []
    return {
        **row,
        "kappa": own,
        "raters": raters,
        "all_done": done,
        "told": figures.get("next"),
        "disagreements": apart[:MOST_SHOWN],
        "chart": charts.kappa_scale(own["value"], own["low"], own["high"], wanted),
    }


STEPS = {"write_guide": 0, "open_round": 1, "wait": 2, "close_round": 3, "change_guide": 3, "done": 5}
NAMES = ("Write the guide", "Start a round", "Raters judge", "Read the disagreements", "Unlocked")


def steps(step: str) -> list[dict[str, str]]:
    """The five steps, with where the project stands."""
    at = STEPS[step]
    return [{"name": n, "css": "done" if i < at else "now" if i == at else ""} for i, n in enumerate(NAMES)]


@router.post("/p/{name}/rounds")
async def start(request: Request, name: str, csrf: Field = "") -> Response:
    then, told = f"/p/{name}/calibration", "The round is open: raters have it on their screens now."
    return await act(request, "POST", f"/projects/{name}/rounds", {}, then=then, told=told, csrf=csrf)


@router.post("/p/{name}/rounds/{number}/close")
async def close(request: Request, name: str, number: int, csrf: Field = "") -> Response:
    reply = await call(request, "POST", f"/projects/{name}/rounds/{number}/close", {}, csrf=csrf)
    closed = reply.checked()
    reached = kappa(((closed.get("figures") or {}).get("kappa") or UNKNOWN)["value"])
    passed = closed["state"] == "passed"
    told = f"Round {number} {'is passed' if passed else 'is not passed'}: agreement {reached}."
    return onward(f"/p/{name}/calibration", told)
