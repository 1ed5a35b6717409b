"""The report page of a run: one file that needs nothing else, reads on a phone and prints.

The page asks for nothing outside itself and runs no script; its content security policy forbids both, whatever text a
model wrote into it.
"""

import math
import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from keel import __version__
from keel.core.files import atomic_write_text
from keel.report import model_figures, policy_figures
from keel.report.ai_parts import constitution_section, judge_section
from keel.report.alarm_cards import alarms_section
from keel.report.markup import definition, escape, paragraph, plot_grid, section, table
from keel.report.parts import (
    agreement_table,
    comparison_rows,
    config_section,
    costs_section,
    rounds_table,
    samples_table,
)
from keel.report.plots import Plot, require_matplotlib
from keel.report.read import read_run
from keel.report.records import RewardCard, Run
from keel.report.units import percent, signed
from keel.report.words import accuracy_band, agreement_sentence, headline, key_figures

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write_report(run_dir: Path) -> Path:
    """Write RUN/report.html from whatever the run has left so far; returns its path."""
    require_matplotlib()
    run = read_run(run_dir)
    page = run_dir / "report.html"
    atomic_write_text(page, render(run))
    return page


def render(run: Run) -> str:
    """The page as text."""
    parts: list[tuple[str, str, str]] = [  # anchor, name in the list of contents, body
        (anchor, name, body)
        for anchor, name, build in (  # the order in which a reader asks
            ("distance", "Distance", _distance),
            ("score", "Score", _score),
            ("evaluation", "Evaluation", _evaluation),
            ("alarms", "Alarms", alarms_section),
            ("samples", "Samples", _samples),
            ("writing", "Writing", _writing),
            ("optimiser", "Optimiser", _optimiser),
            ("prefer", "Preferences", _prefer),
            ("reward", "Reward model", _reward),
            ("judge", "AI judge", judge_section),
            ("labels", "Labels", _labels),
            ("constitution", "Constitution", constitution_section),
            ("sft", "Fine-tuning", _sft),
            ("costs", "Costs", costs_section),
            ("config", "Settings", config_section),
        )
        if (body := build(run))
    ]
    contents = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in parts)
    sections = "\n".join(f'<section id="{anchor}">\n{body}\n</section>' for anchor, _, body in parts)
    body = f"""{_header(run)}
<nav aria-label="Contents">{contents}</nav>
{sections}
<footer class="small">Written by keel {escape(str(run.summary.get("keel_version") or __version__))} from events.jsonl
and summary.json in this folder. <code>keel show</code> prints the same in a terminal.</footer>"""
    return document(run.name, body)


def document(title: str, body: str) -> str:
    """A page that needs nothing else; `body` is HTML, `title` plain text."""
    style = (files("keel.report") / "page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)} · keel</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _header(run: Run) -> str:
    verdict = headline(run)
    about = [f"<b>{escape(run.name)}</b>"]
    if run.summary.get("model"):
        about.append(escape(str(run.summary["model"])))
    if run.summary.get("method"):
        about.append(escape(f"method: {run.summary['method']}"))
    if run.summary.get("seed") is not None:
        about.append(f"seed {escape(str(run.summary['seed']))}")
    if math.isfinite(run.started):
        about.append(time.strftime("%-d %B %Y, %H:%M", time.localtime(run.started)))
    if run.state != "finished":
        about.append(f"<b>{'still running' if run.state == 'running' else 'stopped before the end'}</b>")
    lead = "\n".join(paragraph(text) for text in verdict.paragraphs)
    numbers = "".join(definition(figure.label, figure.value, figure.note) for figure in key_figures(run))
    return f"""<header>
<p class="run">{" · ".join(about)}</p>
<h1 class="{verdict.tone}">{escape(verdict.title)}</h1>
<div class="opening">
<div class="lead">
{lead}
</div>
<dl class="figures">{numbers}</dl>
</div>
</header>"""


def _plots(title: str, introduction: str, plots: Sequence[Plot]) -> str:
    return section(title, introduction, plot_grid(plots)) if plots else ""


def _distance(run: Run) -> str:
    introduction = (
        "KL divergence, in nats, says how differently the policy speaks from the model it started from: 0 is no change "
        "at all. Every gain is paid for in it, so it comes first."
    )
    stage = run.stages.get("ppo")
    if stage is not None and stage.steps.boundaries:
        introduction += " Dotted lines mark new rounds."
    if stage is not None and any(len(at) for at in stage.steps.broken.values()):
        introduction += " A red cross on an axis marks a step whose figure was not a number."
    if stage is not None and stage.steps.rollbacks:
        introduction += " A red line marks a rollback by the guardian, grey what it undid."
    if stage is not None and stage.resumed_at:
        at = " and ".join(f"{step:.0f}" for step in stage.resumed_at)
        introduction += f" The run was interrupted and went on after update {at}."
    return _plots("How far did it move?", introduction, policy_figures.ladder_plots(run))


def _score(run: Run) -> str:
    introduction = (
        "The score is the reward model's opinion of a whole answer. It rises in almost every run, healthy or not; "
        "what counts is whether it rises on prompts held out, and whether someone else agrees."
    )
    stage = run.stages.get("ppo")
    if stage is not None and stage.steps.boundaries:
        introduction += " Each round has a refreshed reward model, so levels do not compare across the dotted lines."
    return _plots("Did the score rise?", introduction, policy_figures.score_plots(run))


def _writing(run: Run) -> str:
    introduction = (
        "A policy that has found a trick says the same thing to everyone. It shows here before anywhere else."
    )
    return _plots("Is the writing still alive?", introduction, policy_figures.writing_plots(run))


def _optimiser(run: Run) -> str:
    introduction = "What the optimiser was doing. Look here when something above looks wrong."
    return _plots("Is the optimiser well?", introduction, policy_figures.optimiser_plots(run))


def _prefer(run: Run) -> str:
    introduction = (
        "Trained on comparisons directly, a policy implies a reward: how much likelier it has made an answer than it "
        "was before. What counts is whether that reward sides with people on pairs held out."
    )
    plots = model_figures.prefer_plots(run)
    if not plots or run.reward is None or not run.reward.implied:
        return _plots("What did it learn from the comparisons?", introduction, plots)
    plots += model_figures.card_plots(run.reward)
    return section(
        "What did it learn from the comparisons?", introduction, plot_grid(plots) + _reward_facts(run.reward)
    )


def _reward(run: Run) -> str:
    if run.reward is not None and run.reward.implied:
        return ""
    plots = model_figures.reward_plots(run)
    if not plots:
        return ""
    introduction = "Reinforcement learning can be no better than the reward model it listens to."
    body = plot_grid(plots)
    if run.reward is not None:
        body += _reward_facts(run.reward)
    return section("How good is the reward model?", introduction, body)


def _reward_facts(card: RewardCard) -> str:
    facts = [f"{percent(card.accuracy)} is {accuracy_band(card.accuracy)}"]
    if card.verdict and card.verdict != accuracy_band(card.accuracy):
        facts.append(f"the run's own verdict: {card.verdict}")
    if math.isfinite(card.score_mean) and math.isfinite(card.score_std):
        facts.append(f"its scores have mean {card.score_mean:.2f} and standard deviation {card.score_std:.2f}")
    if card.best_of and math.isfinite(card.best_of_gain):
        facts.append(
            f"picking the best of {card.best_of} answers, before any training, gains {signed(card.best_of_gain)}"
        )
    if math.isfinite(card.golden_accuracy):
        facts.append(f"on the golden set it is right on {percent(card.golden_accuracy)}")
    text = "; ".join(facts)
    return paragraph(text[0].upper() + text[1:] + ".")


def _labels(run: Run) -> str:
    body = ""
    if run.agreement is not None:
        body += agreement_table(run.agreement)
    if run.rounds:
        body += rounds_table(run.rounds) + plot_grid(model_figures.round_plots(run.rounds))
    if not body:
        return ""
    introduction = "Agreement between raters sets the ceiling for everything learned from them. "
    return section("What do the labels say?", introduction + agreement_sentence(run.agreement), body)


def _sft(run: Run) -> str:
    introduction = "Before any preference, the model learned from demonstrations how an answer looks."
    return _plots("How did fine-tuning go?", introduction, model_figures.sft_plots(run))


def _samples(run: Run) -> str:
    if not run.samples:
        return ""
    both = any(pair.after is not None for pair in run.samples)
    what = "training on preferences" if "prefer" in run.stages else "reinforcement learning"
    introduction = (
        f"The same prompts, answered by the model before and after {what}. Words that went are tinted red, words that "
        "came green. Read them: no figure on this page replaces it."
        if both
        else "Answers of the model before reinforcement learning; it has not sampled again since."
    )
    if both and run.rescaled:
        introduction += " The reward model changed in between, so scores before and after are on different scales."
    return section(
        "What does it say now?", introduction, samples_table(run.samples, both=both, comparable=not run.rescaled)
    )


def _evaluation(run: Run) -> str:
    stage = run.stages.get("evaluate")
    rows = comparison_rows(stage) if stage is not None else []
    if not rows:
        return ""
    n = stage.metric("n") if stage is not None else math.nan
    count = f" on {n:.0f} prompts" if math.isfinite(n) else ""
    introduction = f"Both models answered{count}; what each figure came to for the one and for the other."
    return section(
        "Against the model it started from", introduction, table(["", "before", "after"], rows, numbers={1, 2})
    )
