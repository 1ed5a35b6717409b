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
    context = {
        "project": project,
        "settings": project["settings"],
        "rounds": rounds,
        "steps": steps(project, rounds),
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
        "next": figures.get("next"),
        "disagreements": apart[:MOST_SHOWN],
        "chart": charts.kappa_scale(own["value"], own["low"], own["high"], wanted),
    }


def steps(project: Mapping[str, Any], rounds: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The five steps, with where the project stands."""
    names = ("Write the guide", "Start a round", "Raters judge", "Read the disagreements", "Unlocked")
    last = rounds[0] if rounds else None
    if last and last["state"] == "passed":
        at = 5
    elif last and last["state"] == "failed":
        at = 1 if project["guide_version"] > last["guide_version"] else 3
    elif last:
        at = 3 if last["all_done"] else 2
    else:
        at = 1 if project["guide_version"] else 0
    return [{"name": n, "css": "done" if i < at else "now" if i == at else ""} for i, n in enumerate(names)]


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
    told = f"Round {number} {'is passed' if passed else 'is not passed'}: kappa {reached}."
    return onward(f"/p/{name}/calibration", told)
