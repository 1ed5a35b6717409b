"""How a project and its raters are doing: progress, agreement, cards, disputes."""

import secrets
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from pydantic import Field

from keel.annotate.agreement import gate, heat_map
from keel.annotate.assignment import short_of_raters
from keel.annotate.ballots import Ballot, ballots_of
from keel.monitor.verdict import Verdict
from keel.stats.intervals import Estimate
from keel.store.rows import PURPOSES, Draft, ItemState, Purpose
from keel.store.store import Store, Transaction
from keel.studio.api.access import JUDGES
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Visit, audited
from keel.studio.api.items import ItemShown, VoteShown, item_shown, own_item, pseudonyms, vote_shown
from keel.studio.api.models import ClientKey, Done, Model, Note, PathId, ProjectPath, RaterProgressShown, midnight
from keel.studio.figures import Kept

router = APIRouter(tags=["quality"])


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


class Shortage(Model):
    """Pairs that never get their votes, because too few people may judge them."""

    skills: list[str]
    """All of these are needed; empty where none is."""
    raters: int
    """Members who have them all and may judge."""
    wanted: int
    """Votes that each lacks."""
    pairs: int | None = None
    """How many pairs, where it is their votes that can be read: seniors and leads are not asked about those any more,
    and `raters` are the others who have not judged them. null: every pair with these skills."""


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
    short_of_raters: list[Shortage] | None = None


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
        names, short = pseudonyms(tx, visit), _shortages(tx, visit)
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
        short_of_raters=short,
    )


@router.get("/projects/{p}/agreement")
def agreement(request: Request, store: OpenStore, visit: Permitted, p: ProjectPath) -> AgreementShown:
    """How far raters agree, who and what lowers it, and whether a reward model may be trained on the votes."""
    return kept_of(request).get("agreement", visit.of.id, lambda: _agreement(store, visit))


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
        raw=known(report.agreement.value) if report else None,
        items=report.num_shared_items if report else 0,
        votes=report.num_votes if report else len(ballots),
        raters=list(cells.raters),
        pairwise=[[known(cell.kappa.value) if cell else None for cell in row] for row in cells.cells],
        verdict=verdict_shown(checked.verdict),
        responsible=list(checked.responsible),
        disputed=[item.item_id for item in checked.items],
    )


def _shortages(tx: Transaction, visit: Visit) -> list[Shortage]:
    judges = [member for member in tx.people.members(visit.of.id) if member.active and member.role in JUDGES]
    blind = [set(member.skills) for member in judges if not member.insider]
    overlap = visit.of.settings.overlap
    short = short_of_raters(tx.items.skills_wanted(visit.of.id), [member.skills for member in judges], overlap)
    found = [Shortage(skills=list(skills), raters=number, wanted=overlap) for skills, number in short.items()]
    lacking: Counter[tuple[tuple[str, ...], int, int]] = Counter()
    for skills, votes, seen, pairs in tx.items.revealed_and_open(visit.of.id):
        left = max(0, sum(skills_held.issuperset(skills) for skills_held in blind) - seen)
        if skills not in short and left < overlap - votes:
            lacking[skills, left, overlap - votes] += pairs
    return found + [
        Shortage(skills=list(skills), raters=raters, wanted=wanted, pairs=pairs)
        for (skills, raters, wanted), pairs in sorted(lacking.items())
    ]


def known(value: float) -> float | None:
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
