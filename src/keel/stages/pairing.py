"""Which answers to a prompt are put before raters side by side, and which are too much alike."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keel.core.config import digest
from keel.core.seed import derive
from keel.data.formats import to_values
from keel.data.records import Prompt, prompt_key
from keel.stages.sampling import SampleConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One response and where it comes from."""

    prompt: Prompt
    text: str
    model: str
    """The name in the settings."""
    index: int
    """Number among the model's answers to the prompt, from 0."""
    provenance: dict[str, Any]
    """Path or address, content hash, settings, seed, time, and whether it ended by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidatePair:
    """Two answers to one prompt that wait for raters."""

    prompt: Prompt
    a: Answer
    b: Answer
    side: str
    """train or held_out, by the hash of the prompt."""

    @property
    def key(self) -> str:
        """Hash of what is compared, 64 hex digits."""
        return digest({"prompt": to_values(self.prompt)["prompt"], "a": self.a.text, "b": self.b.text})

    def to_values(self) -> dict[str, Any]:
        """The pair as the JSON object that the pairs file holds."""
        return {
            "prompt": to_values(self.prompt)["prompt"],
            "response_a": self.a.text,
            "response_b": self.b.text,
            "provenance": {"a": self.a.provenance, "b": self.b.provenance, "side": self.side},
        }


def pair_up(answers: Sequence[Answer], side: str, config: SampleConfig, dropped: Counter[str]) -> list[CandidatePair]:
    """Pairs of the answers to one prompt, fresh answers before used ones; what was dropped is counted by its reason.

    Which answer is a and which is b is drawn by hash, so neither letter belongs to a model.
    """
    usable = [answer for answer in answers if answer.text.strip()]
    if len(usable) < len(answers):
        dropped["empty answer"] += len(answers) - len(usable)
    out: list[CandidatePair] = []
    used: Counter[tuple[str, int]] = Counter()
    names = [source.name for source in config.models]
    groups = [(name, name, config.within) for name in names]
    groups += [(first, second, config.across) for first, second in itertools.combinations(names, 2)]
    for first, second, wanted in groups:
        candidates = _between(usable, first, second, config.seed)
        made = 0
        while made < wanted and candidates:
            candidates.sort(key=lambda pair: sum(used[(answer.model, answer.index)] for answer in pair))
            one, other = candidates.pop(0)
            if alike(one.text, other.text, config.too_similar):
                dropped["answers too similar"] += 1
                continue
            used.update([(one.model, one.index), (other.model, other.index)])
            a, b = (one, other) if _drawn(config.seed, one, other) % 2 else (other, one)
            out.append(CandidatePair(prompt=one.prompt, a=a, b=b, side=side))
            made += 1
    return out


def _between(answers: Sequence[Answer], first: str, second: str, seed: int) -> list[tuple[Answer, Answer]]:
    """All pairs of an answer of `first` and one of `second`, in an order drawn by hash."""
    mine = [answer for answer in answers if answer.model == first]
    theirs = [answer for answer in answers if answer.model == second]
    pairs = itertools.combinations(mine, 2) if first == second else itertools.product(mine, theirs)
    return sorted(
        pairs, key=lambda pair: derive(seed, "order", prompt_key(pair[0].prompt), pair[0].index, pair[1].index)
    )


def _drawn(seed: int, one: Answer, other: Answer) -> int:
    return derive(seed, "letter", prompt_key(one.prompt), one.model, one.index, other.model, other.index)


def alike(a: str, b: str, line: float) -> bool:
    """Whether two answers are the same to a reader: `similarity` at or above `line`."""
    return similarity(a, b) >= line


def similarity(a: str, b: str) -> float:
    """Dice's coefficient of the neighbouring word pairs of two texts, case aside: 1 for the same words in the same
    order, 0 for none in common. Texts of a single word are the same or not.
    """
    first, second = a.casefold().split(), b.casefold().split()
    if first == second:
        return 1.0
    counts = [Counter(itertools.pairwise(words)) for words in (first, second)]
    total = sum(counts[0].values()) + sum(counts[1].values())
    # Just below 1: other words in another order can share all their neighbours ("a b a c a" and "a c a b a").
    return min(2 * sum((counts[0] & counts[1]).values()) / total, 1 - 1e-9) if total else 0.0
