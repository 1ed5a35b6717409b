"""`keel data agreement` and `keel data judges`: what votes say about those who cast them."""

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

from keel.cli.render import clipped, columns, next_step, out

MOST_SHOWN = 20
"""Raters that are listed; `--json` has all of them."""
MOST_ITEMS, ITEM_WIDTH = 5, 60
COMPARES = ("a", "tie", "b")
"""What votes on pairs say; only these are judged as training judges them, by `annotate.agreement.gate`."""


def add(actions: Any) -> None:
    action = actions.add_parser("agreement", help="how far raters agree: kappas, alpha, intervals")
    _add_source(action)
    action.add_argument("--level", choices=["nominal", "ordinal"], default="nominal", help=_LEVEL)
    action.set_defaults(call=agreement, parser=action)

    action = actions.add_parser("judges", help="AI judges against golden answers: right, consistent, biased?")
    _add_source(action)
    action.add_argument("--gold", metavar="FILE", help=_GOLD)
    action.add_argument("--judge", metavar="PATTERN", action="append", default=[], help=_JUDGE)
    action.add_argument("--swapped", metavar="COLUMN", default="", help="column of the verdict with the sides swapped")
    action.set_defaults(call=judges, parser=action)


_LEVEL = "what a disagreement costs in alpha: nominal all the same (default), ordinal a for b more than a for a tie"
_GOLD = "pairs with the right answer (default: what most of the other raters in FILE said)"
_JUDGE = "judges to report, as GPT-4/* (default: all, or with no --gold those that the layout leaves out)"


def _add_source(parser: argparse.ArgumentParser) -> None:
    """The arguments that say where votes are and how they are written."""
    listed = {"type": lambda text: tuple(part.strip() for part in text.split(",") if part.strip()), "default": ()}
    parser.add_argument("file", metavar="FILE", help="a file, a folder of files, or the id of a set on the hub")
    parser.add_argument("--preset", metavar="NAME", default="", help="read FILE as a known set, such as mtbench")
    parser.add_argument("--item", metavar="COLUMNS", help="column that names the item, or several by commas", **listed)
    parser.add_argument("--rater", metavar="COLUMN", default="", help="column of the rater, where a row is a vote")
    parser.add_argument("--vote", metavar="COLUMN", default="", help="column of the vote, or of all votes on an item")
    parser.add_argument("--raters-in", metavar="COLUMNS", help="columns that are raters, by commas", **listed)
    parser.add_argument("--raters", metavar="PATTERNS", help="raters that count, by commas: 'expert_*'", **listed)
    parser.add_argument("--order", metavar="WORDS", help="what votes say, from lowest to highest, by commas", **listed)
    parser.add_argument(
        "--scores", choices=["sign", "full"], default="sign", help="what counts of signed scores (default: the sign)"
    )
    parser.add_argument("--json", action="store_true", help="all figures as JSON")


def _reading(arguments: argparse.Namespace) -> Any:
    from keel.data.vote_rows import Reading

    return Reading(
        preset=arguments.preset,
        item=arguments.item,
        rater=arguments.rater,
        vote=arguments.vote,
        rater_columns=arguments.raters_in,
        raters=arguments.raters,
        order=arguments.order,
        scores=arguments.scores,
    )


def agreement(arguments: argparse.Namespace) -> None:
    """Print how far the raters of a file agree."""
    from keel.data.vote_files import read_votes
    from keel.data.vote_report import flat, plain, vote_report
    from keel.stats.intervals import Estimate

    file = read_votes(arguments.file, _reading(arguments))
    report = vote_report(file, arguments.level)
    verdict, gated, effects, named_items = _judged(file, report)
    if arguments.json:
        named = [effect.rater for effect in effects if effect.named]
        told = {"level": verdict.level, "message": verdict.message, "remedy": verdict.remedy}
        weighted = [{"rater": effect.rater} | flat("kappa", effect.kappa) for effect in effects]
        figures = {"verdict": told | {"raters": named, "items": named_items}, "weighted_kappa": weighted}
        out(json.dumps(report.to_dict() | plain(figures), indent=2))
        return
    found = report.agreement
    out(
        f"{arguments.file}: {found.num_items} items, {found.num_shared_items} with two votes or more, "
        f"{found.num_raters} raters, {found.num_votes} votes"
    )
    out(columns([["read as", file.layout.why], ["votes say", ", ".join(file.categories)]]))
    for line in file.notes:
        out(f"  {line}")
    measures = [("agreement", found.agreement), (found.kappa_name, found.kappa)]
    measures.append((f"Krippendorff's alpha ({found.level})", found.alpha))
    if gated is not found.alpha and found.level == "nominal":
        measures.append(("Krippendorff's alpha (ordinal)", gated))
    if report.repeats:
        measures.append((f"agreement with oneself ({report.repeats.num_repeats} repeats)", report.repeats.agreement))
    out()
    out(columns([[name, _three(estimate)] for name, estimate in measures]))
    if report.position:
        out(f"  {_position(report.position)}")
    weights = "quadratic" if effects else "no"
    out(f"\nraters, least agreeing first (kappa with all others together, {weights} weights)")
    skill = dict(zip(file.raters, report.skill.reliability.tolist(), strict=True))
    kappas = {effect.rater: effect.kappa for effect in effects}
    kappas = kappas or {rater.rater: Estimate(rater.kappa, math.nan, math.nan) for rater in found.raters}
    raters = sorted(found.raters, key=lambda r: (math.isnan(kappas[r.rater].value), kappas[r.rater].value))
    rows = []
    for rater in raters[:MOST_SHOWN]:
        cells = [rater.rater, f"{rater.num_votes} votes", _kappa(rater, kappas[rater.rater])]
        side = report.position_by_rater.get(rater.rater)
        notable = f"; {_side(side)}" if side and side.found and side.p_value < 0.01 else ""
        rows.append([*cells, f"probably right {skill[rater.rater]:.0%}{notable}"])
    out(columns(rows))
    if len(raters) > MOST_SHOWN:
        out(f"  and {len(raters) - MOST_SHOWN} more (--json)")
    if report.disputed and not named_items:
        some = ", ".join(clipped(item, ITEM_WIDTH) for item in report.disputed[:MOST_ITEMS])
        more = f" and {len(report.disputed) - MOST_ITEMS} more" if len(report.disputed) > MOST_ITEMS else ""
        out(f"\nitems they differ on, most disputed first: {some}{more}")
    level = "At the ordinal level, as training looks at it: " if gated is not found.alpha else ""
    out(f"\n{level}{verdict.message} {verdict.remedy}".rstrip())
    if file.layout.kind == "votes" and file.categories == COMPARES and verdict.level != "stop":
        next_step(f"name it in a recipe, under data: comparisons: {{path: {arguments.file}}}")
    else:
        next_step(f"keel data agreement {arguments.file} --json has every rater and every pair of raters")


def _judged(file: Any, report: Any) -> tuple[Any, Any, Sequence[Any], list[str]]:
    """The verdict, the alpha it rests on, what each rater does to agreement, and the items that carry disagreement.

    The last two are empty where the votes do not compare two answers; the items also where the verdict is ok.
    """
    from keel.annotate.agreement import gate
    from keel.annotate.ballots import ballots_cast
    from keel.monitor.bands import agreement_gate

    if file.categories == COMPARES:
        names = {row: clipped(item, ITEM_WIDTH) for row, item in enumerate(file.items)}
        checked = gate(ballots_cast(file.votes, file.raters), item_names=names)
        carrying = [file.items[item.item_id] for item in checked.items] if checked.verdict.level != "ok" else []
        return checked.verdict, report.ordinal, checked.raters, carrying
    found = report.agreement
    alpha = found.alpha
    return (
        agreement_gate(
            alpha.value, alpha.low, alpha.high, num_items=found.num_shared_items, num_raters=found.num_raters
        ),
        alpha,
        (),
        [],
    )


def judges(arguments: argparse.Namespace) -> None:
    """Print how good each judge of a file is, the best first, and what is wrong with it."""
    from dataclasses import asdict

    from keel.data.judge_files import judge_reports
    from keel.data.vote_report import flat, plain

    reading = judge_reports(arguments.file, arguments.gold, _reading(arguments), arguments.judge, arguments.swapped)
    if arguments.json:
        shown = []
        for report in reading.reports:
            figures = {name: value for name, value in asdict(report).items() if not isinstance(value, dict)}
            for name in ("accuracy", "consistency", "position_bias", "kappa"):
                figures |= flat(name, getattr(report, name))
            shown.append(figures | {"flags": list(report.flags)})
        head = {"path": arguments.file, "gold": reading.gold, "items": reading.num_items, "notes": list(reading.notes)}
        out(json.dumps(plain(head | {"judges": shown}), indent=2))
        return
    many = "1 judge" if len(reading.reports) == 1 else f"{len(reading.reports)} judges"
    out(f"{arguments.file}: {many} on {reading.num_items} items; right is {reading.gold}")
    for line in reading.notes:
        out(f"  {line}")
    rows = [["judge", "right", "95 % interval", "same in both orders", "pull to the first", "kappa", "items"]]
    for report in reading.reports:
        right, bias = report.accuracy, report.position_bias
        rows.append(
            [
                report.judge,
                _percent(right.value),
                f"{_percent(right.low)} to {_percent(right.high)}",
                _percent(report.consistency.value),
                "-" if math.isnan(bias.value) else f"{100 * bias.value:+.1f} points",
                "-" if math.isnan(report.kappa.value) else f"{report.kappa.value:.2f}",
                str(report.num_items),
            ]
        )
    out(columns(rows))
    flagged = [report for report in reading.reports if report.flags]
    if flagged:
        out(f"\nnot to be trusted as they are: {len(flagged)} of {many}")
        out(columns([[report.judge, "; ".join(report.flags)] for report in flagged]))
    best = next((report for report in reading.reports if not report.flags), None)
    next_step(
        f"use {best.judge}, asked in both orders" if best else "none is fit to judge; ask people, or a stronger model"
    )


def _three(estimate: Any) -> str:
    """An estimate to three digits, as papers print it."""
    if math.isnan(estimate.value):
        return "undefined"
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def _position(bias: Any) -> str:
    ties = f", {bias.num_ties} ties" if bias.num_ties else ""
    verdict = "sides sway the raters" if bias.found else "no sign that sides sway the raters"
    odds = bias.log_odds
    return (
        f"the answer shown first won {bias.num_first} of {bias.num_first + bias.num_second} "
        f"({_percent(bias.share.value)}{ties}; log-odds {odds.value:+.2f}, 95 % interval {odds.low:+.2f} to "
        f"{odds.high:+.2f}): {verdict}"
    )


def _side(bias: Any) -> str:
    return f"favours the {'first' if bias.log_odds.value > 0 else 'second'} answer ({_percent(bias.share.value)} first)"


def _kappa(rater: Any, kappa: Any) -> str:
    if math.isnan(kappa.value):
        return "no kappa: " + ("all shared votes say the same" if rater.num_pairs else "no shared items")
    interval = "" if math.isnan(kappa.low) else f" ({kappa.low:.2f} to {kappa.high:.2f})"
    return f"kappa {kappa.value:.2f}{interval}"
