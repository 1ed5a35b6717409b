"""From the judgments of a project to an immutable snapshot that recipes train on. No torch here.

    with Store.open("studio.sqlite") as store:
        made = collect(store, "help", name="week-1", labels="dawid_skene")

A record a pair that somebody judged: prompt, both answers, the preference that the votes come to, every vote with its
side, time and guide version, and where the answers come from. Golden items are never among them; they are a snapshot of
their own. Records stand in the order of their hashes, so the same judgments are the same snapshot.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keel.annotate.agreement import Gate, gate
from keel.annotate.ballots import Ballot, ballots_of
from keel.annotate.consensus import Consensus, Method, dawid_skene, majority, share, weighted
from keel.core.errors import ConflictError, DataError, MissingError
from keel.data.formats import to_values
from keel.data.records import Comparison, Vote
from keel.data.snapshot import canonical_lines
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.store.rows import Item, Membership, Project, Snapshot
from keel.store.store import Store, Transaction

PREFERENCE = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A snapshot and what it is made of."""

    snapshot: Snapshot
    fresh: bool
    """False where the same judgments were frozen before."""
    figures: Mapping[str, Any]
    """Counts, and agreement where two raters met."""
    gate: Gate


def collect(
    store: Store,
    project_name: str,
    *,
    name: str | None = None,
    labels: Method = "share",
    golden: bool = False,
    by: int | None = None,
    thresholds: Thresholds = DEFAULT,
) -> Collected:
    """Freeze the judgments of a project, or with `golden` its golden items with the seniors' answers.

    Votes are those given for judging and in calibration rounds that were passed, the last of a rater on an item; a
    senior's decision on a dispute stands above them. A model's vote is a tie where it said otherwise with the sides
    swapped. Low agreement is told, not refused: training refuses it.
    """
    now = store.clock()
    with store.writing() as tx:
        project = project_of(tx, project_name)
        votes = Votes.of(tx, project)
        checked = gate(votes.ballots, thresholds=thresholds)
        records = golden_records(tx, project) if golden else pair_records(tx, project, votes, labels)
        if not records:
            what = "golden item" if golden else "pair with a vote"
            raise DataError(f"{project_name} has no {what} yet, so there is nothing to freeze.")
        figures = {**counted(records, votes), **(checked.report.to_dict() if checked.report else {})}
        manifest = {
            "kind": "golden" if golden else "comparisons",
            "labels": "gold" if golden else labels,
            "figures": figures,
            "gate": {"level": checked.verdict.level, "message": checked.verdict.message, "raters": checked.responsible},
            "content": dict(Counter(generator for record in records for generator in generators(record))),
        }
        before = {snapshot.id for snapshot in tx.snapshots.all(project.id)}
        snapshot = freeze(
            tx, project, name or ("golden" if golden else "votes"), name is None, by, records, manifest, now
        )
        fresh = snapshot.id not in before
        if fresh:
            details = {"hash": snapshot.content_hash, "records": snapshot.records, "agreement": checked.verdict.level}
            tx.audit.add("snapshot", at=now, user_id=by, project_id=project.id, target=snapshot.name, details=details)
    return Collected(snapshot=snapshot, fresh=fresh, figures=figures, gate=checked)


def freeze(
    tx: Transaction,
    project: Project,
    name: str,
    number_it: bool,
    by: int | None,
    records: Sequence[Mapping[str, Any]],
    manifest: Mapping[str, Any],
    now: float,
) -> Snapshot:
    """The snapshot; `number_it` puts the day and, where other content has the name, a number behind the name."""
    if number_it:
        name = f"{name}-{time.strftime('%Y-%m-%d', time.gmtime(now))}"
    for number in range(1, 1000):
        try:
            tried = name if number == 1 else f"{name}.{number}"
            return tx.snapshots.create(project.id, tried, by=by, records=records, manifest=manifest, now=now)
        except ConflictError:
            if not number_it:
                raise
    raise ConflictError(f"{project.name} has a thousand snapshots {name}. Give --name.")


def project_of(tx: Transaction, name: str) -> Project:
    """The project of that name; MissingError names those there are."""
    project = tx.projects.by_name(name)
    if project is None:
        there = ", ".join(project.name for project in tx.projects.all()) or "none yet"
        raise MissingError(f"There is no project called {name!r} in {tx.place}. There are: {there}.")
    return project


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Everything that was said of a project's pairs and counts."""

    ballots: Sequence[Ballot]
    """Those for judging and of passed calibration rounds, oldest first."""
    weights: Mapping[str, float]
    """Of each rater's vote."""
    models: frozenset[str]
    """Raters that are no people."""
    again: Mapping[tuple[str, int], str]
    """What a rater said of an item shown again with the sides swapped."""

    @classmethod
    def of(cls, tx: Transaction, project: Project) -> "Votes":
        members: Sequence[Membership] = tx.people.members(project.id)
        passed = {r.id for r in tx.rounds.all(project.id) if r.state == "passed"}
        said = tx.work.votes(project.id, ("judge", "calibration"))
        counting = [row for row in said if row.purpose == "judge" or row.round_id in passed]
        repeats = ballots_of(tx.work.votes(project.id, ("repeat",)), members)
        kinds = {member.pseudonym: tx.people.user(member.user_id).kind for member in members}
        return cls(
            ballots=ballots_of(counting, members),
            weights={member.pseudonym: member.weight for member in members},
            models=frozenset(name for name, kind in kinds.items() if kind == "model"),
            again={(ballot.rater, ballot.item_id): ballot.choice for ballot in repeats},
        )

    def by_item(self) -> dict[int, list[Ballot]]:
        """Of each item the last vote of every rater, in the raters' order of first appearance there."""
        latest: dict[int, dict[str, Ballot]] = {}
        for ballot in self.ballots:
            latest.setdefault(ballot.item_id, {})[ballot.rater] = ballot
        return {item: list(votes.values()) for item, votes in latest.items()}

    def counts_as(self, ballot: Ballot) -> Vote:
        """The vote as it counts: a model that changes its mind with the sides has no opinion."""
        other = self.again.get((ballot.rater, ballot.item_id))
        torn = ballot.rater in self.models and other not in (None, "skip", ballot.choice)
        choice = "tie" if torn and ballot.choice != "skip" else ballot.choice
        return Vote(ballot.rater, choice, ballot.strength if choice == ballot.choice else None)


def pair_records(tx: Transaction, project: Project, votes: Votes, labels: Method) -> list[dict[str, Any]]:
    """One record for each pair with a vote that says something, or with a senior's decision."""
    cast = votes.by_item()
    items = [item for item in tx.items.each(project.id, "pair") if item.id in cast or item.settled]
    comparisons = [
        Comparison(item.prompt, item.a, item.b, 0.5, votes=tuple(votes.counts_as(b) for b in cast.get(item.id, [])))
        for item in items
    ]
    found = []
    for item, comparison, verdict in zip(items, comparisons, verdicts(comparisons, labels, votes.weights), strict=True):
        if item.settled is None and not verdict.num_votes:
            continue  # every vote a skip
        record = texts(item)
        record["preference"] = verdict.preference if item.settled is None else PREFERENCE[item.settled]
        record["votes"] = [
            {
                "rater": vote.rater,
                "choice": vote.choice,
                "strength": vote.strength,
                "said": ballot.choice,
                "swapped": ballot.swapped,
                "seconds": ballot.seconds,
                "at": ballot.created,
                "guide_version": ballot.guide_version,
            }
            for vote, ballot in zip(comparison.votes, cast.get(item.id, []), strict=True)
        ]
        if item.settled is not None:
            record["settled"] = item.settled
        found.append(record)
    return in_order(found)


def golden_records(tx: Transaction, project: Project) -> list[dict[str, Any]]:
    """One record for each golden item with a known answer."""
    items = [item for item in tx.items.each(project.id, "golden") if item.gold in PREFERENCE]
    return in_order([{**texts(item), "preference": PREFERENCE[str(item.gold)]} for item in items])


def verdicts(comparisons: Sequence[Comparison], labels: Method, weights: Mapping[str, float]) -> list[Consensus]:
    """What the votes on each comparison come to."""
    if labels == "dawid_skene":
        return dawid_skene(comparisons)
    one: Callable[[Sequence[Vote]], Consensus] = {
        "share": share,
        "majority": majority,
        "weighted": lambda cast: weighted(cast, weights),
    }[labels]
    return [one(comparison.votes) for comparison in comparisons]


def texts(item: Item) -> dict[str, Any]:
    """What a record says of an item besides its votes."""
    record: dict[str, Any] = {
        **to_values(item.prompt),
        "response_a": item.a,
        "response_b": item.b,
        "item": item.key,
        "provenance": dict(item.provenance),
    }
    for side in "ab":
        if name := generator_of(item.provenance.get(side)):
            record[f"model_{side}"] = name
    return record


def generator_of(source: Any) -> str:
    """The name of what made an answer: a text, or the `model` of a mapping."""
    name = source.get("model") if isinstance(source, Mapping) else source
    return name if isinstance(name, str) else ""


def generators(record: Mapping[str, Any]) -> list[str]:
    """What made a record's answers: name, and the start of the content hash where it is known."""
    out = []
    for side in "ab":
        source = record["provenance"].get(side)
        if name := generator_of(source):
            content = source.get("content") if isinstance(source, Mapping) else None
            out.append(f"{name}@{content[:12]}" if isinstance(content, str) else name)
    return out


def in_order(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records in the order that `keel data snapshot` stores, so that a copy in a folder has the same hash."""
    lines = {line: record for record in records for line in canonical_lines([record])}
    return [lines[line] for line in canonical_lines(records)]


def counted(records: Sequence[Mapping[str, Any]], votes: Votes) -> dict[str, Any]:
    """How many records, votes of each kind, and raters."""
    choices = Counter(vote["choice"] for record in records for vote in record.get("votes", ()))
    return {
        "records": len(records),
        "votes": sum(choices.values()) - choices["skip"],
        "ties": choices["tie"],
        "both_bad": choices["both_bad"],
        "skips": choices["skip"],
        "settled": sum("settled" in record for record in records),
        "raters": len({vote["rater"] for record in records for vote in record.get("votes", ())}),
        "models_as_raters": sorted(votes.models),
    }
