"""The parts of the report on AI feedback: what the judge is worth, and what a constitution changed."""

import math

from keel.report.markup import paragraph, plot_grid, section, table
from keel.report.model_figures import reliability_plot
from keel.report.records import Bin, Run, Stage
from keel.report.units import interval, percent, plain, signed
from keel.report.values import number


def judge_section(run: Run) -> str:
    """Agreement with people, pull to a side, calibration, costs; empty without golden comparisons."""
    stage = run.stages.get("judge")
    if stage is None or not stage.metrics:
        return ""
    rows = [
        [name, value, note]
        for name, value, note in (
            ("agreement of its labels with people (kappa)", _spread(stage, "label_kappa"), "below 0.4 it is refused"),
            ("labels that name people's choice", _share(stage, "label_accuracy"), "both orders averaged"),
            ("single verdicts that name it", _share(stage, "accuracy"), "either order alone"),
            ("same verdict in both orders", _share(stage, "same_in_both_orders"), "a coin: 50 %"),
            ("pull to the answer shown first", signed(stage.metric("position_bias")), "0 is none, 1 always the first"),
            ("temperature", plain(stage.metric("temperature")), "above 1: it was too sure of itself"),
            (
                "calibration error, before and after",
                f"{plain(stage.metric('ece_before'), 3)} → {plain(stage.metric('ece'), 3)}",
                "after: on the half that the temperature was not fitted to",
            ),
        )
        if "nan" not in value and value != "—"
    ]
    introduction = (
        f"An AI compared the answers that this run learned from. Here it is held against people on "
        f"{stage.metric('golden'):.0f} golden comparisons; whatever it gets wrong, the policy learns."
    )
    bins = tuple(
        Bin(
            low=number(entry.get("low")),
            high=number(entry.get("high")),
            count=int(number(entry.get("count"))),
            predicted=number(entry.get("mean_probability")),
            observed=number(entry.get("mean_label")),
        )
        for entry in stage.metrics.get("bins") or ()
    )
    plots = [reliability_plot(bins, stage.metric("ece"))] if any(entry.count for entry in bins) else []
    return section("How good is the AI judge?", introduction, table(["", "", ""], rows) + plot_grid(plots) + _cost(run))


def _cost(run: Run) -> str:
    """What was asked, in all."""
    stages = [run.stages[name] for name in ("judge", "labels") if name in run.stages]
    asked = sum(value for stage in stages if math.isfinite(value := stage.metric("questions")))
    usd = sum(value for stage in stages if math.isfinite(value := stage.metric("usd")))
    tokens = sum(value for stage in stages if math.isfinite(value := stage.metric("input_tokens")))
    if not asked:
        return ""
    text = f"It was asked {asked:,.0f} questions for golden and newest pairs"
    text += f", {tokens:,.0f} tokens to read" if tokens else ""
    return paragraph(text + (f", ${usd:.2f}." if usd else "."))


def constitution_section(run: Run) -> str:
    """How many answers were revised, and by which principles."""
    stage = run.stages.get("revisions")
    if stage is None or not stage.metrics:
        return ""
    counts = stage.metrics.get("principles")
    known = counts if isinstance(counts, dict) else {}
    rows = [[str(name), f"{number(count):.0f}"] for name, count in sorted(known.items())]
    introduction = (
        f"{stage.metric('prompts'):.0f} answers of the policy were criticised and revised by principles, and "
        f"{percent(stage.metric('changed'))} of them came out changed. Read some in revisions.jsonl: each names its "
        "principle."
    )
    learned = run.stages.get("constitution")
    told = ""
    if learned is not None and math.isfinite(learned.metric("perplexity")):
        before, after = learned.metric("perplexity_before"), learned.metric("perplexity")
        told = paragraph(
            f"Perplexity of held-out revisions: {plain(before)} before learning them, {plain(after)} after."
        )
    return section(
        "What did the constitution change?", introduction, table(["principle", "revisions"], rows, numbers={1}) + told
    )


def _spread(stage: Stage, name: str) -> str:
    low, high = stage.metric(f"{name}_low"), stage.metric(f"{name}_high")
    around = f" ({plain(low)} to {plain(high)})" if math.isfinite(low) and math.isfinite(high) else ""
    return plain(stage.metric(name)) + around


def _share(stage: Stage, name: str) -> str:
    return percent(stage.metric(name)) + interval(stage.metric(f"{name}_low"), stage.metric(f"{name}_high"))
