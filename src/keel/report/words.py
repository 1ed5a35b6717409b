"""What a run came to, in plain words: the same sentences on the page, in the terminal and at the end of a demo."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from keel.report.measures import ScoreChange, distance, score_change
from keel.report.records import Agreement, Alarm, RewardCard, Run, WinRate
from keel.report.units import duration, gibibytes, interval, percent, plain, signed
from keel.stats.intervals import bootstrap_mean

Tone = Literal["good", "bad", "open"]
PAIRS_FOR_AN_INTERVAL = 8  # fewer samples than this say too little about a mean to print an interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The verdict on a run: one line, and the paragraphs that hold it up."""

    tone: Tone
    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyFigure:
    """One number worth seeing before anything else."""

    label: str
    value: str
    note: str


def headline(run: Run) -> Headline:
    """The verdict on `run`: what got better, by how much, at what distance, and what speaks against it."""
    tone, title = _title(run)
    paragraphs = (
        [_progress(run)],
        [_win_sentence(run)],
        [
            _score_sentence(run),
            _samples_sentence(run),
            _distance_sentence(run),
            _diversity_sentence(run),
            _kept_sentence(run),
        ],
        [_reward_sentence(run), agreement_sentence(run.agreement), _sft_sentence(run)],
        [_guardian_sentence(run), _alarm_sentence(run)],
    )
    joined = (" ".join(part for part in parts if part) for parts in paragraphs)
    return Headline(tone=tone, title=title, paragraphs=tuple(text for text in joined if text))


def _title(run: Run) -> tuple[Tone, str]:
    if run.current is not None:
        verb = "Still in" if run.state == "running" else "Stopped during"
        return "open", f"{verb} {run.current.title}{_at_step(run)}"
    if run.state != "finished":
        return "open", "Between two stages" if run.state == "running" else "Stopped before the end"
    change, far = score_change(run), distance(run)
    if run.win is not None and run.win.outside_opinion:
        return _win_title(run.win, change)
    if change is not None:
        doubtful = run.in_doubt or (far is not None and far.level == "act")
        if not change.rose:
            return "bad", f"The score did not rise: {signed(change.gain)} on {change.where}"
        if doubtful:
            return "bad", "The score rose, at a price that puts it in doubt"
        return "open", "The score rose; no outside judge has confirmed it yet"
    if run.reward is not None:
        share = round(100 * run.reward.accuracy)
        return reward_tone(run.reward), f"A {run.reward.who} that sides with people on {share} of 100 pairs"
    perplexity = run.stage_metric("sft", "perplexity")
    if math.isfinite(perplexity):
        return "open", "Fine-tuned; no preferences learned yet"
    return "open", "Finished"


def _win_title(win: WinRate, change: ScoreChange | None) -> tuple[Tone, str]:
    share = round(100 * win.share)
    low, high = (win.low, win.high) if math.isfinite(win.low) and math.isfinite(win.high) else (win.share, win.share)
    if low > 0.5:
        return "good", f"Better: wins {share} of 100 comparisons with the model it started from"
    if high < 0.5:
        if change is not None and change.rose:
            return "bad", f"Worse, though its score rose: wins only {share} of 100 comparisons"
        return "bad", f"Worse: wins only {share} of 100 comparisons with the model it started from"
    return "open", f"No clear difference: wins {share} of 100 comparisons"


def _progress(run: Run) -> str:
    if run.state == "stopped":
        where = "What follows is what it had done until then. "
        return f"{where}The same command, given again, goes on from the last checkpoint."
    if run.state == "running":
        return "The run is still going; what follows is as of the last thing it wrote down."
    return ""


def _at_step(run: Run) -> str:
    stage = run.current
    if stage is None or not len(stage.steps):
        return ""
    at, of = stage.steps.at[-1], stage.steps.of
    if not math.isfinite(of):
        return f", at step {at:.0f}"
    if at > of:  # rounds that each count from one
        at -= stage.steps.boundaries[-1] if stage.steps.boundaries else 0
    return f", at step {at:.0f} of {of:.0f}"


def _win_sentence(run: Run) -> str:
    win = run.win
    if win is None:
        return ""
    count = f"{win.n} comparisons" if win.n else "the comparisons"
    measured = f"{percent(win.share)} of {count} with the SFT model{interval(win.low, win.high)}"
    if not win.outside_opinion:
        caveat = "the judge it was trained on" if "ppo" in run.stages else "a judge of the same comparisons"
        return f"By the {win.by} the trained model wins {measured}. That is {caveat}, so no proof."
    return f"Judged by the {win.by}, which training never saw, its answers win {measured}."


def _score_sentence(run: Run) -> str:
    change = score_change(run)
    if change is None:
        return ""
    verb = "rose" if change.rose else "fell" if change.gain < 0 else "hardly moved"
    size = f"{signed(change.gain)}"
    if math.isfinite(change.spread) and change.spread > 0:
        size += f", or {abs(change.gain) / change.spread:.1f} standard deviations of single scores"
    text = f"The mean score on {change.where} {verb} from {plain(change.before)} to {plain(change.after)} ({size})."
    if run.win is not None and run.win.outside_opinion:
        if change.rose and run.win.high < 0.5:
            text += " Score up and preference down: the policy found answers that please the reward model alone."
    elif change.rose and run.state == "finished":
        text += " Only the reward model says so: read the samples before believing it."
    return text


def _samples_sentence(run: Run) -> str:
    gains = np.array([pair.score_after - pair.score_before for pair in run.samples])
    gains = gains[np.isfinite(gains)]
    if len(gains) < PAIRS_FOR_AN_INTERVAL or run.rescaled:
        return ""
    low, high = bootstrap_mean(gains, 0.95, 0)
    return (
        f"On the {len(gains)} prompts answered before and after, the score changed by {signed(float(gains.mean()))} "
        f"(95 % interval {signed(low)} to {signed(high)})."
    )


def _distance_sentence(run: Run) -> str:
    far = distance(run)
    if far is None:
        return ""
    figures = [
        f"{plain(value, digits)} nats per {unit}"
        for value, digits, unit in ((far.nats_per_sequence, 1, "answer"), (far.nats_per_token, 2, "token"))
        if math.isfinite(value)
    ]
    measured = figures[0] if len(figures) == 1 else f"{figures[0]} ({figures[1]})"
    return f"The policy moved {measured} away from where it started, {far.phrase}."


def _diversity_sentence(run: Run) -> str:
    if "ppo" not in run.stages:
        return ""
    steps = run.stages["ppo"].steps
    first, last = steps.first("distinct_2"), steps.last("distinct_2")
    unique = steps.last("unique_share")
    if not math.isfinite(last):
        return ""
    text = f"The share of different word pairs (distinct-2) went from {first:.2f} to {last:.2f}"
    text += f", and {percent(unique, 0)} of answers are unique." if math.isfinite(unique) else "."
    if last < 0.5 * first or unique < 0.5:
        text += " The answers have begun to resemble each other."
    return text


def _kept_sentence(run: Run) -> str:
    """Which weights became the policy, where those are not the last."""
    kept, updates = run.stage_metric("ppo", "kept_update"), run.stage_metric("ppo", "updates")
    if run.rescaled or not kept < updates:
        return ""
    if kept == 0:
        return "No update did better on held-out prompts than the start, so the weights from before were kept."
    return f"The weights kept are those of update {kept:.0f} of {updates:.0f}, the best on held-out prompts."


def agreement_sentence(agreement: Agreement | None) -> str:
    """How far raters agree and what REQUIREMENTS D9 says of it."""
    if agreement is None:
        return ""
    for name, measure in (("Krippendorff's alpha", agreement.alpha), (agreement.kappa_name, agreement.kappa)):
        if math.isfinite(measure.value):
            worth = (
                "too little to learn from" if measure.value < 0.4
                else "usable, with care" if measure.value < 0.6
                else "enough to collect at scale"
            )  # fmt: skip
            why = f" Trained on all the same: {agreement.override}" if agreement.override else ""
            return f"The raters agree with each other at {name} {measure.value:.2f}: {worth}.{why}"
    return ""


def reward_tone(card: RewardCard) -> Tone:
    """Good inside the band of REQUIREMENTS C6 and above both baselines, bad when it fails either, open between."""
    if card.accuracy < 0.6 or card.accuracy <= card.best_baseline:
        return "bad"
    return "good" if 0.65 <= card.accuracy <= 0.8 else "open"


def accuracy_band(accuracy: float) -> str:
    """What REQUIREMENTS C6 says of a reward model's held-out accuracy."""
    if accuracy < 0.60:
        return "too low to train on: look at the labels"
    if accuracy < 0.65:
        return "weak"
    if accuracy <= 0.80:
        return "good"
    return "high: check for leakage" if accuracy <= 0.90 else "suspiciously high: look for leakage"


def _reward_sentence(run: Run) -> str:
    card = run.reward
    if card is None:
        return ""
    which = "first reward model" if run.rounds else card.who
    text = (
        f"On held-out pairs the {which} picks the preferred answer {percent(card.accuracy)} of the time"
        f"{interval(card.low, card.high)}, {accuracy_band(card.accuracy)}."
    )
    baselines = [
        f"{percent(value)} {name}"
        for value, name in (
            (card.baseline_longer, "for always taking the longer answer"),
            (card.baseline_bag_of_words, "for counting words"),
        )
        if math.isfinite(value)
    ]
    if baselines:
        text += f" The simple rivals: {' and '.join(baselines)}."
    if card.accuracy <= card.best_baseline:
        text += " A simple rival does as well or better, so the model has learned little beyond it."
    elif card.low <= card.best_baseline:
        text += " The interval includes the better rival, so the lead is not certain."
    if run.rounds and math.isfinite(run.rounds[-1].held_out_accuracy):
        text += f" After its last refresh it is right on {percent(run.rounds[-1].held_out_accuracy)}."
    return text


def _sft_sentence(run: Run) -> str:
    perplexity = run.stage_metric("sft", "perplexity")
    if not math.isfinite(perplexity):
        return ""
    first = run.stages["sft"].evaluations.first("perplexity")
    fell = f", down from {first:.3g}" if first > perplexity else ""
    return f"Fine-tuning ended at a perplexity of {perplexity:.3g} on held-out demonstrations{fell}."


def _guardian_sentence(run: Run) -> str:
    """What the guardian did, and what judges said of the newest policy that was not rolled back."""
    told = [
        f"At {action.when} the guardian {action.text}."
        for action in run.actions
        if action.taken and action.name != "ask_humans"
    ]
    if "ppo" in run.stages:
        checks = run.stages["ppo"].checks
        for at in np.flatnonzero(~checks.abandoned)[-1:]:
            share, low, high, count = (
                float(checks.get(name)[at]) for name in ("win_rate", "win_rate_low", "win_rate_high", "verdicts")
            )
            if math.isfinite(share) and count > 0:
                told.append(
                    f"Judges prefer the policy of update {checks.at[at]:.0f} to the SFT model in {percent(share, 0)} "
                    f"of {count:.0f} pairs{interval(low, high)}."
                )
    return " ".join(told)


def _alarm_sentence(run: Run) -> str:
    gravest = run.gravest
    if gravest is None:
        return ""
    if run.actions:
        return f"What its rules said ({len(run.alarms)} alarms) stands below."
    if len(run.alarms) == 1:
        return f"One rule has something to say. {alarm_text(gravest)}"
    return f"{len(run.alarms)} rules have something to say. The gravest: {alarm_text(gravest)}"


def alarm_text(alarm: Alarm) -> str:
    """An alarm's message as one sentence, with its rule when it has no message."""
    text = alarm.message.strip() or alarm.rule
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def key_figures(run: Run) -> list[KeyFigure]:
    """The few numbers that a reader looks for first; those not measured are left out."""
    figures: list[KeyFigure] = []
    if run.win is not None:
        note = interval(run.win.low, run.win.high).strip(" ()") or run.win.by
        figures.append(KeyFigure(label="win rate over SFT", value=percent(run.win.share), note=note))
    change, far = score_change(run), distance(run)
    if change is not None:
        note = f"{plain(change.before)} to {plain(change.after)}"
        figures.append(KeyFigure(label="score", value=signed(change.gain), note=note))
    if far is not None and math.isfinite(far.nats_per_sequence):
        note = f"nats; {far.nats_per_token:.2f} per token" if math.isfinite(far.nats_per_token) else "nats"
        figures.append(KeyFigure(label="KL per answer", value=plain(far.nats_per_sequence, 1), note=note))
    if run.reward is not None:
        note = interval(run.reward.low, run.reward.high).strip(" ()") or "held-out pairs"
        figures.append(KeyFigure(label=f"{run.reward.who} accuracy", value=percent(run.reward.accuracy), note=note))
    perplexity = run.stage_metric("sft", "perplexity")
    if math.isfinite(perplexity) and len(figures) < 4:
        figures.append(KeyFigure(label="SFT perplexity", value=f"{perplexity:.2f}", note="held-out demonstrations"))
    if math.isfinite(run.seconds):
        memory = gibibytes(run.summary.get("peak_rss_bytes"))
        figures.append(
            KeyFigure(label="time", value=duration(run.seconds), note=f"peak memory {memory}" if memory else "")
        )
    return figures
