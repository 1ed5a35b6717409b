"""All that a file of votes says about its raters, as one record and as JSON."""

from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import numpy as np

from keel.core.errors import ConfigError, DataError
from keel.data.vote_files import VoteFile
from keel.stats.agreement import MISSING, AgreementReport, Level, agreement_report, alpha_estimate, disputed_items
from keel.stats.dawid_skene import DawidSkene, dawid_skene
from keel.stats.intervals import Estimate
from keel.stats.raters import PositionBias, SelfAgreement, position_bias, self_agreement

MOST_DISPUTED = 100
"""Disputed items that are named."""
MIN_SHOWN = 10
"""Judgments with known sides below which a rater's position bias is not shown."""


@dataclass(frozen=True, slots=True)
class VoteReport:
    """Agreement, position bias, self-agreement and rater confusion of one file."""

    file: VoteFile
    agreement: AgreementReport
    ordinal: Estimate | None
    """Krippendorff's alpha with the categories in order, which the gate of comparisons looks at; None without order."""
    skill: DawidSkene
    """Categories are those of the file."""
    position: PositionBias | None
    """None where the file does not say which answer stood first."""
    position_by_rater: dict[str, PositionBias]
    repeats: SelfAgreement | None
    """None where nobody voted twice on an item."""
    disputed: tuple[str, ...]
    """Items whose votes differ, the most disputed first."""

    def to_dict(self) -> dict[str, Any]:
        """Figures for JSON. `items` are those with a vote that counts, `shared_items` those with two or more."""
        report, file = self.agreement, self.file
        figures: dict[str, Any] = {
            "path": file.path,
            "layout": file.layout.name or file.layout.kind,
            "why": file.layout.why,
            "level": report.level,
            "categories": list(file.categories),
            "items": report.num_items,
            "shared_items": report.num_shared_items,
            "raters": report.num_raters,
            "votes": report.num_votes,
        }
        figures |= flat("pairwise_agreement", report.agreement)
        figures |= flat("krippendorff_alpha", report.alpha)
        if self.ordinal:
            figures |= flat("krippendorff_alpha_ordinal", self.ordinal)
        figures |= flat("fleiss_kappa", report.fleiss)
        figures["cohen_kappa"] = [
            {"raters": [pair.first, pair.second], "items": pair.num_items, "agreement": pair.agreement}
            | flat("kappa", pair.kappa)
            for pair in report.pairs
        ]
        figures["by_rater"] = [
            asdict(rater)
            | {"reliability": float(self.skill.reliability[k]), "confusion": self.skill.confusion[k].tolist()}
            | {"position_bias": _position(self.position_by_rater.get(rater.rater))}
            for k, rater in enumerate(report.raters)
        ]
        figures["position_bias"] = _position(self.position)
        figures["self_agreement"] = None
        if self.repeats:
            figures["self_agreement"] = {"repeats": self.repeats.num_repeats}
            figures["self_agreement"] |= flat("agreement", self.repeats.agreement) | flat("kappa", self.repeats.kappa)
        figures["disputed_items"] = len(self.disputed)
        figures["most_disputed"] = list(self.disputed[:MOST_DISPUTED])
        figures["notes"] = list(file.notes)
        return plain(figures)


def vote_report(file: VoteFile, level: Level = "nominal", *, seed: int = 0) -> VoteReport:
    """The report; DataError where no item has votes of two raters."""
    num_items, num_raters = file.votes.shape
    if num_raters < 2 or not ((file.votes != MISSING).sum(axis=1) > 1).any():
        only = f"only {file.raters[0]} voted" if num_raters == 1 else f"none of the {num_raters} raters share an item"
        notes = f" ({'; '.join(file.notes)})" if file.notes else ""
        raise DataError(
            f"{file.path}: no item has votes of two raters, so there is no agreement to measure: {only}, on "
            f"{num_items} items{notes}. Have a part of the items judged by two raters or more."
        )
    if level != "nominal" and not file.ordered:
        raise ConfigError(
            f"--level {level}: the votes are {', '.join(file.categories)}, which have no order that keel knows. Give "
            f"it with --order, from lowest to highest: --order {','.join(file.categories)}."
        )
    report = agreement_report(file.votes, file.raters, level, seed=seed)
    item, rater = np.nonzero(file.votes != MISSING)
    skill = dawid_skene(
        item, rater, file.votes[item, rater], num_items, num_raters, len(file.categories), prior_votes=4.0
    )
    shown, who, models = file.first_shown, file.shown_by, file.models
    named = bool(len(models)) and models.min() >= 0 and len(np.unique(models)) > 1
    together = None
    if len(shown):
        together = position_bias(shown, models[:, 0], models[:, 1]) if named else position_bias(shown)
    each = {name: shown[who == k] for k, name in enumerate(file.raters)}
    return VoteReport(
        file,
        report,
        alpha_estimate(file.votes, "ordinal", seed=seed) if file.ordered else None,
        skill,
        together,
        {name: position_bias(said) for name, said in each.items() if len(said) >= MIN_SHOWN},
        self_agreement(file.repeats[:, 1], file.repeats[:, 2], seed=seed) if len(file.repeats) else None,
        tuple(file.items[n] for n in disputed_items(file.votes)),
    )


def flat(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as name, name_low and name_high."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _position(bias: PositionBias | None) -> dict[str, Any] | None:
    if bias is None:
        return None
    counts = {"first": bias.num_first, "second": bias.num_second, "ties": bias.num_ties, "p_value": bias.p_value}
    return counts | flat("share", bias.share) | flat("log_odds", bias.log_odds)


def plain(value: Any) -> Any:
    """JSON has no nan; null stands for it."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and isnan(value) else value
