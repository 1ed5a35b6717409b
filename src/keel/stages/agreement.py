"""How far the raters of a comparison set agree, whether that is enough to train on, and if not, who and what is why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from keel.annotate.consensus import vote_table
from keel.data.records import Comparison, prompt_text
from keel.monitor.bands import agreement_gate
from keel.monitor.thresholds import DEFAULT, Thresholds
from keel.monitor.verdict import Verdict
from keel.stats.agreement import AgreementReport, agreement_report, disputed_items

NAMED_RATERS, NAMED_ITEMS = 3, 5


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What the votes on a set come to."""

    figures: dict[str, Any]
    """Flat, for events and summaries."""
    verdict: Verdict


def agreement_figures(records: Sequence[Comparison]) -> dict[str, Any]:
    """Agreement among the votes on the records, a < tie < b on an ordinal scale.

    Nothing when fewer than two raters voted on any of them.
    """
    found = measured_agreement(records)
    return found.figures if found else {}


def measured_agreement(records: Sequence[Comparison], thresholds: Thresholds = DEFAULT) -> Agreement | None:
    """Agreement among the votes on the records, a < tie < b on an ordinal scale, and what to make of it.

    A verdict that is not ok names the raters who agree least with the others and the most disputed items. None when
    fewer than two raters voted on any record.
    """
    table = vote_table(records)
    if table is None:
        return None
    votes, raters = table
    report = agreement_report(votes, raters, "ordinal")
    verdict = agreement_gate(
        report.alpha.value,
        report.alpha.low,
        report.alpha.high,
        num_items=report.num_shared_items,
        num_raters=report.num_raters,
        thresholds=thresholds,
    )
    if verdict.level != "ok":
        who, what = apart(report), [named(records[index]) for index in disputed_items(votes)[:NAMED_ITEMS]]
        said = " ".join(filter(None, [who, f"Most disputed: {'; '.join(what)}." if what else ""]))
        verdict = replace(verdict, message=f"{verdict.message} {said}".strip())
    return Agreement(figures=report.to_dict(), verdict=verdict)


def apart(report: AgreementReport) -> str:
    """The raters who agree least with all others, worst first, in words; below the set's own figure only."""
    line = report.kappa.value
    far = sorted((r for r in report.raters if r.num_pairs and r.kappa < line), key=lambda r: r.kappa)[:NAMED_RATERS]
    if report.num_raters < 3 or not far:
        return ""
    said = [f"{rater.rater} (kappa {rater.kappa:.2f}, {rater.num_votes} votes)" for rater in far]
    return f"Least like the others: {', '.join(said)}."


def named(record: Comparison) -> str:
    """An item so that people find it: where it stands, and how its prompt begins."""
    text = " ".join(prompt_text(record.prompt or record.a).split())
    start = text if len(text) <= 40 else f"{text[:39]}…"
    return f"{record.source} ({start})" if record.source else start


def overriding(reason: str | None) -> dict[str, str]:
    """What stands in the settings of that which was trained against the gate; nothing where nobody overrode it."""
    return {} if reason is None else {"override_agreement": reason}
