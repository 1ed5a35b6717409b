"""Whether an AI judge may stand in for people: its kappa with them, its pull to one side, its calibration."""

from math import isfinite

from keel.monitor.verdict import Figure, Verdict

GOOD_KAPPA = 0.6
"""Kappa from which people themselves are taken to agree well (Landis and Koch 1977: substantial)."""
FEW_GOLDEN = 30
"""Golden pairs below which a kappa says little."""
WATCH_PULL, ACT_PULL = 0.1, 0.3
"""E[p_AB + p_BA - 1]: a tenth and three tenths of all verdicts go to a side whatever stands there."""
WATCH_ECE = 0.05
"""Calibration error of the labels after the temperature."""


def judge_kappa(
    kappa: float, low: float, high: float, num_golden: int, *, least: float, override: str | None = None
) -> Verdict:
    """Cohen's kappa of a judge with people, with its interval; stop below `least` unless somebody said why not."""
    figures: dict[str, Figure] = {"kappa": kappa, "low": low, "high": high, "golden": num_golden, "least": least}
    if num_golden == 0:
        return Verdict(
            "watch",
            "judge_kappa",
            "Nobody knows how far the AI judge agrees with people: there are no golden comparisons.",
            figures,
            "Give data.golden: 100 comparisons judged by people show most of it.",
        )
    few = f" (of {num_golden} golden comparisons only)" if num_golden < FEW_GOLDEN else ""
    said = f"The AI judge agrees with people to kappa {kappa:.2f} (95 % interval {low:.2f} to {high:.2f}){few}"
    below = f", below the {least:g} asked for"
    remedy = "Take a stronger judge, or a rubric that says what people look at; `keel data judges` shows where it errs."
    if not isfinite(kappa):
        said, below = f"The AI judge's kappa with people cannot be computed{few}: all verdicts are the same", ""
        remedy = "Give more golden comparisons, with either side the better one: 100 show most of it."
    if not isfinite(kappa) or kappa < least:
        if override:
            figures["override"] = override
            return Verdict("act", "judge_kappa", f"{said}{below}; used all the same: {override}", figures)
        return Verdict(
            "stop",
            "judge_kappa",
            f"{said}{below}.",
            figures,
            f"{remedy} To use it all the same, say why: feedback.override_kappa.",
        )
    if kappa < GOOD_KAPPA or few:
        return Verdict(
            "watch",
            "judge_kappa",
            f"{said}.",
            figures,
            "Usable with care: keep people's votes on a part, and look at the pairs where the two differ.",
        )
    return Verdict("ok", "judge_kappa", f"{said}.", figures)


def judge_side(pull: float) -> Verdict:
    """E[p_AB + p_BA - 1], from -1 (always the second) to 1 (always the first); nan where one order was asked."""
    figures: dict[str, Figure] = {"pull": pull}
    if not isfinite(pull):
        return Verdict(
            "watch",
            "judge_side",
            "The AI judge was asked in one order only, so its liking for a side is not known and stays in the labels.",
            figures,
            "Set feedback.orders to both.",
        )
    side = "first" if pull > 0 else "second"
    said = f"The AI judge leans to the answer shown {side} by {abs(pull):.2f} (0 is none, 1 always)"
    if abs(pull) >= ACT_PULL:
        return Verdict(
            "act",
            "judge_side",
            f"{said}. Both orders are averaged, which takes it out of the labels and leaves little else in them.",
            figures,
            "Take another judge, or let it reason first: feedback.verdicts: text.",
        )
    if abs(pull) >= WATCH_PULL:
        return Verdict("watch", "judge_side", f"{said}; averaging both orders takes it out.", figures)
    return Verdict("ok", "judge_side", f"{said}.", figures)


def judge_calibration(ece: float, temperature: float, num_golden: int) -> Verdict:
    """Expected calibration error of the labels after the temperature, on golden comparisons."""
    figures: dict[str, Figure] = {"ece": ece, "temperature": temperature, "golden": num_golden}
    said = f"After a temperature of {temperature:.2f} the AI judge's probabilities are off by {ece:.3f} on average"
    if isfinite(ece) and ece <= WATCH_ECE:
        return Verdict("ok", "judge_calibration", f"{said}.", figures)
    return Verdict(
        "watch",
        "judge_calibration",
        f"{said}.",
        figures,
        "With few golden comparisons part of this is chance: 100 of a perfect judge show up to 0.1. Else take the "
        "labels for no more than an order: feedback.labels: hard.",
    )
