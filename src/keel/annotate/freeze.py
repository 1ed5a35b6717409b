"""What a project's votes come to, as records to train on: comparisons with soft labels, golden items apart.

A record reads back as a `Comparison` (format comparison); beside that it tells of each vote who cast it (a pseudonym),
which answer stood left, when, for how long and under which version of the guide. Where a senior settled a pair, that is
its preference, and what the raters said stands under `raters_said`: read as votes it would be counted again.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keel.annotate.ballots import Ballot
from keel.annotate.consensus import Method, resolve
from keel.data.formats import to_values
from keel.data.records import Choice, Comparison, Vote
from keel.store.rows import Item

SHARE: dict[Choice, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}


def comparison_records(
    items: Iterable[Item],
    ballots: Iterable[Ballot],
    method: Method,
    rater_weights: Mapping[str, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """A record of every pair that has votes or was settled, in the order of the items; `method` makes the labels.

    `ballots` are the blind ones (judge, calibration). Golden and removed items are left out. `rater_weights` are for
    the method weighted: those of the memberships, or of `raters.rater_weights`.
    """
    cast: dict[int, list[Ballot]] = {}
    for ballot in ballots:
        cast.setdefault(ballot.item_id, []).append(ballot)
    judged = [
        item
        for item in items
        if item.kind != "golden"
        and item.removed is None
        and (item.settled is not None or any(ballot.choice != "skip" for ballot in cast.get(item.id, ())))
    ]
    labels = resolve([_comparison(item, _votes(cast.get(item.id, ()))) for item in judged], method, rater_weights)
    for item, label in zip(judged, labels, strict=True):
        said = [_said(ballot) for ballot in cast.get(item.id, ())]
        if item.settled is None:
            yield _record(item, label) | {"votes": said}
        else:
            yield _record(item, _comparison(item, (), SHARE[item.settled])) | {"settled": True, "raters_said": said}


def golden_records(items: Iterable[Item]) -> Iterator[dict[str, Any]]:
    """A record of every golden item with its known answer. Never to be trained on."""
    for item in items:
        if item.gold is not None and item.removed is None and item.gold in SHARE:
            yield _record(item, _comparison(item, (), SHARE[item.gold])) | {"golden": True}


def _record(item: Item, label: Comparison) -> dict[str, Any]:
    return {**to_values(label), "item": item.key, "provenance": dict(item.provenance)}


def _comparison(item: Item, votes: tuple[Vote, ...], preference: float = 0.5) -> Comparison:
    models = (_generator(item.provenance.get("a")), _generator(item.provenance.get("b")))
    return Comparison(item.prompt, item.a, item.b, preference, votes=votes, models=models)


def _votes(cast: Iterable[Ballot]) -> tuple[Vote, ...]:
    return tuple(Vote(ballot.rater, ballot.choice, ballot.strength) for ballot in cast)


def _said(ballot: Ballot) -> dict[str, Any]:
    return {
        "rater": ballot.rater,
        "choice": ballot.choice,
        "strength": ballot.strength,
        "swapped": ballot.swapped,
        "seconds": ballot.seconds,
        "guide_version": ballot.guide_version,
        "at": ballot.created,
    }


def _generator(source: Any) -> str:
    """The name of what made an answer: a text, or the `model` of a mapping."""
    name = source.get("model") if isinstance(source, Mapping) else source
    return name if isinstance(name, str) else ""
