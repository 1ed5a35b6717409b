"""The plain features of answers that `keel.stats.correction` prices."""

import numpy as np
from torch import Tensor

from keel.batch.types import TokenBatch
from keel.stats.arrays import Floats
from keel.stats.correction import FORM
from keel.stats.coverage import Coverage
from keel.stats.diversity import NGrams


def form(batch: TokenBatch, ref_logprobs: Tensor, finished: Tensor, coverage: Coverage | None) -> Floats:
    """[S, len(FORM)] features of the responses; `ref_logprobs` [R] are the reference's.

    Without `coverage` no trigram counts as unseen.
    """
    tokens, lengths = batch.response_tokens.numpy(), batch.response_lengths.numpy()
    owner = np.repeat(np.arange(len(lengths)), lengths)
    surprise = -ref_logprobs.double().cpu().numpy()
    rarest = np.zeros(len(lengths))
    np.maximum.at(rarest, owner, surprise)
    grams = NGrams(tokens, lengths)
    columns = {
        "tokens": lengths,
        "surprisal": np.bincount(owner, surprise, minlength=len(lengths)),
        "rarest_token": rarest,
        "unseen_trigrams": np.zeros(len(lengths)) if coverage is None else coverage.unseen_counts(tokens, lengths),
        "repeated_trigrams": np.maximum(lengths - 2, 0) - grams.distinct_per_text(3),
        "distinct_tokens": grams.distinct_per_text(1),
        "cut_off": (~finished).numpy(),
    }
    return np.stack([columns[name].astype(np.float64) for name in FORM], axis=1)
