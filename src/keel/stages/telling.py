"""What an RL stage tells people besides figures: samples, and a word on scores that are clipped or all alike."""

from collections.abc import Mapping
from typing import Any

from keel.monitor.verdict import Verdict
from keel.train.rollout import Judged

SAMPLES_SHOWN = 12
CLIPPED_WATCH = 0.2
"""Share of clipped scores that is worth a word."""
SILENT_WATCH = 0.5
"""Share of prompts without signal that is worth a word."""


def clipping_verdict(share: float) -> Verdict:
    """What to say of a rollout whose scores were mostly too large for the clip."""
    return Verdict(
        "watch",
        "clipped_scores",
        f"{share:.0%} of a rollout's scores were cut off by shaping.clip: among those the policy sees no difference.",
        {"clipped_score_share": share},
        "Python functions and foreign reward models bring no mean and spread: set ppo.shaping.normalise to running, or "
        "raise ppo.shaping.clip.",
    )


def silence_verdict(figures: Mapping[str, float], prompts: int, tries: int) -> Verdict | None:
    """What to say of an update of `prompts` prompts of which too many have samples that are all paid alike.

    With dynamic sampling any that it could not replace in `tries` tries are too many.
    """
    alike, extra = figures["prompts_without_signal"], figures["extra_prompts"]
    left, share = figures["prompts_left_without_signal"], alike / (prompts + extra)
    if not left or (not tries and share <= SILENT_WATCH):
        return None
    sampled = f"The samples of {alike:.0f} of {prompts + extra:.0f} prompts are all paid alike"
    replaced = f": even after {extra:.0f} more prompts, {left:.0f} of {prompts} places could not be filled with others"
    return Verdict(
        "watch",
        "no_signal",
        f"{sampled}{replaced if tries else ''}. Compared with each other such samples teach nothing.",
        {"prompts_without_signal": alike, "extra_prompts": extra, "prompts_left_without_signal": left},
        "The task may be too hard or too easy for the policy: mix in prompts that it solves now and then, take more "
        "samples a prompt (ppo.samples), raise resample_tries of the algorithm, or add a reward that tells more apart.",
    )


def shown(judged: Judged) -> list[dict[str, Any]]:
    """A few samples, one a prompt, for people."""
    responses = judged.responses
    per_prompt = judged.rollout.num_responses // max(1, len(judged.rollout))
    return [
        {
            "prompt": responses.prompt_texts[i],
            "response": responses.response_texts[i],
            "score": float(judged.scores.raw[i]),
            "finished": bool(judged.rollout.finished[i]),
        }
        for i in range(0, judged.rollout.num_responses, per_prompt)[:SAMPLES_SHOWN]
    ]
