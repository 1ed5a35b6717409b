"""What the demo's run means, in plain words."""

from pathlib import Path
from typing import Any


def told(summary: dict[str, Any], directory: Path) -> list[str]:
    """The run as a few sentences, each with its figure, and where to look next."""
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
        lines.append(
            f"{p['algorithm'].upper()}: {p['updates']} updates in {p['rounds']} rounds with fresh labels in between "
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
    lines.append(f"Look: {directory / 'report.html'}   Again in the terminal: keel show {directory}")
    return lines
