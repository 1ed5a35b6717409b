"""The plots of reinforcement learning: which figures stand together, and what to look for in each."""

import math
from typing import TYPE_CHECKING

import numpy as np

from keel.report.curves import Array, Curves
from keel.report.plots import STAND_INS, Line, Plot, bands, draw, from_zero, lines, panel, thin
from keel.report.records import Run, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEPS = "updates"
NOT_PARTS = ("_mean", "_std", "_p05", "_p95", "_abs_max", "_disagreement")
"""Figures of the whole score, and the spread of its parts."""
PART_COLOURS = ("blue", "ochre", "teal", "violet")

# Title, unit, (figure, name, colour) of each line, what to look for.
Panel = tuple[str, str, tuple[tuple[str, str, str], ...], str]
WRITING: tuple[Panel, ...] = (
    (
        "Entropy",
        "nats per token",
        (("entropy_nats", "", "teal"),),
        "How open the policy is about its next word. A slow fall is learning; a dive towards zero is collapse.",
    ),
    (
        "Length",
        "tokens",
        (("response_tokens_mean", "", "blue"),),
        "Steady or slowly changing. Growth that keeps pace with the score means the score likes length.",
    ),
    (
        "Diversity and endings",
        "share",
        (
            ("distinct_2", "distinct-2", "blue"),
            ("unique_share", "unique", "ochre"),
            ("finished_share", "ended", "teal"),
        ),
        "Different word pairs among all; answers unlike every other; answers that end by themselves. None should sink.",
    ),
)
OPTIMISER: tuple[Panel, ...] = (
    (
        "Prompts without signal",
        "prompts",
        (("prompts_without_signal", "found", "ochre"), ("extra_prompts", "sampled in their place", "blue")),
        "Prompts whose answers were all paid alike: they teach nothing by comparison. Many mean a task that is too "
        "easy or too hard.",
    ),
    (
        "Fresh pairs",
        "share",
        (("accuracy", "", "teal"),),
        "How often the policy's own chances rank two of its answers as the scores do. It starts at a half and climbs.",
    ),
    (
        "Value function",
        "explained variance",
        (("explained_variance", "", "teal"),),
        "How much of the return the critic foresees: 1 is all, 0 is no better than a constant. It should climb.",
    ),
    (
        "Clipped tokens",
        "share",
        (("clip_fraction", "", "blue"),),
        "Tokens whose update hit the limit. A few per cent is healthy; above 0.3 the steps are too large.",
    ),
    (
        "Step size",
        "nats per token",
        (("approx_kl", "", "blue"),),
        "How far one update moves the policy. Steady and small.",
    ),
    (
        "KL coefficient β",
        "reward per nat",
        (("kl_coef", "", "violet"),),
        "The price of distance. Flat when fixed; when adaptive, it rises while the KL is above its target.",
    ),
    (
        "Value loss",
        "squared reward",
        (("value_loss", "", "teal"),),
        "It should fall and stay low. A jump means that the returns have changed under the critic.",
    ),
    (
        "Gradient norm",
        "before clipping",
        (("grad_norm", "", "muted"),),
        "No trend to want; spikes point to the steps to look at.",
    ),
)


def ladder_plots(run: Run) -> list[Plot]:
    """KL per token with its bands, and per answer with the line at which to go back."""
    stage, edges = run.stages.get("ppo"), run.bands
    if stage is None:
        return []
    token = (
        (0.0, edges.stalled, "muted", "stalled?"),
        (edges.stalled, edges.healthy, "teal", "healthy"),
        (edges.healthy, edges.act, "ochre", "watch"),
        (edges.act, math.inf, "red", "raise β"),
    )
    rungs = (
        (
            "kl_nats_per_token",
            "KL per token",
            "nats per token",
            f"It should settle between {edges.stalled:g} and {edges.healthy:g}. Below that, training has stalled only "
            f"if the score is flat too; above {edges.act:g} the penalty is too weak.",
            1.2 * edges.healthy,
            token,
        ),
        (
            "kl_nats_per_sequence",
            "KL per answer",
            "nats per answer",
            f"It should stay well under the line at {edges.roll_back:g} nats; beyond it, go back to an earlier "
            f"checkpoint.",
            1.15 * edges.roll_back,
            ((edges.roll_back, math.inf, "red", "go back"),),
        ),
    )
    plots = []
    for figure, title, unit, look_for, least_top, shades in rungs:
        if stage.steps.has(figure):
            low, high = stage.steps.extremes(figure)

            def finish(
                axes: "Axes",
                limits: tuple[float, float] = (min(0.0, 1.1 * low), max(least_top, 1.12 * high)),
                shades: tuple[tuple[float, float, str, str], ...] = shades,
            ) -> None:
                axes.set_ylim(*limits)
                bands(axes, shades)

            drawn = [Line(curves=stage.steps, figure=figure, colour="ink")]
            plots.append(panel(title, look_for, drawn, unit=unit, steps=STEPS, finish=finish, wide=True, ladder=True))
    return plots


def score_plots(run: Run) -> list[Plot]:
    """Raw, held-out and shaped reward, the parts of the score, and the score bought per nat."""
    stage = run.stages.get("ppo")
    if stage is None:
        return []
    plots = []
    if stage.steps.has("score_mean"):
        plots.append(_score_plot(stage))
    if stage.steps.has("reward_mean"):
        look_for = (
            "What the policy is really paid: the score after normalising and clipping, less what is taken off for "
            "length and distance. It should rise and then level off, not fall."
        )
        drawn = [Line(curves=stage.steps, figure="reward_mean", colour="violet")]
        plots.append(panel("Shaped reward", look_for, drawn, unit="reward", steps=STEPS))
    parts = [name for name in stage.steps.columns if name.startswith("score_") and not name.endswith(NOT_PARTS)]
    if len(parts) > 1:
        look_for = "Every part should hold or rise; one that falls is being sold for the others."
        drawn = [
            Line(curves=stage.steps, figure=name, label=name.removeprefix("score_").replace("_", " "), colour=colour)
            for name, colour in zip(parts, PART_COLOURS, strict=False)
        ]
        plots.append(panel("Parts of the score", look_for, drawn, unit="score", steps=STEPS))
    if len(stage.checks):
        plots.insert(1 if plots else 0, _judges_plot(stage))
    frontier = _frontier(stage)
    return [*plots, _frontier_plot(*frontier)] if frontier is not None else plots


def _score_plot(stage: Stage) -> Plot:
    held_out = stage.evaluations.has("score")
    drawn = [Line(curves=stage.steps, figure="score_mean", label="training prompts" if held_out else "")]
    if held_out:
        drawn.append(Line(curves=stage.evaluations, figure="score", label="held-out", colour="ochre", dots=True))

    def paint(axes: "Axes") -> None:
        every = max(1, len(stage.steps) // 200)
        at, mean, std = (
            values[~stage.steps.abandoned][::every]
            for values in (stage.steps.at, stage.steps.get("score_mean"), stage.steps.get("score_std"))
        )
        axes.fill_between(at, mean - std, mean + std, color=STAND_INS["blue"], alpha=0.12, lw=0)
        lines(axes, drawn)

    together = "The two should rise together; when only the training score climbs, the policy is learning its prompts. "
    return Plot(
        title="Score",
        look_for=(together if held_out else "It should rise and level off. ")
        + "The shade is one standard deviation of single scores.",
        svg=draw(paint, name="Score on training and held-out prompts", unit="score", steps=STEPS),
    )


def _judges_plot(stage: Stage) -> Plot:
    """Check by check, how often judges prefer the policy to SFT, with intervals, and how often the score does."""
    checks = stage.checks
    at, share, low, high = (checks.at, *(checks.get(f"win_rate{end}") for end in ("", "_low", "_high")))
    drawn = [
        Line(curves=checks, figure="proxy_win_rate", label="by the score", colour="blue", dots=True),
        Line(curves=checks, figure="win_rate", label="by judges", colour="ochre", dots=True),
    ]

    def paint(axes: "Axes") -> None:
        axes.axhline(0.5, color=STAND_INS["muted"], lw=0.8)
        axes.vlines(at, np.fmax(low, 0), np.fmin(high, 1), color=STAND_INS["ochre"], lw=3, alpha=0.25)
        lines(axes, drawn if checks.has("proxy_win_rate") else drawn[1:])
        axes.set_ylim(0, 1)

    known = share[np.isfinite(share)]
    newest = f" The newest check: {known[-1]:.0%}." if len(known) else ""
    return Plot(
        title="Judges, policy against SFT",
        look_for="Pairs on held-out prompts that judges decided for the policy, with 95 % intervals; half is no "
        f"difference. When the score's opinion climbs and theirs does not, the score is being pleased.{newest}",
        svg=draw(paint, name="Win rate over SFT by judges", unit="share of pairs", steps=STEPS),
    )


def _frontier(stage: Stage) -> tuple[Array, Array, str] | None:
    """KL per answer and score, held-out when there are at least three evaluations, else of training.

    None over several rounds: each has its own reward model, and their scores share no scale.
    """
    if stage.steps.boundaries:
        return None
    candidates: tuple[tuple[Curves, str, str], ...] = (
        (stage.evaluations, "score", "held-out"),
        (stage.steps, "score_mean", "training"),
    )
    for source, figure, where in candidates:
        distance, score = source.get("kl_nats_per_sequence"), source.get(figure)
        known = np.isfinite(distance) & np.isfinite(score) & ~source.abandoned
        if known.sum() >= 3:
            return distance[known], score[known], where
    return None


def _frontier_plot(distance: Array, score: Array, where: str) -> Plot:
    def paint(axes: "Axes") -> None:
        axes.plot(*thin(distance, score), color=STAND_INS["ochre"], lw=1.1, marker="o", ms=2.5)
        axes.plot(distance[-1:], score[-1:], "o", color=STAND_INS["ochre"], ms=6)

    return Plot(
        title="Score bought per nat",
        look_for=f"The {where} score against the distance travelled; the large dot is the end. A curve that bends down "
        f"buys nothing more: stop earlier.",
        svg=draw(paint, name="Score against KL", unit="score", steps="nats per answer"),
    )


def writing_plots(run: Run) -> list[Plot]:
    """Whether the answers stay alive: entropy, length, diversity."""
    return _panels(run.stages.get("ppo"), WRITING)


def optimiser_plots(run: Run) -> list[Plot]:
    """Whether the optimiser is well: value function, clipping, penalty, gradients."""
    return _panels(run.stages.get("ppo"), OPTIMISER)


def _panels(stage: Stage | None, panels: tuple[Panel, ...]) -> list[Plot]:
    """Those of `panels` of which anything was logged."""
    if stage is None:
        return []
    plots = []
    for title, unit, figures, look_for in panels:
        drawn = [
            Line(curves=stage.steps, figure=figure, label=label, colour=colour)
            for figure, label, colour in figures
            if stage.steps.has(figure)
        ]
        if drawn:
            plots.append(panel(title, look_for, drawn, unit=unit, steps=STEPS, finish=from_zero(drawn)))
    return plots
