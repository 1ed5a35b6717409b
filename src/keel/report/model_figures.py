"""The plots of models without reinforcement learning: fine-tuning, the reward model, its rounds, preferences."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from keel.report.plots import STAND_INS, Line, Plot, draw, logarithmic, names, panel
from keel.report.records import Bin, RewardCard, Round, Run
from keel.stats.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FROM_SCRATCH = 20  # a perplexity that falls by more than this factor is drawn on a logarithmic axis


def sft_plots(run: Run) -> list[Plot]:
    """Loss and perplexity of supervised fine-tuning."""
    stage = run.stages.get("sft")
    if stage is None:
        return []
    plots = []
    if stage.steps.has("loss"):
        look_for = "Falling, then levelling off; the thick line is a moving average."
        drawn = [Line(curves=stage.steps, figure="loss", smooth=True)]
        plots.append(panel("Training loss", look_for, drawn, unit="nats per token", steps="steps"))
    if stage.evaluations.has("perplexity"):
        low, high = stage.evaluations.extremes("perplexity")
        steep = low > 0 and high > FROM_SCRATCH * low
        look_for = "Among how many tokens the model hesitates on unseen demonstrations. Stop where it turns up."
        plots.append(
            panel(
                "Held-out perplexity",
                look_for + (" The scale is logarithmic." if steep else ""),
                [Line(curves=stage.evaluations, figure="perplexity", dots=True)],
                unit="tokens",
                steps="steps",
                finish=logarithmic if steep else None,
            )
        )
    if stage.steps.has("learning_rate"):
        look_for = "The planned climb and decline, and nothing else."
        drawn = [Line(curves=stage.steps, figure="learning_rate", colour="muted")]
        plots.append(panel("Learning rate", look_for, drawn, unit="per step", steps="steps"))
    return plots


def reward_plots(run: Run) -> list[Plot]:
    """Accuracy beside its rivals, calibration, and the training of the reward model."""
    plots = [] if run.reward is None else card_plots(run.reward)
    stage = run.stages.get("reward")
    if stage is not None and stage.steps.has("loss"):
        look_for = "It starts at 0.69, the loss of a coin, and should come down; the thick line is a moving average."
        drawn = [Line(curves=stage.steps, figure="loss", smooth=True)]
        plots.append(panel("Training loss", look_for, drawn, unit="nats per pair", steps="steps"))
    return plots


def card_plots(card: RewardCard) -> list[Plot]:
    """Accuracy beside its rivals, and calibration."""
    plots = [_accuracy_plot(card)]
    if any(math.isfinite(entry.observed) and entry.count for entry in card.reliability):
        plots.append(reliability_plot(card.reliability, card.ece))
    return plots


def prefer_plots(run: Run) -> list[Plot]:
    """Loss, agreement and log-ratios of a policy trained on comparisons."""
    stage = run.stages.get("prefer")
    if stage is None:
        return []
    plots = []
    for figure, title, unit, look_for in (
        ("loss", "Loss", "per pair", "Held-out pairs (dots) decide which weights are kept. Stop where they turn up."),
        (
            "accuracy",
            "Agreement with the comparisons",
            "share of pairs",
            "The training line runs ahead of the dots, which are held-out pairs; far ahead, it learns by heart.",
        ),
    ):
        drawn = [
            Line(curves=curves, figure=figure, label=label, colour=colour, dots=dots, smooth=not dots)
            for curves, label, colour, dots in (
                (stage.steps, "training", "blue", False),
                (stage.evaluations, "held out", "ochre", True),
            )
            if curves.has(figure)
        ]
        if drawn:
            plots.append(panel(title, look_for, drawn, unit=unit, steps="steps"))
    if stage.evaluations.has("chosen_log_ratio"):
        look_for = (
            "How much likelier held-out answers have become than they were. The lines should part; where both fall, "
            "the policy puts its weight on answers that nobody has judged."
        )
        drawn = [
            Line(curves=stage.evaluations, figure=f"{side}_log_ratio", label=side, colour=colour, dots=True)
            for side, colour in (("chosen", "teal"), ("rejected", "red"))
        ]
        plots.append(panel("Log-ratio to the reference", look_for, drawn, unit="nats per answer", steps="steps"))
    return plots


def _accuracy_plot(card: RewardCard) -> Plot:
    bars = [(card.who, card.accuracy, "blue"), ("counting words", card.baseline_bag_of_words, "muted"),
            ("longer answer", card.baseline_longer, "muted")]  # fmt: skip
    bars = [bar for bar in bars if math.isfinite(bar[1])]

    def paint(axes: "Axes") -> None:
        places = range(len(bars) - 1, -1, -1)
        axes.barh(
            list(places), [100 * share - 50 for _, share, _ in bars], left=50, height=0.45, alpha=0.75,
            color=[STAND_INS[colour] for _, _, colour in bars],
        )  # fmt: skip
        if math.isfinite(card.low) and math.isfinite(card.high):
            ends, place = [100 * card.low, 100 * card.high], len(bars) - 1
            axes.plot(ends, [place, place], color=STAND_INS["ink"], lw=1.3, marker="|", ms=6, mew=1.3)
        for place, (_, share, _) in zip(places, bars, strict=True):
            reach = max(share, card.high if place == len(bars) - 1 and math.isfinite(card.high) else share, 0.5)
            axes.text(100 * reach + 1.5, place, f"{100 * share:.1f}", va="center", fontsize=8, color=STAND_INS["ink"])
        axes.axvline(50, color=STAND_INS["muted"], lw=0.8)
        axes.axvspan(65, 80, color=STAND_INS["teal"], alpha=0.13, lw=0, zorder=0)
        axes.set_xlim(min(40.0, 100 * min(share for _, share, _ in bars) - 5), 100)
        axes.set_ylim(-0.6, len(bars) - 0.4)
        axes.set_yticks(list(places), [name for name, _, _ in bars], color=STAND_INS["ink"])
        axes.grid(visible=False, axis="y")

    return Plot(
        title="Accuracy on held-out pairs",
        look_for=f"The interval of the {card.who} should lie clear of both rivals and in the green band of 65 to 80; "
        "bars grow from 50, a coin.",
        svg=draw(paint, name="Accuracy beside baselines", unit="", steps="% of pairs", left=1.0),
    )


def reliability_plot(reliability: Sequence[Bin], ece: float) -> Plot:
    """Probabilities against what came of them, in bins of which some hold something."""
    known = [entry for entry in reliability if math.isfinite(entry.observed) and entry.count > 0]

    def paint(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=STAND_INS["muted"], lw=0.8, ls=(0, (3, 3)))
        most = max(entry.count for entry in known)
        for entry in known:
            low, high = wilson(min(1.0, max(0.0, entry.observed)) * entry.count, entry.count)
            axes.plot([entry.predicted] * 2, [low, high], color=STAND_INS["blue"], lw=0.9, alpha=0.6)
        axes.scatter(
            [entry.predicted for entry in known],
            [entry.observed for entry in known],
            s=[6 + 30 * entry.count / most for entry in known],
            color=STAND_INS["blue"],
            lw=0,
            zorder=3,
            clip_on=False,
        )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)

    error = f" The mean gap (ECE) is {ece:.3f}." if math.isfinite(ece) else ""
    return Plot(
        title="Is its confidence earned?",
        look_for=f"Dots on the diagonal: of the pairs it is 80 % sure about, it should be right on 80 %. Larger dots "
        f"hold more pairs.{error}",
        svg=draw(paint, name="Reliability diagram", unit="share observed", steps="probability predicted"),
    )


def round_plots(rounds: tuple[Round, ...]) -> list[Plot]:
    """How well the reward model judges fresh answers, round by round."""
    at = np.array([entry.round for entry in rounds], dtype=np.float64)
    fresh = np.array([entry.on_policy_accuracy_before for entry in rounds])
    held = np.array([entry.held_out_accuracy for entry in rounds])
    if len(rounds) < 2 or not np.isfinite(np.concatenate([fresh, held])).any():
        return []

    def paint(axes: "Axes") -> None:
        for values, name, colour in ((fresh, "fresh answers, before", "ochre"), (held, "held-out, after", "blue")):
            if np.isfinite(values).any():
                axes.plot(at, values, color=STAND_INS[colour], lw=1.2, marker="o", ms=3.5, label=name)
        axes.set_xticks(at)
        names(axes)

    return [
        Plot(
            title="Reward model, round by round",
            look_for="Accuracy on answers the policy gives now, before the labels of the round are learned, and on "
            "held-out pairs after. A fall of the first says the policy has left what the reward model knows.",
            svg=draw(paint, name="Reward model accuracy by round", unit="accuracy", steps="round"),
        )
    ]
