"""The signals of a rollout: what a policy's answers show of reward hacking, collapse and drift.

They are counted on what sampling and scoring left behind, without a forward pass, so they cost next to nothing. A
figure that the rollout cannot give is nan: a correlation when all rewards are equal, self-BLEU of a single answer,
trigrams of one-token answers. Tokens outside `response_mask` are left out; the answer's own then stand side by side.
"""

from math import nan

import numpy as np
import torch

from keel.batch.types import Rollout
from keel.functional.kl import kl_k3
from keel.stats.arrays import Floats, Ints
from keel.stats.coverage import Coverage
from keel.stats.diversity import NGrams
from keel.train.rollout import Judged

PHRASE_TOKENS = 4


def signals(judged: Judged, coverage: Coverage | None) -> dict[str, float]:
    """Every figure of docs/signals.md that a rollout gives besides `Judged.figures`; nan for what it cannot give.

    `coverage` is what the reward model was trained on; without it `unseen_trigram_share` is nan.
    """
    return {**reward_figures(judged), **reference_figures(judged.rollout), **text_figures(judged.rollout, coverage)}


def reward_figures(judged: Judged) -> dict[str, float]:
    """Spread and tails of scores and rewards, and how far they follow length."""
    raw, rewards = judged.scores.raw.double().numpy(), judged.rollout.scores.double().numpy()
    lengths = judged.rollout.response_lengths.double().numpy()
    low, high = np.percentile(raw, [5, 95])
    return {
        "reward_std": float(rewards.std()),
        "score_p05": float(low),
        "score_p95": float(high),
        "score_abs_max": float(np.abs(raw).max()),
        **{f"score_{name}_std": float(values.std(unbiased=False)) for name, values in judged.scores.parts.items()},
        "score_disagreement": judged.scores.disagreement,
        "length_reward_correlation": correlation(lengths, rewards),
        "length_score_correlation": correlation(lengths, raw),
        "response_tokens_p95": float(np.percentile(lengths, 95)),
    }


def reference_figures(batch: Rollout) -> dict[str, float]:
    """What the policy and its reference say of the sampled tokens.

    `entropy_nats_sampled` is the mean of -log pi over sampled tokens, an unbiased estimate of the entropy per token.
    """
    own = batch.response_mask
    # In float64, where the exponential of k3 does not overflow.
    k3 = batch.sum_per_response(kl_k3(batch.logprobs.double(), batch.ref_logprobs.double()))
    return {
        "kl_k3_nats_per_sequence": float(k3.mean()),
        "kl_k3_nats_per_token": float(k3.sum() / own.sum()),
        "ref_perplexity": float(torch.exp(-batch.ref_logprobs[own].double().mean())),
        "entropy_nats_sampled": float(-batch.logprobs[own].mean()),
    }


def text_figures(batch: Rollout, coverage: Coverage | None) -> dict[str, float]:
    """How varied the answers are, and how much of them the reward model has never met."""
    tokens, lengths = own_tokens(batch)
    grams = NGrams(tokens, lengths)
    prompt = batch.prompt_of_response.numpy()
    first = np.cumsum(batch.fanout.numpy()) - batch.fanout.numpy()
    return {
        "distinct_1": grams.distinct(1),
        "distinct_2": grams.distinct(2),
        "unique_share": grams.unique(),
        "repeated_trigram_share": grams.repeated(3) if (lengths >= 3).any() else nan,
        "self_bleu": grams.self_bleu(np.arange(len(prompt)) - first[prompt]),
        "self_bleu_per_prompt": grams.self_bleu(prompt),
        "common_phrase_share": grams.common(PHRASE_TOKENS)[1],
        "unseen_trigram_share": nan if coverage is None else coverage.unseen_share(tokens, lengths),
    }


def common_phrase(judged: Judged) -> tuple[int, ...]:
    """The token ids of the phrase behind `common_phrase_share`; () when no answer has four tokens."""
    return NGrams(*own_tokens(judged.rollout)).common(PHRASE_TOKENS)[0]


def own_tokens(batch: Rollout) -> tuple[Ints, Ints]:
    """Tokens inside the mask end to end, and how many each answer has."""
    own = batch.response_mask
    lengths = np.bincount(batch.response_of_token[own].numpy(), minlength=batch.num_responses)
    return batch.response_tokens[own].numpy(), lengths.astype(np.int64)


def correlation(a: Floats, b: Floats) -> float:
    """Pearson's correlation; nan when either does not vary."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return nan
    return float(np.corrcoef(a, b)[0, 1])
