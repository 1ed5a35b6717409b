"""Comparisons as the stages that learn from them want them: records and token ids side by side, in batches."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keel.annotate.consensus import resolve
from keel.batch.collate import EncodedPair, pair_batch
from keel.batch.types import PairBatch
from keel.core.seed import derive
from keel.data.records import Comparison
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
