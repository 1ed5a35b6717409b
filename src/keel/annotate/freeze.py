"""What a project's votes come to, as records to train on: comparisons with soft labels, golden items apart.

A record reads back as a `Comparison` (format comparison); beside that it tells of each vote who cast it (a pseudonym),
which answer stood left, when, for how long and under which version of the guide. Where a senior settled a pair, that is
its preference, and what the raters said stands under `raters_said`: read as votes it would be counted again.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keel.annotate.ballots import Ballot
from keel.annotate.consensus import resolve
from keel.data.formats import to_values
from keel.data.records import Choice, Comparison, Method, Vote
from keel.store.rows import Item

SHARE: dict[Choice, float] = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}


def comparison_records(
    items: Iterable[Item],
    ballots: Iterable[Ballot],
    method: Method,
    rater_weights: Mapping[str, float] | None = None,
) -> Iterator[dict[str, Any]]:
    """A record of every pair that has votes or was settled, in the order of the items; `method` makes the labels.

    `ballots` are the blind ones (judge, calibration). Golden and removed items are left out, and pairs on which no vote
    counts: skips, and for the method weighted those of raters whose `rater_weights` are 0.
    """
    silent = {rater for rater, weight in (rater_weights or {}).items() if weight == 0 and method == "weighted"}
    cast: dict[int, list[Ballot]] = {}
    for ballot in ballots:
        cast.setdefault(ballot.item_id, []).append(ballot)

    def counts(item: Item) -> bool:
        return any(ballot.choice != "skip" and ballot.rater not in silent for ballot in cast.get(item.id, ()))

    there = [item for item in items if item.kind != "golden" and item.removed is None]
    # Votes on settled pairs still tell how their raters err, so all are resolved together.
    voted = [item for item in there if counts(item)]
    resolved = resolve([_comparison(item, _votes(cast[item.id])) for item in voted], method, rater_weights)
    labels = dict(zip((item.id for item in voted), resolved, strict=True))
    for item in there:
        said = [_said(ballot) for ballot in cast.get(item.id, ())]
        if item.settled is not None:
            yield _record(item, _comparison(item, (), SHARE[item.settled])) | {"settled": True, "raters_said": said}
        elif item.id in labels:
            yield _record(item, labels[item.id]) | {"votes": said}


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
