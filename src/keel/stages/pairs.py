"""Comparisons as the stages that learn from them want them: records and token ids side by side, in batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from keel.annotate.consensus import resolve
from keel.batch.collate import EncodedPair, pair_batch
from keel.batch.types import PairBatch, PreferenceBatch, widen
from keel.core.seed import derive
from keel.data.records import Comparison
from keel.evaluate.reward_report import accuracy_figures, figures_of_scores
from keel.stages.encode import Fitting, encode_comparisons
from keel.stages.sections.labels import Labels
from keel.train.loop import shuffled


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Comparisons as records and as token ids, position by position."""

    records: Sequence[Comparison]
    pairs: Sequence[EncodedPair]

    @classmethod
    def of(cls, records: Sequence[Comparison], pairs: Sequence[EncodedPair | None]) -> "PairSet":
        """The records whose pair fitted into the context."""
        kept = [(record, pair) for record, pair in zip(records, pairs, strict=True) if pair is not None]
        return cls(records=[record for record, _ in kept], pairs=[pair for _, pair in kept])

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, chosen: Sequence[int], said: Tensor | None = None) -> PairBatch:
        """These pairs, ready for a loss; `said` [2N] is what a reference says of all responses, a's before b's."""
        batch = pair_batch([self.pairs[i] for i in chosen])
        if said is None:
            return batch
        return widen(batch, PreferenceBatch, sequence_ref_logprobs=said_of(chosen, said))

    def agreement(self, rewards: Tensor) -> dict[str, float]:
        """How often the rewards [2N] of all responses, a's before b's, side with the judgments."""
        return accuracy_figures(rewards[0::2], rewards[1::2], [pair.preference for pair in self.pairs])

    def report(self, rewards: Tensor, train: Sequence[Any]) -> dict[str, Any]:
        """What rewards [2N] learned from the records `train` are worth on these pairs."""
        return figures_of_scores(rewards[0::2], rewards[1::2], self.pairs, self.records, train)


def said_of(chosen: Sequence[int], said: Tensor) -> Tensor:
    """[2K] of the `chosen` records what `said` [2N] holds of both responses."""
    return said.view(-1, 2)[torch.tensor(chosen, dtype=torch.int64)].flatten()


def pair_set(records: Sequence[Comparison], labels: Labels, tokenizer: Any, fit: Fitting) -> PairSet:
    """Records with the preference that the recipe asks for, and as token ids."""
    resolved = list(records) if labels == "given" else resolve(records, labels)
    return PairSet.of(resolved, encode_comparisons(resolved, tokenizer, fit))


def pair_batches(pairs: Sequence[EncodedPair], size: int, seed: int, start: int, total: int) -> Iterator[PairBatch]:
    """The batches of steps `start` to `total`."""
    for chosen in drawn(len(pairs), size, seed, start, total):
        yield pair_batch([pairs[i] for i in chosen])


def drawn(count: int, size: int, seed: int, start: int, total: int) -> Iterator[list[int]]:
    """Which of `count` pairs steps `start` to `total` take; each epoch is a new shuffle that depends on (seed, epoch)
    alone.
    """
    per_epoch = math.ceil(count / size)
    for step in range(start, total):
        epoch, at = divmod(step, per_epoch)
        order = shuffled(count, 1, derive(seed, "order", epoch))[0]
        yield order[at * size : (at + 1) * size].tolist()
