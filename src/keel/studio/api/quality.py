"""How a project and its raters are doing: progress, agreement, cards, disputes."""

import secrets
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from math import isfinite
from statistics import median
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from pydantic import Field

from keel.annotate.agreement import gate, heat_map
from keel.annotate.ballots import Ballot, ballots_of
from keel.annotate.forecast import forecast
from keel.annotate.raters import RaterCard
from keel.monitor.verdict import Verdict
from keel.stages.collect import cards_of
from keel.stats.intervals import Estimate
from keel.store.rows import PURPOSES, Draft, ItemState, Purpose
from keel.store.store import Store, Transaction
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Visit, audited
from keel.studio.api.items import ItemShown, VoteShown, item_shown, own_item, pseudonyms, vote_shown
from keel.studio.api.models import ClientKey, Done, Model, Note, PathId, ProjectPath, RaterProgressShown, Word, midnight
from keel.studio.figures import Kept

router = APIRouter(tags=["quality"])
CHUNKS, LEAST_IN_CHUNK = 12, 5
"""Points of the small curves on a rater's card, and judgments that one needs."""


class Figure(Model):
    """An estimate with its 95 % interval; null where the votes cannot tell."""

    value: float | None
    low: float | None
    high: float | None


class VerdictShown(Model):
    level: Literal["ok", "warn", "stop"]
    message: str
    remedy: str


class RaterCount(Model):
    pseudonym: str
    done: int
    """Judged, whatever the purpose."""
    today: int


class DayCount(Model):
    day: Annotated[str, Field(examples=["2027-03-03"])]
    """UTC."""
    votes: int


class ProgressShown(Model):
    """Raters get `mine` alone."""

    mine: RaterProgressShown | None
    items: dict[ItemState, int] | None = None
    golden: int | None = None
    votes: int | None = None
    votes_wanted: int | None = None
    flagged: int | None = None
    today: int | None = None
    raters: list[RaterCount] | None = None
    days: list[DayCount] | None = None


class AgreementShown(Model):
    """Over blind votes: calibration and after."""

    kappa: Figure
    """Cohen's for two raters, Fleiss' for more."""
    alpha: Figure
    """Krippendorff's alpha with a, tie, b as ordered; what the gate looks at."""
    raw: float | None
    """Share of equal pairs of votes."""
    items: int
    """With two votes or more."""
    votes: int
    raters: list[str]
    """From the highest to the lowest mean kappa with the others."""
    pairwise: list[list[float | None]]
    """Kappa of every two raters; null on the diagonal and without shared items."""
    verdict: VerdictShown
    responsible: list[str]
    """Raters who clearly lower the agreement of all."""
    disputed: list[int]
    """Items that carry most of the disagreement, the first most; only those whose votes may be read."""


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


class SeriesShown(Model):
    seconds: list[float | None]
    """Medians over the rater's judgments in order."""


class CardShown(Model):
    """One rater's work."""

    pseudonym: str
    judgments: int
    """Blind votes, skips left out."""
    kappa_with_others: Figure
    gold_accuracy: Figure
    num_gold: int
    position_bias: Figure
    """How often the answer on the left won; .5 is no bias."""
    self_consistency: Figure
    num_repeats: int
    seconds_median: float | None
    tie_share: float | None
    skip_share: float | None
    too_fast: Figure
    """Share of judgments made faster than anybody can read the pair."""
    drift: VerdictShown
    fatigue: VerdictShown
    habit: str
    usable: bool
    advice: str
    series: SeriesShown


class Dispute(Model):
    """A pair without a majority, or skipped by all."""

    item: ItemShown
    votes: list[VoteShown]


class Settlement(Model):
    choice: Literal["a", "b", "tie", "both_bad"]
    rationale: Note | None = None
    client_key: ClientKey | None = None


@router.get("/projects/{p}/progress")
def progress(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath) -> ProgressShown:
    """How far the project is; to raters how far they are."""
    now = store.clock()
    with store.reading() as tx:
        mine = None
        if visit.membership is not None:
            told = tx.work.rater_progress(visit.of.id, visit.user.id, since=midnight(now))
            mine = RaterProgressShown(done=told.done, left=told.left, today=told.today)
        if visit.callers == {"rater"}:
            return ProgressShown(mine=mine)
        whole = tx.work.progress(visit.of.id)
        names = pseudonyms(tx, visit)
    by_day, today = kept_of(request).get("days", visit.of.id, lambda: _days(store, visit.of.id, now))
    raters = [
        RaterCount(pseudonym=names[user_id], done=sum(done.values()), today=today[user_id])
        for user_id, done in whole.raters.items()
        if sum(done.values())
    ]
    return ProgressShown(
        mine=mine,
        items=dict(whole.items),
        golden=whole.golden,
        votes=whole.votes,
        votes_wanted=whole.votes_wanted,
        flagged=whole.flagged,
        today=sum(today.values()),
        raters=raters,
        days=[DayCount(day=day, votes=votes) for day, votes in sorted(by_day.items())],
    )


@router.get("/projects/{p}/agreement")
def agreement(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath) -> AgreementShown:
    """How far raters agree, who and what lowers it, and whether a reward model may be trained on the votes."""
    return kept_of(request).get("agreement", visit.of.id, lambda: _agreement(store, visit))


@router.get("/projects/{p}/forecast")
def forecast_of(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath) -> ForecastShown:
    """What the project costs and when it is done, at the pace so far."""
    return kept_of(request).get("forecast", visit.of.id, lambda: _forecast(store, visit))


@router.get("/projects/{p}/raters")
def raters(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath) -> list[CardShown]:
    """A card for every rater, those who need attention first."""
    return kept_of(request).get("raters", visit.of.id, lambda: _cards(store, visit))


@router.get("/projects/{p}/raters/{pseudonym}")
def rater(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath, pseudonym: Word) -> CardShown:
    """One rater's card."""
    for card in raters(request, store, visit, p):
        if card.pseudonym == pseudonym:
            return card
    raise ApiError(404, f"Nobody called {pseudonym!r} has judged here.", field="pseudonym")


@router.get("/projects/{p}/disputes")
def disputes(
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    state: Annotated[Literal["disputed", "parked"], Query(description="parked: skipped by all")] = "disputed",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
    size: Annotated[int, Query(ge=1, le=200)] = 50,
) -> list[Dispute]:
    """Pairs on which no answer has more than half of the votes, with who said what, under pseudonyms."""
    with store.reading() as tx:
        found = tx.items.find(visit.of.id, kind="pair", state=state, page=page, size=size).items
        names = pseudonyms(tx, visit)
        votes: dict[int, list[VoteShown]] = {item.id: [] for item in found}
        for vote in tx.work.votes(visit.of.id, ("judge",), item_ids=list(votes)):
            votes[vote.item_id].append(vote_shown(vote, names))
    return [Dispute(item=item_shown(item, visit, None), votes=votes[item.id]) for item in found]


@router.post("/projects/{p}/disputes/{item}/settle")
def settle(store: OpenStore, visit: Permitted, p: ProjectPath, item: PathId, given: Settlement) -> Done:
    """Decide a pair, whatever the votes say. The decision is a judgment of its own and kept beside them."""
    if visit.membership is None:
        raise ApiError(403, "Whoever settles is a member. Join the project first.", hint="POST /projects/{p}/members")
    draft = Draft(choice=given.choice, rationale=given.rationale)
    with store.writing() as tx:
        own_item(tx, visit, item)
        tx.work.settle(item, visit.user.id, draft, given.client_key or secrets.token_urlsafe(16), store.clock())
        audited(tx, visit, "settle", f"item {item}", choice=given.choice)
    return Done()


def kept_of(request: Request) -> Kept:
    return request.app.state.figures


def figure(estimate: Estimate) -> Figure:
    known = estimate.to_dict()
    return Figure(value=known["value"], low=known["low"], high=known["high"])


def verdict_shown(verdict: Verdict) -> VerdictShown:
    level: Literal["ok", "warn", "stop"] = verdict.level if verdict.level in ("ok", "stop") else "warn"  # type: ignore[assignment]
    return VerdictShown(level=level, message=verdict.message, remedy=verdict.remedy)


def all_ballots(tx: Transaction, project_id: int, purposes: Sequence[Purpose] = PURPOSES) -> list[Ballot]:
    return ballots_of(tx.work.votes(project_id, purposes), tx.people.members(project_id))


def _agreement(store: Store, visit: Visit) -> AgreementShown:
    with store.reading() as tx:
        ballots = all_ballots(tx, visit.of.id, ("judge", "calibration"))
        hidden = tx.items.hidden(visit.of.id)
    checked = gate(ballots, unnamed=hidden)
    report, cells = checked.report, heat_map(ballots, checked.report)
    unknown = Figure(value=None, low=None, high=None)
    return AgreementShown(
        kappa=figure(report.kappa) if report else unknown,
        alpha=figure(report.alpha) if report else unknown,
        raw=_known(report.agreement.value) if report else None,
        items=report.num_shared_items if report else 0,
        votes=report.num_votes if report else len(ballots),
        raters=list(cells.raters),
        pairwise=[[_known(cell.kappa.value) if cell else None for cell in row] for row in cells.cells],
        verdict=verdict_shown(checked.verdict),
        responsible=list(checked.responsible),
        disputed=[item.item_id for item in checked.items],
    )


def _forecast(store: Store, visit: Visit) -> ForecastShown:
    with store.reading() as tx:
        told = tx.work.progress(visit.of.id)
        judged = tx.work.votes_table(visit.of.id).created
        num_paid = len(tx.work.votes_table(visit.of.id, PURPOSES).created)
    found = forecast(
        judged.tolist() if isinstance(judged, np.ndarray) else judged,
        now=store.clock(),
        num_pairs=sum(count for state, count in told.items.items() if state != "removed"),
        votes_left=max(0, told.votes_wanted - told.votes),
        num_paid=num_paid,
        settings=visit.of.settings,
    )
    return ForecastShown.model_validate(found.to_dict())


def _cards(store: Store, visit: Visit) -> list[CardShown]:
    with store.reading() as tx:
        ballots, cards = all_ballots(tx, visit.of.id), cards_of(tx, visit.of)
    seconds: dict[str, list[float]] = {}
    for ballot in sorted(ballots, key=lambda ballot: ballot.created):
        if ballot.seconds is not None:
            seconds.setdefault(ballot.rater, []).append(ballot.seconds)
    return [_card(card, seconds.get(card.rater, [])) for card in cards]


def _card(card: RaterCard, seconds: Sequence[float]) -> CardShown:
    return CardShown(
        pseudonym=card.rater,
        judgments=card.num_votes,
        kappa_with_others=figure(card.kappa),
        gold_accuracy=figure(card.gold_accuracy),
        num_gold=card.num_gold,
        position_bias=figure(card.position.share),
        self_consistency=figure(card.repeats.agreement),
        num_repeats=card.repeats.num_repeats,
        seconds_median=_known(card.seconds_median),
        tie_share=_known(card.tie_share),
        skip_share=_known(card.skip_share),
        too_fast=figure(card.too_fast),
        drift=verdict_shown(card.drift),
        fatigue=verdict_shown(card.fatigue),
        habit=card.habit,
        usable=card.usable,
        advice=card.advice,
        series=SeriesShown(seconds=_in_chunks(seconds)),
    )


def _in_chunks(values: Sequence[float]) -> list[float | None]:
    count = min(CHUNKS, len(values) // LEAST_IN_CHUNK)
    edges = [len(values) * at // count for at in range(count + 1)] if count else [0]
    return [median(values[low:high]) for low, high in pairwise(edges)]


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def _days(store: Store, project_id: int, now: float) -> tuple[dict[str, int], Counter[int]]:
    """Votes by UTC day, and today's by user."""
    with store.reading() as tx:
        table = tx.work.votes_table(project_id, PURPOSES)
    created = np.asarray(table.created)
    days, counts = np.unique(created // 86_400.0, return_counts=True)
    by_day = {
        datetime.fromtimestamp(day * 86_400.0, UTC).date().isoformat(): int(votes)
        for day, votes in zip(days.tolist(), counts.tolist(), strict=True)
    }
    of_today = np.asarray(table.user_ids)[created >= midnight(now)]
    return by_day, Counter(of_today.tolist())
