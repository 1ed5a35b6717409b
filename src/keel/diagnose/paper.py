"""The letter on paper: as Markdown, as JSON, and for the terminal."""

import json
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from keel.core.events import plain
from keel.diagnose.figures import words
from keel.diagnose.findings import Finding
from keel.diagnose.letter import Evidence, Letter, illness
from keel.diagnose.prescription import Advice
from keel.report.values import printable

MOST_FINDINGS = 6
MOST_WELL = 5
WIDEST = 100  # columns; longer lines are hard to read
TONES = {"healthy": "bold green", "unwell": "bold red", "unclear": "bold yellow"}


def markdown(letter: Letter) -> str:
    """The letter as one page of Markdown."""
    return f"# {printable(letter.headline)}\n\n{_body(letter)}"


def _body(letter: Letter) -> str:
    log = letter.log
    lines = [f"**{log.path}**: {_what_was_read(letter)}", ""]
    if letter.cause:
        lines += ["## Cause", "", letter.cause, ""]
    if letter.findings:
        told = [f"- {_finding(letter, finding)}" for finding in letter.findings[:MOST_FINDINGS]]
        if len(letter.findings) > MOST_FINDINGS:
            told.append(f"- and {len(letter.findings) - MOST_FINDINGS} more, which `--json` lists")
        lines += ["## Findings", "", *told, ""]
    if done := [action for one in letter.examined for action in one.stage.actions]:
        lines += ["## What was done while it ran", "", *(f"- {action}" for action in done), ""]
    if letter.evidence:
        lines += ["## Evidence, from start to end", "", *_table(letter.evidence), ""]
    if letter.went_well:
        well = [verdict.message for verdict in letter.went_well]
        lines += ["## What went well", "", *(f"- {text}" for text in dict.fromkeys(well[:MOST_WELL])), ""]
    lines += [f"## {'The next settings to try' if letter.advice else 'Nothing to change'}", ""]
    for number, advice in enumerate(letter.advice, start=1):
        lines += [f"{number}. {_setting(letter, advice)}. {advice.why} Watch: {advice.watch}."]
    lines += ["", "Change one at a time, or nobody knows which of them helped.", ""] if len(letter.advice) > 1 else [""]
    if letter.not_judged:
        missing = "; ".join(dict.fromkeys(illness(verdict) for verdict in letter.not_judged))
        lines += [
            "## What this log cannot say",
            "",
            f"It lacks the figures that would show any of this: {missing}.",
            "",
        ]
    notes = [f"- `{own}`: {why}" for own, why in {**log.remarks, **log.left_out}.items()]
    if notes:
        lines += ["## About the figures", "", *notes, ""]
    return printable("\n".join(lines)).rstrip() + "\n"


def show(letter: Letter, console: Console | None = None) -> None:
    """Print the letter."""
    if console is None:
        console = Console(highlight=False)
        console.width = min(console.width, WIDEST)
    console.print(Text(printable(letter.headline), style=TONES[letter.status]))
    console.print()
    console.print(Markdown(_body(letter)))


def as_json(letter: Letter) -> str:
    """The letter as a JSON document."""
    over = {one.stage.name for one in letter.examined if one.stage.over}
    document: dict[str, Any] = {
        "path": letter.log.path,
        "tool": letter.log.tool,
        "trainer": letter.log.trainer,
        "recognised_by": letter.log.recognised_by,
        "stages": [
            {
                "stage": one.stage.name,
                "kind": one.stage.kind,
                "updates": len(one.stage.history.steps),
                "evaluations": len(one.stage.history.evaluations),
                "actions": one.stage.actions,
                "over": one.stage.over,
            }
            for one in letter.examined
        ],
        "status": letter.status,
        "level": letter.level,
        "headline": letter.headline,
        "cause": letter.cause,
        "findings": [
            {
                "stage": finding.stage,
                "level": finding.verdict.level,
                "rule": finding.verdict.rule,
                "since": finding.since,
                "until": finding.until,
                "stage_over": finding.stage in over,
                "message": finding.verdict.message,
                "cause": finding.verdict.cause,
                "remedy": finding.verdict.remedy,
                "confidence": finding.verdict.confidence,
                "figures": finding.verdict.figures,
            }
            for finding in letter.findings
        ],
        "evidence": [
            {
                "stage": entry.stage,
                "figure": entry.figure,
                "unit": words(entry.figure).unit,
                "held_out": entry.held_out,
                "start": entry.start,
                "end": entry.end,
                "changed_at": entry.changed_at,
            }
            for entry in letter.evidence
        ],
        "went_well": [{"rule": v.rule, "message": v.message} for v in letter.went_well],
        "settings": [
            {
                "stage": advice.stage,
                "setting": advice.setting,
                "formerly": advice.formerly,
                "had": advice.had,
                "to": advice.to,
                "why": advice.why,
                "watch": advice.watch,
                "rule": advice.rule,
            }
            for advice in letter.advice
        ],
        "not_judged": [{"rule": v.rule, "message": v.message} for v in letter.not_judged],
        "figures_read": dict(letter.log.own_names),
        "figures_left_out": dict(letter.log.left_out),
    }
    return json.dumps(plain(document), indent=2, ensure_ascii=False)


def _what_was_read(letter: Letter) -> str:
    log = letter.log
    parts = []
    for one in letter.examined:
        history = one.stage.history
        parts.append(f"{one.stage.name} {len(history.steps)} updates, {len(history.evaluations)} evaluations")
    who = f"{log.tool}, {log.trainer}" if log.tool != "keel" else "a keel run"
    return f"read as {who} ({log.recognised_by}); {'; '.join(parts)}."


def _finding(letter: Letter, finding: Finding) -> str:
    when = ""
    if finding.until is not None:
        when = f", update {finding.since} to {finding.until}, then over"
    elif finding.since is not None:
        when = f", since update {finding.since}"
    stage = f"{finding.stage}, " if len(letter.examined) > 1 else ""
    verdict = finding.verdict
    return f"**{stage}{verdict.level}**{when}: {verdict.message} {verdict.remedy}".rstrip()


def _table(evidence: tuple[Evidence, ...]) -> list[str]:
    stages = len({entry.stage for entry in evidence}) > 1
    rows = ["| figure | start | end | changed by update |", "|---|---:|---:|---:|"]
    for entry in evidence:
        name, start, end = entry.cells()
        changed = str(entry.changed_at) if entry.changed_at is not None else "—"
        rows.append(f"| {f'{entry.stage}: ' if stages else ''}{name} | {start} | {end} | {changed} |")
    return rows


def _setting(letter: Letter, advice: Advice) -> str:
    former = f" (before 0.10.2: `{advice.formerly}`)" if advice.formerly else ""
    had = f"{advice.had:.3g} → " if advice.had is not None else ""
    return f"`{advice.setting}`{former}: **{had}{advice.to}**"
