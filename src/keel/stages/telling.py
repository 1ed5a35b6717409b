"""What an RL stage tells people besides figures: samples, and a word on clipped scores."""

from typing import Any

from keel.monitor.verdict import Verdict
from keel.train.rollout import Judged

SAMPLES_SHOWN = 12
CLIPPED_WATCH = 0.2
"""Share of clipped scores that is worth a word."""


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
