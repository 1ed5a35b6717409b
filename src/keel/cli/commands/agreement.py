"""`keel data agreement`: how far the raters of a file agree."""

import argparse
import json
import math
from typing import Any

from keel.cli.render import columns, next_step, out
from keel.core.errors import DataError


def add(actions: Any) -> None:
    from keel.cli.commands.data_source import add_source

    action = actions.add_parser("agreement", help="how far raters agree: kappas, alpha, intervals")
    add_source(action)
    action.add_argument("--json", action="store_true", help="all figures as JSON")
    action.set_defaults(call=measure, parser=action)


def measure(arguments: argparse.Namespace) -> None:
    """Print how far the raters of a set of comparisons agree."""
    from dataclasses import asdict

    from keel.annotate.consensus import vote_table
    from keel.cli.commands.data_source import quiet, source
    from keel.core.events import plain
    from keel.data.formats import read
    from keel.monitor.bands import agreement_gate
    from keel.stats.agreement import agreement_report

    config = source(arguments)
    with quiet():
        table = vote_table(read(config, "comparisons").records)
    if table is None:
        raise DataError(
            f"{arguments.file}: no record has votes of two raters, so there is no agreement to measure. Votes are "
            'written as a list per record: "votes": [{"rater": "ann", "choice": "a"}].'
        )
    report = agreement_report(*table, "ordinal")
    if arguments.json:
        figures = {"path": arguments.file} | report.to_dict() | {"raters": [asdict(rater) for rater in report.raters]}
        out(json.dumps(plain(figures), indent=2))
        return
    out(
        f"{arguments.file}: {report.num_items} items, {report.num_shared_items} with two votes or more, "
        f"{report.num_raters} raters, {report.num_votes} votes"
    )
    measures = [
        ("agreement", report.agreement),
        (report.kappa_name, report.kappa),
        ("Krippendorff's alpha", report.alpha),
    ]
    out(columns([[name, str(estimate)] for name, estimate in measures]))
    out("\nraters, least agreeing first")
    raters = sorted(report.raters, key=lambda rater: (math.isnan(rater.kappa), rater.kappa))
    out(columns([[r.rater, f"{r.num_votes} votes", _kappa(r.kappa)] for r in raters]))
    alpha = report.alpha
    verdict = agreement_gate(alpha.value, alpha.low, alpha.high)
    out(f"\n{verdict.message} {verdict.remedy}".rstrip())
    next_step(f"name it in a recipe, under data: comparisons: {{path: {arguments.file}}}")


def _kappa(kappa: float) -> str:
    return "no kappa: too few shared items" if math.isnan(kappa) else f"kappa with the others {kappa:.2f}"
