"""What a project costs: planned before it starts, foreseen while it runs."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request

from keel.annotate.forecast import DISPUTE_SHARE, budget, forecast
from keel.store.rows import PURPOSES, Purpose
from keel.store.store import Store
from keel.studio.api.identity import OpenStore, Permitted, Visit
from keel.studio.api.models import Model, ProjectPath
from keel.studio.api.quality import kept_of

router = APIRouter(tags=["quality"])


class FinishShown(Model):
    """When the last vote is expected, in UTC seconds, with the 95 % interval."""

    at: float
    low: float
    high: float | None
    """null where at the slowest plausible pace it never comes."""


class ForecastShown(Model):
    usd_spent: float
    usd_total: float
    usd_per_pair: float | None
    pairs_per_hour: float | None
    """While somebody works."""
    votes_left: int
    finish: FinishShown | None
    """null while there is too little to tell from, and when all is done."""


class BudgetPart(Model):
    purpose: Purpose
    judgments: int
    usd: float
    """Rounded to the cent by itself; only the total is exact."""
    share: float
    """Of all judgments."""


class BudgetShown(Model):
    """Every judgment that is paid for, from nothing to the last settled pair."""

    pairs: int
    raters: int
    rounds: int
    parts: list[BudgetPart]
    judgments: int
    usd_per_judgment: float
    usd_total: float
    usd_per_pair: float
    """Everything over the number of pairs."""
    calibration_share: float
    """The practitioners' guides say 0.2 to 0.3 for a first project."""


@router.get("/projects/{p}/forecast")
def forecast_of(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath) -> ForecastShown:
    """What the project costs and when it is done, at the pace so far."""
    return kept_of(request).get("forecast", visit.of.id, lambda: _forecast(store, visit))


@router.get("/projects/{p}/budget")
def budget_of(
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    pairs: Annotated[int | None, Query(ge=1, le=10_000_000, description="Left out: those of the project")] = None,
    raters: Annotated[int | None, Query(ge=1, le=10_000, description="Left out: those of the project")] = None,
    rounds: Annotated[int, Query(ge=0, le=100, description="Of calibration, by every rater")] = 2,
    disputes: Annotated[float, Query(ge=0, le=1, description="Share of pairs that seniors settle")] = DISPUTE_SHARE,
) -> BudgetShown:
    """What the project costs by its settings: votes, calibration, golden items, repeats, disputes, in US dollars."""
    with store.reading() as tx:
        if pairs is None:
            pairs = sum(n for state, n in tx.items.counts(visit.of.id).items() if state != "removed")
        if raters is None:
            raters = sum(member.active and member.role == "rater" for member in tx.people.members(visit.of.id))
    pairs, raters = max(1, pairs), max(1, raters)
    plan = budget(pairs, raters, visit.of.settings, rounds=rounds, dispute_share=disputes)
    usd = plan.usd
    return BudgetShown(
        pairs=pairs,
        raters=raters,
        rounds=rounds,
        parts=[
            BudgetPart(purpose=name, judgments=count, usd=usd[name], share=count / plan.judgments)
            for name, count in plan.parts.items()
        ],
        judgments=plan.judgments,
        usd_per_judgment=plan.usd_per_judgment,
        usd_total=plan.usd_total,
        usd_per_pair=plan.usd_per_pair,
        calibration_share=plan.calibration_share,
    )


def _forecast(store: Store, visit: Visit) -> ForecastShown:
    with store.reading() as tx:
        told = tx.work.progress(visit.of.id)
        judged = tx.work.votes_table(visit.of.id).created
        num_paid = len(tx.work.votes_table(visit.of.id, PURPOSES).created)
    found = forecast(
        np.asarray(judged),
        now=store.clock(),
        num_pairs=sum(count for state, count in told.items.items() if state != "removed"),
        votes_left=max(0, told.votes_wanted - told.votes),
        num_paid=num_paid,
        settings=visit.of.settings,
    )
    return ForecastShown.model_validate(found.to_dict())
