"""The whole examination of a set: every rule in turn, the findings worst first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keel.core.progress import Progress, Silent
from keel.data.doctor import copies, preference, sets, texts
from keel.data.doctor.finding import SEVERITIES, Finding, Severity, counted
from keel.data.doctor.limits import Limits
from keel.data.doctor.patient import Patient

Rule = Callable[[Patient, Limits], Finding | None]

RULES: dict[str, Rule] = {
    "leakage": copies.leakage,
    "unreadable": sets.readable,
    "length_bias": preference.length_bias,
    "source_bias": preference.source_bias,
    "side_bias": preference.side,
    "one_prompt": preference.one_prompt,
    "one_rater": preference.rater_share,
    "label_balance": preference.label_balance,
    "contradictions": copies.contradictions,
    "truncation": texts.truncation,
    "empty_answers": texts.empty_answers,
    "identical_answers": copies.identical_answers,
    "duplicates": copies.duplicates,
    "near_duplicates": copies.near_duplicates,
    "chat_structure": sets.chat_structure,
    "encoding": texts.encoding,
    "languages": texts.languages,
    "label_noise": preference.label_noise,
    "refusals": texts.refusals,
    "boilerplate": texts.boilerplate,
    "prompt_diversity": sets.prompt_diversity,
    "size": sets.size,
}
"""Name and rule, gravest first; a rule that has nothing to go by says nothing."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What the doctor found."""

    patient: Patient
    findings: tuple[Finding, ...]
    """One of every rule that had something to go by, worst first."""

    @property
    def severity(self) -> Severity:
        """The worst of all findings."""
        return max((finding.severity for finding in self.findings), key=SEVERITIES.index, default="ok")

    @property
    def counts(self) -> dict[Severity, int]:
        return {level: sum(f.severity == level for f in self.findings) for level in SEVERITIES}

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        errors, warnings = self.counts["error"], self.counts["warn"]
        if errors:
            also = f", and {counted(warnings, 'warning')}" if warnings else ""
            return f"Do not train on it like this: {counted(errors, 'error')}{also}."
        if warnings:
            return f"Usable, with {counted(warnings, 'warning')} to look at first."
        return "In good health."

    def finding(self, rule: str) -> Finding | None:
        return next((finding for finding in self.findings if finding.rule == rule), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for machines."""
        patient = self.patient
        return {
            "path": patient.name,
            "format": patient.format,
            "kind": patient.kind,
            "records": len(patient.entries),
            "unreadable": len(patient.refused),
            "severity": self.severity,
            "headline": self.headline,
            "counts": dict(self.counts),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def summary(self) -> dict[str, Any]:
        """What a snapshot's manifest keeps of it."""
        return {
            "severity": self.severity,
            "findings": {f.rule: f.message for f in self.findings if f.severity != "ok"},
        }


def examine(
    patient: Patient, limits: Limits | None = None, progress: Progress | None = None, rules: Sequence[str] = ()
) -> Examination:
    """Ask every rule, or those named."""
    limits, progress = limits or Limits(), progress or Silent()
    asked = {name: rule for name, rule in RULES.items() if not rules or name in rules}
    progress.start("examining", len(asked), "rules")
    found: list[Finding] = []
    for name, rule in asked.items():
        finding = rule(patient, limits)
        if finding is not None:
            found.append(finding)
        progress.advance(rule=name)
    progress.finish("")
    found.sort(key=lambda finding: -SEVERITIES.index(finding.severity))
    return Examination(patient=patient, findings=tuple(found))
