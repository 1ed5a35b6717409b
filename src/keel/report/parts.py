"""The parts of the report that are not plots: samples side by side, costs, alarms, settings and lineage."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from keel.report.markup import escape, section, table
from keel.report.records import Agreement, Measure, Round, Run, SamplePair, Stage
from keel.report.units import duration, gibibytes, percent, plain, signed
from keel.report.values import number

OPEN_SAMPLES = 6  # the others wait behind a fold
MOST_SAMPLES = 40
LONGEST_TEXT = 1500  # characters of one answer
LONGEST_PROMPT = 400  # characters
LONGEST_COMPARED = 400  # words; comparing takes time with the square of it
ALIKE = 0.2  # below this share of words in common, marking differences would mark everything
LEAST_SECONDS = 0.1  # shorter stages are left out of the costs
PARTS_OF_A_STEP = (
    ("seconds_rollout", "sampling answers"),
    ("seconds_score", "scoring them"),
    ("seconds_update", "updating"),
)
COLOURS = {"sft": "violet", "labels": "red", "reward": "teal", "prefer": "blue", "ppo": "blue", "evaluate": "ochre"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stage, or a part of one, and its seconds."""

    stage: str
    title: str
    seconds: float


def samples_table(
    pairs: Sequence[SamplePair],
    *,
    both: bool,
    comparable: bool,
    sides: tuple[str, str] = ("before", "after"),
    opened: int = OPEN_SAMPLES,
) -> str:
    """Answers side by side; `comparable` says whether the scores of the two sides share a scale."""
    first, rest = pairs[:opened], pairs[opened:MOST_SAMPLES]
    body = _samples(first, both=both, comparable=comparable, sides=sides)
    if rest:
        more = _samples(rest, both=both, comparable=comparable, sides=sides)
        body += f"<details><summary>{len(rest)} more</summary>{more}</details>"
    return body


def _samples(pairs: Sequence[SamplePair], *, both: bool, comparable: bool, sides: tuple[str, str]) -> str:
    rows = []
    for pair in pairs:
        before, after = difference(_cut((pair.before or "").strip()), _cut((pair.after or "").strip()))
        cells = [_answer(sides[0], pair.before, before, pair.score_before)]
        if both:
            since = pair.score_before if comparable else math.nan
            cells.append(_answer(sides[1], pair.after, after, pair.score_after, since=since))
        head_of_pair = f'<th colspan="{len(cells)}" scope="rowgroup" dir="auto">{_prompt(pair.prompt)}</th>'
        rows.append(f"<tr>{head_of_pair}</tr><tr>{''.join(cells)}</tr>")
    return f'<table class="samples"><tbody>{"".join(rows)}</tbody></table>'


def _answer(side: str, answer: str | None, marked: str, score: float, *, since: float = math.nan) -> str:
    if answer is None:
        return '<td><span class="rest">not sampled</span></td>'
    change = f" ({signed(score - since)})" if math.isfinite(score - since) else ""
    scored = f": score <b>{signed(score)}</b>{change}" if math.isfinite(score) else ""
    text = marked if answer.strip() else '<span class="rest">(empty)</span>'
    return f'<td dir="auto"><span class="score">{side}{scored}</span>{text}{_rest(answer.strip())}</td>'


def _prompt(prompt: str) -> str:
    """The prompt, or the end of a long one: what was asked last matters most."""
    left = len(prompt) - LONGEST_PROMPT
    if left <= 0:
        return escape(prompt)
    return f'<span class="rest">{left} characters, then … </span><span class="long">{escape(prompt[left:])}</span>'


def _cut(text: str) -> str:
    return text[:LONGEST_TEXT]


def _rest(text: str) -> str:
    left = len(text) - LONGEST_TEXT
    return f'<span class="rest"> … and {left} characters more</span>' if left > 0 else ""


def difference(before: str, after: str) -> tuple[str, str]:
    """Both texts as HTML, with the words that only the first or only the second has marked.

    Nothing is marked where the two have too little in common for marks to tell anything, or are very long.
    """
    old, new = re.findall(r"\S+|\s+", before), re.findall(r"\S+|\s+", after)
    if max(len(old), len(new)) > 2 * LONGEST_COMPARED:
        return escape(before), escape(after)
    words_old, words_new = [word for word in old if word.strip()], [word for word in new if word.strip()]
    matcher = difflib.SequenceMatcher(a=words_old, b=words_new, autojunk=False)
    if not words_old or not words_new or matcher.ratio() < ALIKE:
        return escape(before), escape(after)
    gone = {i for tag, low, high, _, _ in matcher.get_opcodes() if tag != "equal" for i in range(low, high)}
    come = {i for tag, _, _, low, high in matcher.get_opcodes() if tag != "equal" for i in range(low, high)}
    return _marked(old, gone, "del"), _marked(new, come, "ins")


def _marked(pieces: Sequence[str], marked: set[int], tag: str) -> str:
    """`pieces` joined, with the words whose number is in `marked` inside `tag`, neighbours in one element."""
    text, index, open_tag, space = "", -1, False, ""
    for piece in pieces:
        if not piece.strip():
            space += piece
            continue
        index += 1
        if open_tag and index not in marked:
            text += f"</{tag}>"
            open_tag = False
        text += escape(space)
        space = ""
        if not open_tag and index in marked:
            text += f"<{tag}>"
            open_tag = True
        text += escape(piece)
    return text + (f"</{tag}>" if open_tag else "") + escape(space)


def cost_phases(run: Run) -> list[Phase]:
    """What took time, in order; reinforcement learning is split where its steps were timed."""
    phases: list[Phase] = []
    for stage in run.stages.values():
        if not stage.seconds >= LEAST_SECONDS:
            continue
        split = [(name, stage.steps.sum(figure)) for figure, name in PARTS_OF_A_STEP]
        split = [(name, seconds) for name, seconds in split if math.isfinite(seconds)]
        rest = stage.seconds - math.fsum(seconds for _, seconds in split)
        if not split or rest < -0.05 * stage.seconds:  # timed by another clock, so it cannot be split
            phases.append(Phase(stage=stage.name, title=stage.title, seconds=stage.seconds))
            continue
        others = "evaluating and saving" if stage.steps.has("seconds_update") else "updating and the rest"
        split += [(others, rest)] if rest > 0.02 * stage.seconds else []
        phases += [Phase(stage=stage.name, title=f"{stage.title}: {name}", seconds=seconds) for name, seconds in split]
    return phases


def costs_section(run: Run) -> str:
    phases = cost_phases(run)
    if not phases:
        return ""
    total = math.fsum(phase.seconds for phase in phases)
    bar, rows, seen = "", "", dict.fromkeys((phase.stage for phase in phases), 0)
    for phase in phases:
        opacity = max(0.25, 0.9 - 0.22 * seen[phase.stage])
        seen[phase.stage] += 1
        paint = f"background:var(--{COLOURS.get(phase.stage, 'muted')});opacity:{opacity:.2f}"
        bar += f'<i style="flex:{phase.seconds:.2f} 1 0;{paint}"></i>'
        rows += (
            f'<tr><td><span class="swatch" style="{paint}"></span>{escape(phase.title)}</td>'
            f'<td class="number">{escape(duration(phase.seconds))}</td>'
            f'<td class="number">{percent(phase.seconds / total, 0)}</td></tr>'
        )
    remarks = [f"{duration(total)} in the stages below"]
    memory = gibibytes(run.summary.get("peak_rss_bytes"))
    remarks += [f"peak memory {memory}"] if memory else []
    remarks += [f"threads: {run.summary['threads']}"] if run.summary.get("threads") else []
    remarks += [f"{stage.title} reused from an earlier run" for stage in run.stages.values() if stage.reused]
    speed = run.stages["ppo"].steps.last("tokens_per_second") if "ppo" in run.stages else math.nan
    remarks += [f"{speed:,.0f} tokens per second at the end"] if math.isfinite(speed) else []
    body = (
        f'<div class="costs" role="img" aria-label="Seconds per phase">{bar}</div>'
        f'<div class="scroll"><table class="fit"><tbody>{rows}</tbody></table></div>'
    )
    return section("What did it cost?", "; ".join(remarks) + ".", body)


def agreement_table(agreement: Agreement) -> str:
    rows = [
        [name, f"{measure.value:.2f}", _range(measure)]
        for name, measure in (
            ("votes on the same item that are equal", agreement.share),
            (agreement.kappa_name, agreement.kappa),
            ("Krippendorff's alpha", agreement.alpha),
        )
        if math.isfinite(measure.value)
    ]
    for name, count in (
        ("raters", agreement.raters),
        ("items they share", agreement.items),
        ("votes", agreement.votes),
    ):
        if math.isfinite(count):
            rows.append([name, f"{count:,.0f}", ""])
    return table(["", "", "95 % interval"], rows, numbers={1, 2})


def _range(measure: Measure) -> str:
    known = math.isfinite(measure.low) and math.isfinite(measure.high)
    return f"{measure.low:.2f} to {measure.high:.2f}" if known else ""


def rounds_table(rounds: Sequence[Round]) -> str:
    rows = [
        [
            str(entry.round),
            f"{entry.labels:,.0f}" if math.isfinite(entry.labels) else "—",
            percent(entry.agreement),
            f"{entry.krippendorff_alpha:.2f}" if math.isfinite(entry.krippendorff_alpha) else "—",
            percent(entry.on_policy_accuracy_before),
            percent(entry.held_out_accuracy),
        ]
        for entry in rounds
    ]
    columns = [
        "round",
        "labels",
        "raters agree",
        "Krippendorff's α",
        "right on fresh answers",
        "right on held-out pairs",
    ]
    return table(columns, rows, numbers=range(len(columns)))


def comparison_rows(stage: Stage) -> list[list[str]]:
    """Figures that the evaluation took of both models: every `name` that stands beside a `name_sft`."""
    rows = []
    for name in stage.metrics:
        before, after = stage.metric(f"{name}_sft"), number(stage.metrics[name])
        if math.isfinite(before) and math.isfinite(after):
            digits = 3 if max(abs(before), abs(after)) < 1 else 2
            rows.append([name.replace("_", " "), plain(before, digits), plain(after, digits)])
    return rows


def config_section(run: Run) -> str:
    settings = [("The recipe, with every default filled in", run.recipe)] if run.recipe else []
    settings += [
        (f"Settings of {s.title}", _as_yaml(s.config)) for s in run.stages.values() if s.config and not run.recipe
    ]
    folds = [
        f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>" for name, text in settings
    ]
    if run.artifacts:
        rows = [
            [
                str(entry.get("folder", "")),
                str(entry.get("kind", "")),
                str(entry.get("id", ""))[:12],
                ", ".join(str(parent)[:12] for parent in entry.get("parents") or ()) or "—",
                str(entry.get("created", "")),
            ]
            for entry in run.artifacts
        ]
        lineage = table(["folder", "kind", "id", "made from", "created"], rows)
        folds.append(f"<details><summary>Lineage: what was made from what</summary>{lineage}</details>")
    if not folds:
        return ""
    introduction = (
        "Every setting in force, including those nobody changed, and the descent of every artifact by its hash."
    )
    return section("How was it made?", introduction, "\n".join(folds))


def _as_yaml(config: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
