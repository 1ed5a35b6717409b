"""`keel data show`: what a file of records holds."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keel.cli.commands.data_source import add_source, quiet, source
from keel.cli.render import clipped, columns, next_step, out

NUM_EXAMPLES = 3
WIDTH = 100  # characters of a text that is shown
SECTIONS = {"demonstrations": "demonstrations", "comparisons": "comparisons", "prompts": "prompts"}
"""Kinds of records, and the key of the recipe's data section that takes them."""


def add(actions: Any) -> None:
    action = actions.add_parser("show", help="the format and why, counts, examples")
    add_source(action)
    action.set_defaults(call=show, parser=action)


def show(arguments: argparse.Namespace) -> None:
    """Print what was detected and why, counts, what was dropped, three examples."""
    from keel.data.doctor.finding import counted
    from keel.data.formats import dialect_of, read

    config = source(arguments)
    kinds = dialect_of(config).gives
    with quiet():
        reading = read(config, kinds[0])
    records = reading.records
    also = [kind for kind in kinds if kind in SECTIONS]
    out(f"{reading.path}: {counted(len(records), kinds[0].removesuffix('s'))}")
    facts = [["format", f"{reading.format} ({reading.why})"], ["usable as", ", ".join(kinds)]]
    facts += [[name, value] for name, value in _facts(records, config.holdout).items()]
    for reason, count in reading.dropped.items():
        first = f"; first: {reading.examples[reason]}" if reason in reading.examples else ""
        facts.append(["dropped", f"{count} ({reason}){first}"])
    out(columns(facts))
    for number, record in enumerate(records[:NUM_EXAMPLES], start=1):
        out(f"\nexample {number}{_place(record)}")
        out(columns([[name, clipped(text, WIDTH)] for name, text in _example(record)]))
    if any(getattr(record, "votes", ()) for record in records):
        next_step(f"keel data agreement {arguments.file}")
    else:
        next_step(f"name it in a recipe, under data: {also[0]}: {{path: {arguments.file}}}")


def _facts(records: Sequence[Any], holdout: float) -> dict[str, str]:
    """What the records look like, in figures."""
    import statistics

    from keel.data.records import Comparison, Demonstration, LabelledText, Ranking, Rating, record_key
    from keel.report.units import percent

    what = "distinct texts" if isinstance(records[0], LabelledText) else "distinct prompts"
    facts = {
        what: str(len({record_key(record) for record in records})),
        "held out": f"{percent(holdout, 0)} of them, by hash of the prompt (setting holdout)",
    }
    match records[0]:
        case Comparison():
            sides = Counter("a" if r.preference > 0.5 else "b" if r.preference < 0.5 else "tie" for r in records)
            facts["preferred"] = ", ".join(
                f"{side} {percent(sides[side] / len(records), 0)}" for side in ("a", "b", "tie")
            )
            facts["words, median"] = f"{statistics.median(len(t.split()) for r in records for t in (r.a, r.b)):g}"
            untied = [r for r in records if r.preference != 0.5 and len(r.a) != len(r.b)]
            longer = [(len(r.a) > len(r.b)) == (r.preference > 0.5) for r in untied]
            if longer:
                facts["longer preferred"] = f"{percent(sum(longer) / len(longer), 0)} of {len(longer)} untied pairs"
            if raters := {vote.rater for r in records for vote in r.votes}:
                facts["votes"] = f"{sum(len(r.votes) for r in records)} by {len(raters)} raters"
        case Demonstration():
            facts["words, median"] = f"{statistics.median(len(r.response.split()) for r in records):g} a response"
        case Ranking():
            facts["responses, median"] = f"{statistics.median(len(r.responses) for r in records):g} a prompt"
        case Rating():
            facts["desirable"] = f"{percent(sum(r.desirable for r in records) / len(records), 0)}"
        case LabelledText():
            facts["labelled true"] = f"{percent(sum(r.label for r in records) / len(records), 0)}"
    return facts


def _example(record: Any) -> list[tuple[str, str]]:
    from keel.data.records import Comparison, Demonstration, LabelledText, Ranking, Rating, prompt_text

    match record:
        case Comparison(prompt, a, b, preference):
            return [("prompt", prompt_text(prompt)), ("a", a), ("b", b), ("preference for a", f"{preference:g}")]
        case Demonstration(prompt, response):
            return [("prompt", prompt_text(prompt)), ("response", response)]
        case Rating(prompt, response, desirable):
            label = str(desirable).lower()
            return [("prompt", prompt_text(prompt)), ("response", response), ("desirable", label)]
        case Ranking(prompt, responses, scores):
            best = sorted(zip(scores, responses, strict=True), key=lambda pair: -pair[0])
            return [("prompt", prompt_text(prompt)), *((f"score {score:g}", response) for score, response in best)]
        case LabelledText(text, label):
            return [("text", text), ("label", str(label).lower())]
        case _:
            return [("prompt", prompt_text(record))]


def _place(record: Any) -> str:
    source = getattr(record, "source", "")
    return f" ({Path(source).name})" if source else ""
