"""What a rater judges next, and which response stands on the left.

A pure function of what the store gathered: the same candidates, settings and seed give the same task. In order:

1. what is left of an open calibration round, in an order of each rater's own;
2. disputes, which the store gathers for seniors and leads only;
3. a hidden repeat or a golden item where one is due: one in every 1 / share tasks, at a random place among them;
4. an item that needs votes: those that need a skill of this rater before those that anybody can do, then those with
   the fewest votes missing, so that items get done rather than begun, then by priority, then at random.

Sides: what balances the rater's own, else what balances the item's, else a coin of (seed, item, rater).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor

from keel.core.seed import derive
from keel.store.rows import Candidate, Candidates, Pick, Purpose
from keel.store.settings import ProjectSettings

SIDES_APART = 2
"""From this lead on, the next task brings the sides of a rater back together."""


def choose(candidates: Candidates, settings: ProjectSettings, seed: int) -> Pick | None:
    """The next task; None when there is nothing that this rater can do now."""
    rater = candidates.member.user_id
    if candidates.calibration:
        left = [item for item in candidates.calibration if item.item_id not in candidates.in_view]
        return _pick("calibration", left, candidates, seed) if left else None
    if settings.adjudicate and (disputes := _able(candidates.disputes, candidates)):
        urgent = max(item.priority for item in disputes)
        return _pick("adjudicate", [item for item in disputes if item.priority == urgent], candidates, seed)
    open_items = [item for item in _able(candidates.open, candidates) if item.missing > 0]
    if not open_items:
        return None  # without work to hide among, golden items and repeats would show what they are
    position = sum(candidates.given.values())
    if is_due("repeat", settings.repeat_share, position, rater, seed) and (again := _repeats(candidates)):
        item = _drawn("repeat", again, rater, seed)
        return Pick(item_id=item.item_id, purpose="repeat", swapped=not item.swapped_before)
    if is_due("golden", settings.golden_share, position, rater, seed) and (
        golden := _able(candidates.golden, candidates)
    ):
        return _pick("golden", golden, candidates, seed)
    first = min(_rank(item) for item in open_items)
    return _pick("judge", [item for item in open_items if _rank(item) == first], candidates, seed)


def is_due(purpose: Purpose, share: float, position: int, rater: int, seed: int) -> bool:
    """Whether a rater's task at `position` (from 0) is for this purpose, so that such tasks make up `share` of all.

    Tasks are cut into blocks of 1 / share, and a draw names one place in each: nobody can foresee it, and a rater never
    meets a run of them.
    """
    if share <= 0:
        return False
    # The rounding of 1 / share must not move the edge of a block.
    block = floor(position * share + 1e-9)
    start, end = ceil(block / share - 1e-9), ceil((block + 1) / share - 1e-9)
    return position == start + derive(seed, purpose, rater, block) % max(1, end - start)


def short_of_raters(
    needed: Iterable[Sequence[str]], raters: Sequence[Sequence[str]], overlap: int
) -> Mapping[tuple[str, ...], int]:
    """Sets of skills that items need and fewer than `overlap` raters have, with how many do.

    `needed` has the skills of each unfinished item, `raters` those of each active rater. Such items never get done.
    """
    held = [set(skills) for skills in raters]
    kinds = Counter(tuple(sorted(set(skills))) for skills in needed)
    able = {kind: sum(set(kind) <= skills for skills in held) for kind in sorted(kinds)}
    return {kind: number for kind, number in able.items() if number < overlap}


def _rank(item: Candidate) -> tuple[bool, int, float]:
    return not item.skills, item.missing, -item.priority


def _able(items: Iterable[Candidate], candidates: Candidates) -> list[Candidate]:
    """The items whose every skill the rater has and that do not lie before them now."""
    skills, in_view = set(candidates.member.skills), set(candidates.in_view)
    return [item for item in items if skills.issuperset(item.skills) and item.item_id not in in_view]


def _repeats(candidates: Candidates) -> list[Candidate]:
    """The items to show again whose other side does not pull the rater's sides further apart."""
    lead = candidates.swapped_lead
    return [
        item
        for item in candidates.repeats
        if item.swapped_before is not None and (abs(lead) < SIDES_APART or item.swapped_before == (lead > 0))
    ]


def _pick(purpose: Purpose, items: Sequence[Candidate], candidates: Candidates, seed: int) -> Pick:
    """One of the items at random, and its side."""
    rater = candidates.member.user_id
    item = _drawn(purpose, items, rater, seed)
    if abs(candidates.swapped_lead) >= SIDES_APART:
        swapped = candidates.swapped_lead < 0
    elif item.swapped_lead:
        swapped = item.swapped_lead < 0
    else:
        swapped = derive(seed, "side", item.item_id, rater) % 2 == 1
    return Pick(item_id=item.item_id, purpose=purpose, swapped=swapped)


def _drawn(purpose: Purpose, items: Sequence[Candidate], rater: int, seed: int) -> Candidate:
    return min(items, key=lambda item: derive(seed, purpose, item.item_id, rater))
