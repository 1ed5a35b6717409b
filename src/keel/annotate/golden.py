"""The golden set: pairs on which seniors agree, never trained on, that probe raters and reward models."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from keel.annotate.ballots import Ballot
from keel.core.seed import derive
from keel.data.records import Choice, prompt_text
from keel.monitor.verdict import Figure, Verdict
from keel.store.rows import Item

MOST = 500
"""Golden pairs beyond which another one brings little, to raters as to the probe of a reward model."""
FOR_RATERS = 40
"""Golden pairs below which raters soon have seen them all."""


@dataclass(frozen=True, slots=True)
class GoldCandidate:
    """A pair that could join the golden set, and the answer that the seniors gave."""

    item_id: int
    choice: Choice
    num_seniors: int
    """Who all said the same."""
    skills: tuple[str, ...]


def gold_candidates(
    items: Iterable[Item],
    ballots: Iterable[Ballot],
    seniors: Collection[str],
    count: int,
    *,
    least: int = 2,
    seed: int = 0,
) -> list[GoldCandidate]:
    """Up to `count` pairs that at least `least` seniors judged, all alike, spread over skills and lengths.

    Ties are left out: they do not probe a reward model, and of raters they test the guide rather than the care. Pairs
    that some senior saw otherwise are left out, whoever settled them. Skills take turns, and within a skill short,
    medium and long pairs do.
    """
    said: dict[int, dict[str, Choice]] = defaultdict(dict)
    for ballot in ballots:
        if ballot.rater in seniors and ballot.purpose != "repeat" and ballot.choice != "skip":
            said[ballot.item_id][ballot.rater] = ballot.choice
    agreed: list[tuple[Item, Choice]] = []
    for item in items:
        answers = set(said[item.id].values())
        if item.kind != "golden" and item.removed is None and len(said[item.id]) >= least and len(answers) == 1:
            (choice,) = answers
            if choice in ("a", "b"):
                agreed.append((item, choice))
    return [
        GoldCandidate(item.id, choice, len(said[item.id]), tuple(sorted(item.skills)))
        for item, choice in _spread(agreed, count, seed)
    ]


def stock(items: Iterable[Item], share: float, num_pairs_per_rater: int) -> Verdict:
    """Whether there are enough golden items for raters and for a probe.

    `share` is the project's golden share, `num_pairs_per_rater` what one rater is expected to judge.
    """
    golden = [item for item in items if item.kind == "golden" and item.removed is None]
    needed = min(MOST, max(FOR_RATERS, round(share * num_pairs_per_rater)))
    sides = Counter(item.gold for item in golden)
    figures: dict[str, Figure] = {"golden": len(golden), "needed": needed, "a": sides["a"], "b": sides["b"]}
    if len(golden) < needed:
        return Verdict(
            "watch",
            "golden_stock",
            f"There are {len(golden)} golden items; a rater meets about {needed}, and none twice.",
            figures,
            f"Have seniors judge {needed - len(golden)} more pairs.",
        )
    most = max(sides["a"], sides["b"])
    if len(golden) >= FOR_RATERS and most > 0.7 * len(golden):
        return Verdict(
            "watch",
            "golden_stock",
            f"{most} of {len(golden)} golden items have the same answer: clicking it passes for care.",
            figures,
            "Add golden items of the other answer, or swap a and b in some.",
        )
    return Verdict("ok", "golden_stock", f"There are {len(golden)} golden items.", figures)


def _spread(agreed: Sequence[tuple[Item, Choice]], count: int, seed: int) -> list[tuple[Item, Choice]]:
    """Skills in turns; within a skill short, medium and long ones in turns; within these a and b in turns."""
    by_length = sorted(agreed, key=lambda pair: (_length(pair[0]), pair[0].id))
    groups: Mapping[tuple[str, ...], list[tuple[int, Item, Choice]]] = defaultdict(list)
    for place, (item, choice) in enumerate(by_length):
        groups[tuple(sorted(item.skills))].append((3 * place // len(by_length), item, choice))
    queues = [_in_turns(group, seed) for _, group in sorted(groups.items())]
    found: list[tuple[Item, Choice]] = []
    for turn in range(max(map(len, queues), default=0)):
        found += [queue[turn] for queue in queues if turn < len(queue)]
    return found[:count]


def _in_turns(group: Sequence[tuple[int, Item, Choice]], seed: int) -> list[tuple[Item, Choice]]:
    """In a random order in which lengths and answers alternate."""
    met: Counter[tuple[int, Choice]] = Counter()
    keyed = []
    for third, item, choice in sorted(group, key=lambda entry: derive(seed, "golden", entry[1].id)):
        met[third, choice] += 1
        keyed.append((met[third, choice], len(keyed), item, choice))
    return [(item, choice) for *_, item, choice in sorted(keyed, key=lambda entry: entry[:2])]


def _length(item: Item) -> int:
    return len(prompt_text(item.prompt)) + len(item.a) + len(item.b)
