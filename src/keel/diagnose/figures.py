"""Figures in words: what each is called, its unit, how many digits matter."""

import math
from dataclasses import dataclass

from keel.report.units import percent, plain


@dataclass(frozen=True, slots=True)
class Words:
    """How a figure is spoken of."""

    name: str
    unit: str = ""
    digits: int = 2
    share: bool = False
    """A share in [0, 1], shown in percent."""


FIGURES = {
    "score_mean": Words("mean score"),
    "score_std": Words("spread of scores"),
    "score_p05": Words("5th percentile of scores"),
    "score_p95": Words("95th percentile of scores"),
    "score_abs_max": Words("largest score in size"),
    "score_disagreement": Words("disagreement of the reward models"),
    "reward_mean": Words("mean reward after the KL"),
    "reward_std": Words("spread of rewards after the KL"),
    "kl_nats_per_sequence": Words("KL", "nats per answer"),
    "kl_nats_per_token": Words("KL", "nats per token", 3),
    "kl_k3_nats_per_sequence": Words("KL (k3)", "nats per answer"),
    "kl_k3_nats_per_token": Words("KL (k3)", "nats per token", 3),
    "kl_coef": Words("KL coefficient", digits=4),
    "response_tokens_mean": Words("length of answers", "tokens", 1),
    "response_tokens_p95": Words("95th percentile of lengths", "tokens", 0),
    "finished_share": Words("finished answers", share=True),
    "missing_eos": Words("unfinished answers", share=True),
    "length_reward_correlation": Words("correlation of length and score"),
    "entropy_nats": Words("entropy", "nats per token"),
    "entropy_nats_sampled": Words("entropy, sampled", "nats per token"),
    "distinct_1": Words("distinct words"),
    "distinct_2": Words("distinct word pairs"),
    "unique_share": Words("unique answers", share=True),
    "repeated_trigram_share": Words("repeated trigrams", share=True),
    "self_bleu": Words("self-BLEU over prompts"),
    "self_bleu_per_prompt": Words("self-BLEU per prompt"),
    "common_phrase_share": Words("answers with one and the same phrase", share=True),
    "unseen_trigram_share": Words("trigrams new to the reward model", share=True),
    "ref_perplexity": Words("perplexity under the reference", digits=1),
    "zero_spread_share": Words("prompts whose answers all score alike", share=True),
    "approx_kl": Words("KL of one update", "nats per token", 4),
    "clip_fraction": Words("clipped tokens", share=True),
    "value_loss": Words("value loss", digits=3),
    "explained_variance": Words("explained variance of the critic"),
    "clipped_score_share": Words("clipped scores", share=True),
    "grad_norm": Words("gradient norm"),
    "learning_rate": Words("learning rate", digits=7),
    "loss": Words("loss", digits=3),
    "policy_loss": Words("policy loss", digits=4),
    "perplexity": Words("perplexity"),
    "accuracy": Words("pairs ranked right", share=True),
    "token_accuracy": Words("tokens predicted right", share=True),
    "reward_margin": Words("margin of chosen over rejected"),
    "chosen_reward": Words("implicit reward of chosen answers"),
    "rejected_reward": Words("implicit reward of rejected answers"),
    "chosen_logprob": Words("log-probability of chosen answers", "nats", 1),
    "rejected_logprob": Words("log-probability of rejected answers", "nats", 1),
    "chosen_log_ratio": Words("log-ratio of chosen answers", "nats", 1),
    "rejected_log_ratio": Words("log-ratio of rejected answers", "nats", 1),
    "win_rate": Words("win rate over SFT by judges", share=True),
    "proxy_win_rate": Words("win rate over SFT by the reward model", share=True),
}


def words(figure: str) -> Words:
    """How to speak of a figure; one that nobody named is called what it is called."""
    if known := FIGURES.get(figure):
        return known
    return Words(f"score {figure.removeprefix('score_')}" if figure.startswith("score_") else figure.replace("_", " "))


def shown(figure: str, value: float, *, unit: bool = False) -> str:
    """A value as people read it; an em dash when it is not known."""
    known = words(figure)
    if not math.isfinite(value):
        return "—"
    if known.share:
        return percent(value, 1 if abs(value) < 0.1 else 0)
    small = value != 0 and abs(value) < 10 ** (1 - known.digits)
    text = f"{value:.2g}".replace("-", "−") if small else plain(value, known.digits)
    return f"{text} {known.unit}" if unit and known.unit else text
