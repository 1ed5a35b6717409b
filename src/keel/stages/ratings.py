"""Thumbs up and down as KTO wants them: each rated response beside one that answers another prompt."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from keel.batch.collate import EncodedRating, rating_batch
from keel.batch.types import RatingBatch
from keel.core.errors import DataError
from keel.data.chat import Tokenizer, encode_demonstration
from keel.data.records import Comparison, Demonstration, Prompt, Rating, prompt_key, prompt_text
from keel.evaluate.rating_report import rating_report, separation
from keel.stages.encode import Fitting, nonempty
from keel.stages.pairs import said_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Rated:
    """A response and how likely it is a good one."""

    prompt: Prompt
    response: str
    desirable: float
    weight: float = 1.0
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class RatingSet:
    """Ratings as records and as token ids, position by position."""

    records: Sequence[Rated]
    ratings: Sequence[EncodedRating]

    def __len__(self) -> int:
        return len(self.ratings)

    def batch(self, chosen: Sequence[int], said: Tensor) -> RatingBatch:
        """These ratings, ready for KTO; `said` [2N] is what the reference says of the rated and the other responses."""
        return rating_batch([self.ratings[i] for i in chosen], said_of(chosen, said))

    def agreement(self, rewards: Tensor) -> dict[str, float]:
        """How often the rewards [N] put a good response above a bad one."""
        return separation(rewards, [rating.desirable for rating in self.ratings])

    def report(self, rewards: Tensor, train: Sequence["Rated"]) -> dict[str, Any]:
        """What rewards [N] learned from the records `train` are worth on these ratings."""

        def told(records: Sequence[Rated]) -> tuple[list[str], list[float]]:
            return [r.response for r in records], [r.desirable for r in records]

        lengths = [len(rating.response) for rating in self.ratings]
        return rating_report(rewards, lengths, *told(self.records), *told(train))


def rated(records: Sequence[Rating | Comparison]) -> list[Rated]:
    """Ratings as they are; of a comparison both responses, each as good as it is likely the better one.

    A tie says of neither whether it is good, so it is left out.
    """
    found: list[Rated] = []
    for r in records:
        if isinstance(r, Rating):
            found.append(Rated(prompt=r.prompt, response=r.response, desirable=float(r.desirable), source=r.source))
        elif r.preference != 0.5:
            for response, desirable in ((r.a, r.preference), (r.b, 1 - r.preference)):
                one = Rated(prompt=r.prompt, response=response, desirable=desirable, weight=r.weight, source=r.source)
                found.append(one)
    return found


def rating_set(records: Sequence[Rating | Comparison], tokenizer: Tokenizer, fit: Fitting, side: str) -> RatingSet:
    """The ratings that fit into the context; `side` is the word for them in messages, "training" or "held-out".

    A response to another prompt that is too long behind this one loses its end: it only tells how far the policy has
    moved. Raises DataError when all say the same, or when most answer one prompt.
    """
    kept, prompts, responses = [], [], []
    for record in rated(records):
        demonstration = Demonstration(record.prompt, record.response, record.source)
        prompt, response, _ = encode_demonstration(tokenizer, demonstration, every_turn=False)
        fitted = fit.fit(tokenizer, prompt, len(response), record.source)
        if fitted is not None:
            kept.append(record)
            prompts.append(fitted)
            responses.append(response)
    nonempty(kept, "rating", fit)
    both_kinds(kept, side)
    others = unrelated([prompt_key(record.prompt) for record in kept], kept, side)
    ratings = [
        EncodedRating(
            prompt=prompt,
            response=response,
            unrelated=responses[other][: max(1, fit.max_tokens - len(prompt))],
            desirable=record.desirable,
            weight=record.weight,
        )
        for record, prompt, response, other in zip(kept, prompts, responses, others, strict=True)
    ]
    return RatingSet(records=kept, ratings=ratings)


def both_kinds(records: Sequence[Rated], side: str) -> None:
    for kind, share in (("down", [r.desirable for r in records]), ("up", [1 - r.desirable for r in records])):
        if max(share) < 0.5:
            raise DataError(
                f"all {len(records)} {side} ratings are thumbs {kind} (the first: {records[0].source or 'unknown'}), "
                "so there is nothing to tell apart. KTO needs thumbs up and thumbs down on both sides of the split: "
                "look at the labels, add the missing kind, or choose another holdout. Good responses alone are "
                "demonstrations for sft."
            )


def unrelated(keys: Sequence[str], records: Sequence[Rated], side: str) -> list[int]:
    """For each rating the place of one with another prompt; each serves once, so that all are seen equally often."""
    (most, count), total = Counter(keys).most_common(1)[0], len(keys)
    if 2 * count > total:
        prompt = prompt_text(records[keys.index(most)].prompt)
        raise DataError(
            f"{count} of {total} {side} ratings answer one prompt ({prompt[:60]!r}). KTO measures how far the policy "
            "has moved on responses to other prompts, so at most half may share one. Add ratings of other prompts, or "
            "raise the holdout if it is the held-out side that is too small."
        )
    order = sorted(range(total), key=keys.__getitem__)  # a prompt's ratings side by side; `count` further is another's
    others = [0] * total
    for at, place in enumerate(order):
        others[place] = order[(at + count) % total]
    return others
