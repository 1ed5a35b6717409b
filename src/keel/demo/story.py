"""What the demo's run means, in plain words."""

from pathlib import Path
from typing import Any

from keel.demo.hacking import LEAST_FALL, Course, Guards
from keel.report.units import plain, signed, sureness

NAMES = {"reinforce_pp": "REINFORCE++", "online_dpo": "Online DPO"}
"""Algorithms whose names are not their settings' in capitals."""


def told(summary: dict[str, Any]) -> list[str]:
    """The run as a few sentences, each with its figure."""
    stages, lines = summary["stages"], []
    agreement = summary.get("agreement") or {}
    if agreement:
        lines.append(
            f"Raters: two of them agree on {agreement['pairwise_agreement']:.0%} of pairs "
            f"(Krippendorff's alpha {agreement['krippendorff_alpha']:.2f}): people disagree, and that is normal."
        )
    if "sft" in stages:
        sft = stages["sft"]
        lines.append(
            f"SFT: from demonstrations of mixed quality the model learned to write help-desk answers "
            f"(perplexity {sft['perplexity_before']:.0f} → {sft['perplexity']:.2f})."
        )
    if "reward" in stages:
        r = stages["reward"]
        lines.append(
            f"Reward model: right about {r['accuracy']:.0%} of unseen comparisons "
            f"({r['accuracy_low']:.0%} to {r['accuracy_high']:.0%}); 'the longer answer wins' gets "
            f"{r['baseline_longer']:.0%}, counting words {r['baseline_bag_of_words']:.0%}. Verdict: {r['verdict']}."
        )
    if "ppo" in stages:
        p = stages["ppo"]
        name = NAMES.get(p["algorithm"], p["algorithm"].upper())
        lines.append(
            f"{name}: {p['updates']} updates in {p['rounds']} rounds with fresh labels in between "
            f"moved the policy {p['kl_nats_per_sequence']:.1f} nats per answer away from SFT."
        )
    if "evaluate" in stages and "true_win_rate" in stages["evaluate"]:
        e = stages["evaluate"]
        lines.append(
            f"Verdict by the true preference, which no stage has seen: the new policy beats SFT on "
            f"{e['true_win_rate']:.1%} of {e['n']} answers to {e['distinct_prompts']} unseen questions "
            f"({e['true_win_rate_low']:.1%} to {e['true_win_rate_high']:.1%}); right facts "
            f"{e['right_facts_sft']:.0%} → {e['right_facts']:.0%}, rude answers {e['rude_sft']:.0%} → {e['rude']:.0%}."
        )
    lines.append(
        f"It took {summary['seconds'] / 60:.1f} minutes and {summary['peak_rss_bytes'] / 2**30:.2f} GiB on "
        f"{summary['threads']} threads, without a GPU."
    )
    return lines


def told_of_guards(guards: Guards) -> list[str]:
    """The same PPO with guards off and on, in figures."""
    off, on = guards.off, guards.on
    first, last = off.score
    hacked = off.peak - off.end > LEAST_FALL
    rollbacks = [action for action in on.run.actions if action.rolled_back]
    return [
        f"Guards off: the reward model's score went {first:.2f} → {last:.2f}, and the true reward, which no run sees, "
        f"{course(off)}" + (": the policy learned to please its judge." if hacked else "."),
        *(
            f"Alarm at update {action.step:.0f}, {sureness(action.confidence)}: {' '.join(action.evidence)} "
            f"The guardian {action.text}."
            for action in rollbacks
        ),
        f"Guards on: the true reward {course(on)}"
        + (f", {signed(on.end - off.end)} beside guards off." if rollbacks else "; nothing to go back for."),
    ]


def course(run: Course) -> str:
    """The true reward from SFT over its peak to the end."""
    return f"went {plain(run.before)} → {plain(run.peak)} at its best (update {run.peak_at:.0f}) → {plain(run.end)}"


def where_to_look(directory: Path, *, guards: bool) -> str:
    """The pages and the command that show the run again."""
    pages = [str(directory / "report.html"), *([str(directory / "guards.html")] if guards else [])]
    return f"Look: {' and '.join(pages)}   Again in the terminal: keel show {directory}"
