"""True and proxy reward over the square root of the KL (Gao et al. 2022), guards off and on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from gold.outcome import smooth
from gold.score import first_act

TRUE, PROXY = "#1a6fb0", "#c2571a"


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a world and flaw: unguarded true and proxy reward over sqrt(KL), and what guards kept."""
    kinds = list(dict.fromkeys((row["world"], row["flaw"]) for row in rows))
    wide = min(len(kinds), 3)
    with mpl.rc_context({"svg.hashsalt": "keel", "font.size": 8}):
        figure = Figure(figsize=(3.1 * wide, 2.5 * -(-len(kinds) // wide)), layout="constrained")
        panels = np.atleast_1d(figure.subplots(-(-len(kinds) // wide), wide)).ravel()
        for panel, (world, flaw) in zip(panels, kinds, strict=False):
            chosen = [row for row in rows if (row["world"], row["flaw"]) == (world, flaw)]
            for index, row in enumerate(chosen):
                draw(panel, row, labelled=index == 0)
            panel.set_title(f"{world}, {flaw}")
            panel.set_xlabel("√KL (nats per sequence)")
            panel.axhline(0, color="#999999", linewidth=0.5)
        for panel in panels[len(kinds) :]:
            panel.set_visible(False)
        panels[0].legend(fontsize=6, frameon=False)
        figure.savefig(path, metadata={"Date": None})


def draw(panel: Any, row: dict[str, Any], *, labelled: bool) -> None:
    """One seed: its unguarded path, the first alarm on it, and where the guarded run ended."""
    distance = np.sqrt(np.clip(smooth(np.array(row["off"]["kl"])), 0, None))
    names = iter(("true reward, guards off", "proxy reward, guards off", "first act", "true reward kept, guards on"))

    def name() -> str | None:
        said = next(names)
        return said if labelled else None

    panel.plot(distance, smooth(np.array(row["off"]["truth"])), color=TRUE, linewidth=0.9, alpha=0.7, label=name())
    panel.plot(distance, smooth(np.array(row["off"]["proxy"])), color=PROXY, linewidth=0.7, alpha=0.5, label=name())
    act = first_act(row)
    at = np.sqrt(max(row["off"]["kl"][act - 1], 0)) if act else np.nan
    truth = row["off"]["truth"][act - 1] if act else np.nan
    panel.plot([at], [truth], "v", color="#a01020", markersize=4, label=name())
    kept = np.sqrt(max(float(np.mean(row["on"]["kl"][-3:])), 0))
    panel.plot([kept], [row["on"]["end"]], "o", color="#188038", markersize=4, label=name())
