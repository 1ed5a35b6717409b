"""A card for every rater: how well they judge, and how that changed."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import mean, median

from fastapi import APIRouter, Request

from keel.annotate.ballots import BLIND, Ballot
from keel.annotate.raters import RaterCard
from keel.stages.collect import cards_of
from keel.store.store import Store
from keel.studio.api.errors import ApiError
from keel.studio.api.identity import OpenStore, Permitted, Visit
from keel.studio.api.models import Model, ProjectPath, Word
from keel.studio.api.quality import Figure, VerdictShown, all_ballots, figure, kept_of, known, verdict_shown

router = APIRouter(tags=["quality"])
CHUNKS, LEAST_IN_CHUNK = 12, 5
"""Points of the small curves on a rater's card, and judgments that one needs."""


class SeriesShown(Model):
    """Over the rater's judgments in order, cut into up to twelve parts of five or more."""

    seconds: list[float | None]
    """Medians."""
    agreement: list[float | None]
    """Share of the others' votes on the same pairs that are the same."""
    gold: list[float | None]
    """Share of golden items answered right."""


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


def _cards(store: Store, visit: Visit) -> list[CardShown]:
    with store.reading() as tx:
        ballots, cards = all_ballots(tx, visit.of.id), cards_of(tx, visit.of)
        gold = {item.id: item.gold for item in tx.items.each(visit.of.id, "golden")}
    ballots.sort(key=lambda ballot: ballot.created)
    seconds = _by_rater((b.rater, b.seconds) for b in ballots if b.seconds is not None)
    right = _by_rater(
        (b.rater, float(b.choice == gold[b.item_id])) for b in ballots if b.purpose == "golden" and b.item_id in gold
    )
    same = _by_rater(_agreeing(ballots))
    return [
        _card(
            card,
            SeriesShown(
                seconds=_in_chunks(seconds.get(card.rater, []), median),
                agreement=_in_chunks(same.get(card.rater, []), mean),
                gold=_in_chunks(right.get(card.rater, []), mean),
            ),
        )
        for card in cards
    ]


def _by_rater(values: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for rater, value in values:
        found.setdefault(rater, []).append(value)
    return found


def _agreeing(ballots: Sequence[Ballot]) -> Iterator[tuple[str, float]]:
    """(rater, share of the others' votes on the item that are the same) of each blind vote, in the order given."""
    said = {(b.item_id, b.rater): b.choice for b in ballots if b.purpose in BLIND and b.choice != "skip"}
    on_item: dict[int, Counter[str]] = {}
    for (item_id, _), choice in said.items():
        on_item.setdefault(item_id, Counter())[choice] += 1
    for ballot in ballots:
        choice = said.get((ballot.item_id, ballot.rater))
        if ballot.purpose in BLIND and choice is not None and (others := on_item[ballot.item_id].total() - 1):
            yield ballot.rater, (on_item[ballot.item_id][choice] - 1) / others


def _card(card: RaterCard, series: SeriesShown) -> CardShown:
    return CardShown(
        pseudonym=card.rater,
        judgments=card.num_votes,
        kappa_with_others=figure(card.kappa),
        gold_accuracy=figure(card.gold_accuracy),
        num_gold=card.num_gold,
        position_bias=figure(card.position.share),
        self_consistency=figure(card.repeats.agreement),
        num_repeats=card.repeats.num_repeats,
        seconds_median=known(card.seconds_median),
        tie_share=known(card.tie_share),
        skip_share=known(card.skip_share),
        too_fast=figure(card.too_fast),
        drift=verdict_shown(card.drift),
        fatigue=verdict_shown(card.fatigue),
        habit=card.habit,
        usable=card.usable,
        advice=card.advice,
        series=series,
    )


def _in_chunks(values: Sequence[float], of: Callable[[Sequence[float]], float]) -> list[float | None]:
    count = min(CHUNKS, len(values) // LEAST_IN_CHUNK)
    edges = [len(values) * at // count for at in range(count + 1)] if count else [0]
    return [of(values[low:high]) for low, high in pairwise(edges)]
