"""From the judgments of a project to an immutable snapshot that recipes train on. No torch here.

    with Store.open("studio.sqlite") as store:
        made = collect(store, "help", name="week-1", labels="dawid_skene")

A record a pair that somebody judged: prompt, both answers, the preference that the votes come to, every vote with its
side, time and guide version, and where the answers come from. Golden items are never among them; they are a snapshot of
their own. Records stand in the order of their hashes, so the same judgments are the same snapshot.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keel.annotate.agreement import Gate, gate
from keel.annotate.ballots import Ballot, ballots_of
from keel.annotate.freeze import comparison_records, golden_records
from keel.annotate.raters import RaterCard, rater_cards, rater_weights
from keel.core.errors import ConflictError, MissingError
from keel.data.records import Choice, Method, prompt_text
from keel.data.snapshot import canonical_lines
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.store.rows import PURPOSES, Membership, Project, Snapshot
from keel.store.store import Store, Transaction

MOST_WITH_LENGTHS = 20_000
"""Items up to which reading speed is checked against the length of the texts."""


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
    labels: Method | None = None,
    golden: bool = False,
    by: int | None = None,
    thresholds: Thresholds = DEFAULT,
) -> Collected:
    """Freeze the judgments of a project, or with `golden` its golden items with the seniors' answers.

    Votes are those given for judging and in calibration rounds that were passed, the last of a rater on an item; a
    senior's decision on a dispute stands above them. A model's vote is a tie where it said otherwise with the sides
    swapped. `labels` None is what the project's settings say. Low agreement is told, not refused: training refuses it.
    """
    now = store.clock()
    with store.reading() as tx:  # votes go on arriving while this is worked out
        project = project_of(tx, project_name)
        content = content_of(tx, project, labels=labels, golden=golden, thresholds=thresholds)
    with store.writing() as tx:
        return collected(tx, project, name, content, by=by, now=now)


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the judgments of a project come to at one moment."""

    records: Sequence[Mapping[str, Any]]
    manifest: Mapping[str, Any]
    figures: dict[str, Any]
    gate: Gate


def content_of(
    tx: Transaction, project: Project, *, labels: Method | None, golden: bool, thresholds: Thresholds = DEFAULT
) -> Content:
    """What `collect` is to freeze; only reads."""
    method: Method = labels or project.settings.labels
    votes = Votes.of(tx, project).weighed_for(method, tx, project)
    checked = gate(votes.ballots, thresholds=thresholds, unnamed=tx.items.hidden(project.id))
    records = golden_in_order(tx, project) if golden else pair_records(tx, project, votes, method)
    if not records:
        what = "golden item" if golden else "pair with a vote"
        raise ConflictError(f"{project.name} has no {what} yet, so there is nothing to freeze.")
    figures = {**counted(records, votes), **(checked.report.to_dict() if checked.report else {})}
    manifest: dict[str, Any] = {
        "kind": "golden" if golden else "comparisons",
        "labels": "gold" if golden else method,
        "figures": figures,
        "content": dict(Counter(generator for record in records for generator in generators(record))),
    }
    if not golden:
        verdict = checked.verdict
        told = {"level": verdict.level, "message": verdict.message, "remedy": verdict.remedy}
        manifest["gate"] = {**told, "raters": list(checked.responsible)}
        if method == "weighted":
            manifest["weights"] = dict(sorted(votes.weights.items()))
    return Content(records=records, manifest=manifest, figures=figures, gate=checked)


def collected(
    tx: Transaction, project: Project, name: str | None, content: Content, *, by: int | None, now: float
) -> Collected:
    """Freeze it; what is new is noted in the audit log."""
    golden = content.manifest["kind"] == "golden"
    before = {snapshot.id for snapshot in tx.snapshots.all(project.id)}
    stem = name or ("golden" if golden else "votes")
    snapshot = freeze(tx, project, stem, name is None, by, content.records, content.manifest, now)
    fresh = snapshot.id not in before
    if fresh:
        details = {"hash": snapshot.content_hash, "records": snapshot.records, "agreement": content.gate.verdict.level}
        tx.audit.add(
            "freeze snapshot", at=now, user_id=by, project_id=project.id, target=snapshot.name, details=details
        )
    return Collected(snapshot=snapshot, fresh=fresh, figures=content.figures, gate=content.gate)


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
    """Of each rater's vote: what the lead set, or with `weighed_for` that times what the rater's card says."""
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

    def weighed_for(self, method: Method, tx: Transaction, project: Project) -> "Votes":
        """The same; for the method weighted with each weight times what the rater's card says.

        To three digits, so that the last bits of a sum do not make another snapshot of the same judgments.
        """
        if method != "weighted":
            return self
        found = rater_weights(cards_of(tx, project), self.weights)
        return replace(self, weights={rater: round(found.get(rater, own), 3) for rater, own in self.weights.items()})

    def counting(self) -> list[Ballot]:
        """The last vote of every rater on an item, as it counts: torn between the orders, a model has no opinion."""
        latest = {(ballot.item_id, ballot.rater): ballot for ballot in self.ballots}
        return [replace(b, choice="tie", strength=None) if self.torn(b) else b for b in latest.values()]

    def torn(self, ballot: Ballot) -> bool:
        """Whether a model said otherwise with the sides swapped."""
        other = self.again.get((ballot.rater, ballot.item_id))
        return ballot.rater in self.models and other not in (None, "skip", ballot.choice) and ballot.choice != "skip"


def records_now(tx: Transaction, project: Project, labels: Method | None = None) -> list[dict[str, Any]]:
    """What a snapshot of the pairs would hold now."""
    method: Method = labels or project.settings.labels
    return pair_records(tx, project, Votes.of(tx, project).weighed_for(method, tx, project), method)


def pair_records(tx: Transaction, project: Project, votes: Votes, labels: Method) -> list[dict[str, Any]]:
    """One record for each pair with a vote that says something, or with a senior's decision."""
    said = {(ballot.item_id, ballot.rater): ballot.choice for ballot in votes.ballots if votes.torn(ballot)}
    keys = {item.key: item.id for item in tx.items.each(project.id, "pair")}
    records = list(comparison_records(tx.items.each(project.id, "pair"), votes.counting(), labels, votes.weights))
    for record in records:
        for vote in record.get("votes", ()):
            if (first := said.get((keys[record["item"]], vote["rater"]))) is not None:
                vote["said"] = first
    return in_order(records)


def cards_of(tx: Transaction, project: Project) -> list[RaterCard]:
    """A card for every rater of the project, from all that they did in it."""
    ballots = ballots_of(tx.work.votes(project.id, PURPOSES), tx.people.members(project.id))
    gold: dict[int, Choice] = {
        item.id: item.gold for item in tx.items.each(project.id, "golden") if item.gold is not None
    }
    few = sum(tx.items.counts(project.id).values()) <= MOST_WITH_LENGTHS
    return rater_cards(ballots, gold, _lengths(tx, project) if few else None)


def _lengths(tx: Transaction, project: Project) -> dict[int, int]:
    """Words of each item: prompt and both answers."""
    return {
        item.id: sum(len(text.split()) for text in (prompt_text(item.prompt), item.a, item.b))
        for item in tx.items.each(project.id)
    }


def golden_in_order(tx: Transaction, project: Project) -> list[dict[str, Any]]:
    """One record for each golden item."""
    return in_order(list(golden_records(tx.items.each(project.id, "golden"))))


def generators(record: Mapping[str, Any]) -> list[str]:
    """What made a record's answers: name, and the start of the content hash where it is known."""
    out = []
    for side in "ab":
        source = record["provenance"].get(side)
        name = record.get(f"model_{side}")
        content = source.get("content") if isinstance(source, Mapping) else None
        if name:
            out.append(f"{name}@{content[:12]}" if isinstance(content, str) else name)
    return out


def in_order(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records in the order that `keel data snapshot` stores, so that a copy in a folder has the same hash."""
    lines = {line: record for record in records for line in canonical_lines([record])}
    return [lines[line] for line in canonical_lines(records)]


def counted(records: Sequence[Mapping[str, Any]], votes: Votes) -> dict[str, Any]:
    """How many records, votes of each kind, and raters."""
    cast = [vote for record in records for name in ("votes", "raters_said") for vote in record.get(name, ())]
    choices = Counter(vote["choice"] for vote in cast)
    return {
        "records": len(records),
        "votes": sum(choices.values()) - choices["skip"],
        "ties": choices["tie"],
        "both_bad": choices["both_bad"],
        "skips": choices["skip"],
        "settled": sum("settled" in record for record in records),
        "raters": len({vote["rater"] for vote in cast}),
        "models_as_raters": sorted(votes.models),
    }
