"""Calibration: the same items before every rater, blind, until they agree."""

from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter

from keel.annotate.agreement import disputed_items
from keel.annotate.ballots import Ballot
from keel.annotate.calibration import close_round, left_to_do, measure_newcomer, new_round, next_step
from keel.store.rows import Membership, Round
from keel.store.store import Transaction
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Visit, audited
from keel.studio.api.items import ItemShown, VoteShown, item_shown
from keel.studio.api.models import Model, PathId, ProjectPath
from keel.studio.api.quality import Figure, all_ballots

router = APIRouter(tags=["calibration"])
UNKNOWN = Figure(value=None, low=None, high=None)
MOST_DISAGREEMENTS = 100


class Part(Model):
    """A rater in a round."""

    pseudonym: str
    done: int
    of: int
    kappa: float | None
    """With the others; null while the round is open."""
    passed: bool | None
    advice: str


class Disagreement(Model):
    item: ItemShown
    votes: list[VoteShown]
    contribution: float
    """Share of all disagreement that lies on this item."""


class RoundFigures(Model):
    """What a closed round showed."""

    kappa: Figure
    """Krippendorff's ordinal alpha of the raters who passed, of all where the round failed; it decides."""
    fleiss_kappa: Figure
    pairwise_agreement: Figure
    unlocked: list[str]
    left_out: list[str]
    disagreements: list[Disagreement]
    """Told to seniors and leads."""
    next: str
    """What was found and what to do."""


class RoundShown(Model):
    number: int
    state: Literal["open", "passed", "failed"]
    guide_version: int
    opened: float
    closed: float | None
    num_items: int
    raters: list[Part]
    figures: RoundFigures | None
    """null while the round is open, so that nobody is swayed."""


class Closing(Model):
    left_out: list[str] | None = None
    """Raters not to wait for, who stay locked; where left out, all who are not done."""


class NextStep(Model):
    step: Literal["write_guide", "open_round", "wait", "close_round", "change_guide", "done"]
    why: str


@router.get("/projects/{p}/rounds")
def rounds(store: OpenStore, visit: Permitted, p: ProjectPath) -> list[RoundShown]:
    """Every round, oldest first: who is done, and of closed ones how far raters agreed."""
    with store.reading() as tx:
        ballots = all_ballots(tx, visit.of.id, ("calibration",))
        return [round_shown(tx, visit, each, ballots) for each in tx.rounds.all(visit.of.id)]


@router.get("/projects/{p}/rounds/next")
def next_move(store: OpenStore, visit: Permitted, p: ProjectPath) -> NextStep:
    """What the lead does next, and why."""
    with store.reading() as tx:
        current, ballots = tx.rounds.current(visit.of.id), all_ballots(tx, visit.of.id, ("calibration",))
        left = left_to_do(current, ballots, _raters(tx, visit)) if current else {}
        step, why = next_step(tx.rounds.all(visit.of.id), visit.of.guide_version, left, visit.of.settings)
    return NextStep(step=step, why=why)


@router.post("/projects/{p}/rounds", status_code=201)
def open_round(store: OpenStore, visit: Permitted, p: ProjectPath) -> RoundShown:
    """Open a round with items that nobody has judged; the project is then calibrating, and other work waits."""
    now = store.clock()
    with store.writing() as tx:
        tx.lock(visit.of.id)
        skills = {member.pseudonym: member.skills for member in _members(tx, visit)}
        project = tx.projects.get(visit.of.id)
        drawn = new_round(
            tx.rounds.all(project.id),
            project.guide_version,
            tx.items.each(project.id),
            skills,
            project.settings,
            seed=project.id,
        )
        opened = tx.rounds.open(project.id, drawn.item_ids, now=now)
        tx.projects.set_state(project.id, "calibrating")
        audited(tx, visit, "open round", f"round {opened.number}", items=len(opened.item_ids))
        return round_shown(tx, visit, opened, [])


@router.post("/projects/{p}/rounds/{n}/close")
def end_round(
    store: OpenStore, visit: Permitted, p: ProjectPath, n: PathId, given: Closing | None = None
) -> RoundShown:
    """Close a round. Passed, it unlocks its raters and opens the project; failed, the guide is to be changed."""
    now = store.clock()
    with store.writing() as tx:
        tx.lock(visit.of.id)
        current = tx.rounds.by_number(visit.of.id, n)
        ballots = all_ballots(tx, visit.of.id, ("calibration",))
        members = {member.pseudonym: member.user_id for member in _members(tx, visit)}
        waiting = {rater for rater, left in left_to_do(current, ballots, members).items() if left}
        left_out = waiting if given is None or given.left_out is None else set(given.left_out)
        if unknown := left_out - members.keys():
            raise ApiError(422, f"{min(unknown)!r} is no rater of this round.", field="left_out")
        result = close_round(current, ballots, list(members), visit.of.settings, left_out=left_out)
        unlocked = [members[rater] for rater in result.unlocked] if result.passed else []
        closed = tx.rounds.close(current.id, result.to_dict(), result.passed, now=now, unlocked=unlocked)
        if result.passed:
            tx.projects.set_state(visit.of.id, "open")
        details = {"passed": result.passed, "alpha": result.alpha.to_dict()["value"], "left_out": sorted(left_out)}
        audited(tx, visit, "close round", f"round {n}", **details)
        return round_shown(tx, visit, closed, ballots)


def unlock_newcomer(tx: Transaction, visit: Visit, round_id: int) -> None:
    """Let a rater who joined late judge, once the items of a passed round are done and agree with the others'."""
    passed = tx.rounds.get(round_id)
    waiting = sum(item.removed is None for item in tx.items.many(passed.item_ids))
    if passed.state != "passed" or tx.rounds.num_judged(round_id, visit.user.id) < waiting:
        return
    ballots = all_ballots(tx, visit.of.id, ("calibration",))
    unlocked = [m.pseudonym for m in _members(tx, visit) if m.unlocked_round is not None]
    result = measure_newcomer(passed, ballots, visit.member.pseudonym, unlocked, visit.of.settings)
    if result.passed:
        tx.people.unlock(visit.of.id, [visit.user.id], passed.number)
    audited(tx, visit, "calibrate newcomer", visit.member.pseudonym, passed=result.passed, round=passed.number)


def round_shown(tx: Transaction, visit: Visit, each: Round, ballots: list[Ballot]) -> RoundShown:
    told = {part["rater"]: part for part in each.figures.get("raters", ())}
    names = list(told) or _raters(tx, visit)
    left = left_to_do(each, ballots, names)
    parts = [_part(name, left.get(name, 0), len(each.item_ids), told.get(name)) for name in names]
    return RoundShown(
        number=each.number,
        state=each.state,
        guide_version=each.guide_version,
        opened=each.opened,
        closed=each.closed,
        num_items=len(each.item_ids),
        raters=parts,
        figures=_figures(tx, visit, each, ballots) if each.figures else None,
    )


def _part(name: str, left: int, of: int, told: Mapping[str, Any] | None) -> Part:
    return Part(
        pseudonym=name,
        done=of - left,
        of=of,
        kappa=told["kappa"]["value"] if told else None,
        passed=told["passed"] if told else None,
        advice=told["advice"] if told else "",
    )


def _figures(tx: Transaction, visit: Visit, each: Round, ballots: list[Ballot]) -> RoundFigures:
    figures = each.figures
    return RoundFigures(
        kappa=_figure(figures.get("alpha")),
        fleiss_kappa=_figure(figures.get("fleiss_kappa")),
        pairwise_agreement=_figure(figures.get("pairwise_agreement")),
        unlocked=figures.get("unlocked", []),
        left_out=figures.get("left_out", []),
        disagreements=_disagreements(tx, visit, each, ballots) if visit.callers & {"senior", "lead", "admin"} else [],
        next=figures.get("message", ""),
    )


def _disagreements(tx: Transaction, visit: Visit, each: Round, ballots: list[Ballot]) -> list[Disagreement]:
    inside = set(each.item_ids)
    mine = [b for b in ballots if b.item_id in inside and b.round_id in (None, each.id)]
    apart = disputed_items(mine, MOST_DISAGREEMENTS)
    items = {item.id: item for item in tx.items.many([one.item_id for one in apart])}
    said: dict[int, list[VoteShown]] = {}
    for ballot in mine:
        said.setdefault(ballot.item_id, []).append(_vote(ballot))
    return [
        Disagreement(
            item=item_shown(items[one.item_id], visit, None),
            votes=said[one.item_id],
            contribution=one.contribution,
        )
        for one in apart
        if one.item_id in items
    ]


def _vote(ballot: Ballot) -> VoteShown:
    return VoteShown(
        rater=ballot.rater,
        choice=ballot.choice,
        strength=None if ballot.strength is None else int(ballot.strength),
        flag=ballot.flag,
        rationale=ballot.rationale,
        seconds=ballot.seconds,
        swapped=bool(ballot.swapped),
        guide_version=ballot.guide_version,
        created=ballot.created,
    )


def _figure(told: Mapping[str, Any] | None) -> Figure:
    return Figure(value=told["value"], low=told["low"], high=told["high"]) if told else UNKNOWN


def _members(tx: Transaction, visit: Visit) -> list[Membership]:
    """Those who take part in calibration: every active rater; seniors and leads decide what the answer is."""
    return [member for member in tx.people.members(visit.of.id) if member.active and member.role == "rater"]


def _raters(tx: Transaction, visit: Visit) -> list[str]:
    return [member.pseudonym for member in _members(tx, visit)]
