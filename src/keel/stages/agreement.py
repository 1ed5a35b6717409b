"""How far the raters of a comparison set agree, and whether that is enough to train on."""

from collections.abc import Sequence
from typing import Any

from keel.annotate.consensus import vote_table
from keel.data.records import Comparison
from keel.stats.agreement import agreement_report


def agreement_figures(records: Sequence[Comparison]) -> dict[str, Any]:
    """Agreement among the votes on the records, a < tie < b on an ordinal scale.

    Nothing when fewer than two raters voted on any of them.
    """
    table = vote_table(records)
    if table is None:
        return {}
    votes, raters = table
    return agreement_report(votes, raters, "ordinal").to_dict()
