"""The features that a correction prices, counted by hand."""

import numpy as np
import torch

from keel.batch.types import TokenBatch
from keel.stats.correction import FORM
from keel.stats.coverage import Coverage
from keel.train.form import form

ANSWERS = [[5, 6, 7, 5, 6, 7], [8], [1, 2, 3, 9]]


def described(coverage: Coverage | None) -> dict[str, list[float]]:
    lengths = [len(answer) for answer in ANSWERS]
    batch = TokenBatch(
        prompt_lengths=torch.tensor([2, 1]),
        fanout=torch.tensor([2, 1]),
        prompt_tokens=torch.tensor([1, 1, 1]),
        response_lengths=torch.tensor(lengths),
        response_tokens=torch.tensor([token for answer in ANSWERS for token in answer]),
        response_mask=torch.ones(sum(lengths), dtype=torch.bool),
    )
    logprobs = torch.tensor([-1.0, -0.5, -0.5, -3.0, -0.5, -0.5, -2.0, -0.25, -0.25, -0.25, -0.25])
    table = form(batch, logprobs, torch.tensor([True, True, False]), coverage)
    assert table.shape == (3, len(FORM))
    assert table.dtype == np.float64
    return dict(zip(FORM, table.T.tolist(), strict=True))


def test_each_feature_of_each_answer():
    found = described(Coverage.of([[5, 6, 7], [1, 2, 3]]))
    assert found == {
        "tokens": [6, 1, 4],
        "surprisal": [6.0, 2.0, 1.0],
        "rarest_token": [3.0, 2.0, 0.25],
        "unseen_trigrams": [2, 0, 1],  # 6 7 5 and 7 5 6; 2 3 9
        "repeated_trigrams": [1, 0, 0],  # 5 6 7
        "distinct_tokens": [3, 1, 4],
        "cut_off": [0, 0, 1],
    }


def test_without_a_coverage_no_trigram_is_unseen():
    assert described(None)["unseen_trigrams"] == [0, 0, 0]
    assert described(Coverage.of([]))["unseen_trigrams"] == [4, 0, 2]
