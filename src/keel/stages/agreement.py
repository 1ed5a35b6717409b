"""How far the raters of a comparison set agree, whether that is enough to train on, and if not, who and what is why."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keel.annotate.agreement import Gate, gate
from keel.annotate.ballots import ballots_in
from keel.data.records import Comparison
from keel.monitor.thresholds import DEFAULT, Thresholds


def agreement_figures(records: Sequence[Comparison]) -> dict[str, Any]:
    """Agreement among the votes on the records, a < tie < b on an ordinal scale.

    Nothing when fewer than two raters voted on any of them.
    """
    report = checked_agreement(records).report
    return report.to_dict() if report else {}


def checked_agreement(
    records: Sequence[Comparison], thresholds: Thresholds = DEFAULT, override: str | None = None
) -> Gate:
    """The gate on the votes of the records; its items are the lines of the file that they were read from."""
    ballots, where = ballots_in(records), ""
    lines = numbers(records)
    if lines is not None:
        ballots = [replace(ballot, item_id=lines[ballot.item_id]) for ballot in ballots]
        where = f"Items are lines of {records[0].source.rpartition(':')[0]}."
    found = gate(ballots, override=override, thresholds=thresholds)
    if found.report is None or found.verdict.level == "ok" or not where:
        return found
    return replace(found, verdict=replace(found.verdict, remedy=f"{found.verdict.remedy} {where}"))


def numbers(records: Sequence[Comparison]) -> list[int] | None:
    """The line of each record; None where they are not lines of one file."""
    parts = [record.source.rpartition(":") for record in records]
    if len({file for file, _, _ in parts}) != 1 or not all(line.isdigit() for _, _, line in parts):
        return None
    lines = [int(line) for _, _, line in parts]
    return lines if len(set(lines)) == len(lines) else None


def overriding(reason: str | None) -> dict[str, str]:
    """What stands in the settings of that which was trained against the gate; nothing where nobody overrode it."""
    return {"override_agreement": reason} if reason else {}
