"""The golden set: whether there are enough known answers, and which pairs could join."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from keel.annotate.ballots import Ballot
from keel.annotate.golden import gold_candidates, stock
from keel.data.records import prompt_text
from keel.store.store import Store
from keel.studio.api.identity import OpenStore, Permitted, Visit
from keel.studio.api.models import Model, OwnChoice, ProjectPath
from keel.studio.api.quality import VerdictShown, all_ballots, kept_of, verdict_shown

router = APIRouter(tags=["quality"])
SENIOR_ROLES = ("senior", "lead")


class GoldenCandidate(Model):
    """A pair on which seniors agreed."""

    item: int
    prompt: str
    gold: OwnChoice
    """What they all said."""
    answer: str
    """The text of that answer."""
    seniors: int
    """How many judged it."""
    skills: list[str]


class GoldenShown(Model):
    golden: int
    answers: dict[OwnChoice, int]
    """Golden items by their known answer."""
    verdict: VerdictShown
    candidates: list[GoldenCandidate]


@router.get("/projects/{p}/golden")
def golden(
    request: Request,
    store: OpenStore,
    visit: Permitted,
    p: ProjectPath,
    count: Annotated[int, Query(ge=1, le=200, description="Candidates at most")] = 10,
) -> GoldenShown:
    """Whether there are enough golden items, and pairs that could join: those on which two seniors or more agreed."""
    ballots = kept_of(request).get("senior ballots", visit.of.id, lambda: _by_seniors(store, visit))
    with store.reading() as tx:
        known = list(tx.items.each(visit.of.id, "golden"))
        judged = [item for item in tx.items.many(sorted({ballot.item_id for ballot in ballots})) if item.revealed]
        wanted = tx.work.progress(visit.of.id).votes_wanted
        raters = sum(member.active and member.role == "rater" for member in tx.people.members(visit.of.id))
    found = gold_candidates(judged, ballots, {ballot.rater for ballot in ballots}, count, seed=visit.of.id)
    by_id = {item.id: item for item in judged}
    answers: dict[OwnChoice, int] = {}
    for item in known:
        if item.gold is not None:
            answers[item.gold] = answers.get(item.gold, 0) + 1
    return GoldenShown(
        golden=len(known),
        answers=answers,
        verdict=verdict_shown(stock(known, visit.of.settings.golden_share, wanted // max(1, raters))),
        candidates=[
            GoldenCandidate(
                item=one.item_id,
                prompt=prompt_text(by_id[one.item_id].prompt),
                gold=one.choice,
                answer=by_id[one.item_id].a if one.choice == "a" else by_id[one.item_id].b,
                seniors=one.num_seniors,
                skills=list(one.skills),
            )
            for one in found
        ],
    )


def _by_seniors(store: Store, visit: Visit) -> list[Ballot]:
    with store.reading() as tx:
        seniors = {member.pseudonym for member in tx.people.members(visit.of.id) if member.role in SENIOR_ROLES}
        return [ballot for ballot in all_ballots(tx, visit.of.id) if ballot.rater in seniors]
