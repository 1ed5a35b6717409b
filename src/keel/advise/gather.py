"""The data part of the facts, read from files: how much there is, how far raters agree, whether length wins."""

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any

from keel.advise.facts import Agreement, Data
from keel.annotate.agreement import gate
from keel.annotate.ballots import ballots_in
from keel.core.errors import ConfigError, DataError
from keel.data.formats import DataConfig, read_comparisons, read_demonstrations, read_prompts, read_ratings
from keel.data.records import Comparison

READERS: dict[str, Callable[[DataConfig], Sequence[Any]]] = {
    "demonstrations": read_demonstrations,
    "comparisons": read_comparisons,
    "ratings": read_ratings,
    "prompts": read_prompts,
    "golden": read_comparisons,
}


def gather(given: dict[str, str | None], kappa: float | None = None) -> Data:
    """What the files hold; `given` has a path or a number of records for each kind. `kappa` stands in for votes."""
    counts: dict[str, int] = {}
    paths = []
    comparisons: Sequence[Comparison] = ()
    for kind, text in given.items():
        if text is None:
            continue
        if text.isdigit():
            counts[kind] = int(text)
            continue
        records = read(kind, text)
        counts[kind] = len(records)
        paths.append((kind, text))
        if kind == "comparisons":
            comparisons = records
    found = agreement_of(comparisons)
    if kappa is not None:
        if not -1 <= kappa <= 1:
            raise ConfigError(f"--kappa {kappa:g}: expected a number from -1 to 1.")
        if found is not None:
            raise ConfigError(
                f"--kappa {kappa:g}: the votes in {dict(paths)['comparisons']} say {found.alpha:.2f}. Leave it out."
            )
        found = Agreement(alpha=kappa, low=nan, high=nan, agreement=nan, raters=0, votes_per_item=nan, measured=False)
    ties = sum(record.preference == 0.5 for record in comparisons)
    return Data(
        demonstrations=counts.get("demonstrations", 0),
        comparisons=counts.get("comparisons", 0) - ties,
        ties=ties,
        ratings=counts.get("ratings", 0),
        prompts=counts.get("prompts", 0),
        golden=counts.get("golden", 0),
        longer_wins=longer_wins(comparisons),
        agreement=found,
        paths=tuple(paths),
    )


def read(kind: str, path: str) -> Sequence[Any]:
    """The records of a local file or folder."""
    if not Path(path.rpartition("@")[0] or path).exists() and not Path(path).exists():
        raise DataError(
            f"--{kind} {path}: no such file or folder here. Sets on the hub are not fetched for advice: give the "
            f"number of records instead (--{kind} 20000), and put the name into the recipe afterwards."
        )
    return READERS[kind](DataConfig(path=path, on_error="drop"))


def agreement_of(comparisons: Sequence[Comparison]) -> Agreement | None:
    """How far the raters agree, as the gate before training measures it; None where no pair has two votes."""
    report = gate(ballots_in(comparisons)).report if comparisons else None
    if report is None:
        return None
    counts = sorted(len(record.votes) for record in comparisons if record.votes)
    return Agreement(
        alpha=report.alpha.value,
        low=report.alpha.low,
        high=report.alpha.high,
        agreement=report.agreement.value,
        raters=report.num_raters,
        votes_per_item=float(counts[len(counts) // 2]),
        measured=True,
    )


def longer_wins(comparisons: Sequence[Comparison]) -> float | None:
    """Share of decided comparisons with responses of different length whose better one is the longer; None without."""
    won = [
        (record.preference > 0.5) == (len(record.a) > len(record.b))
        for record in comparisons
        if record.preference != 0.5 and len(record.a) != len(record.b)
    ]
    return sum(won) / len(won) if won else None
