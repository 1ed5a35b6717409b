"""What a rater judges next, and which response stands on the left.

A pure function of what the store gathered: the same candidates, settings and seed give the same task. In order:

1. what is left of an open calibration round, in an order of each rater's own;
2. disputes, which the store gathers for seniors and leads only;
3. a hidden repeat or a golden item where one is due: one in every 1 / share tasks, at a random place among them;
4. an item that needs votes: those that need a skill of this rater before those that anybody can do, then those with
   the fewest votes missing, so that items get done rather than begun, then by priority, then at random.

Sides: of every two tasks in a row a rater has b on the left in one, and a coin of (seed, rater) says in which. An item
should change sides from one vote to the next, so of equally urgent items one is taken whose turn it is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor

from keel.core.seed import derive
from keel.store.rows import Candidate, Candidates, Pick, Purpose
from keel.store.settings import ProjectSettings


def choose(candidates: Candidates, settings: ProjectSettings, seed: int) -> Pick | None:
    """The next task; None when there is nothing that this rater can do now."""
    rater, position = candidates.member.user_id, sum(candidates.given.values())
    swapped = b_on_the_left(position, rater, seed)

    def pick(purpose: Purpose, items: Sequence[Candidate]) -> Pick:
        item = min(items, key=lambda item: derive(seed, purpose, item.item_id, rater))
        return Pick(item_id=item.item_id, purpose=purpose, swapped=swapped)

    if candidates.calibration:
        left = [item for item in candidates.calibration if item.item_id not in candidates.in_view]
        return pick("calibration", left) if left else None
    if settings.adjudicate and (disputes := _able(candidates.disputes, candidates)):
        urgent = max(item.priority for item in disputes)
        return pick("adjudicate", [item for item in disputes if item.priority == urgent])
    open_items = [item for item in _able(candidates.open, candidates) if item.missing > 0]
    if not open_items:
        return None  # without work to hide among, golden items and repeats would show what they are
    if is_due("repeat", settings.repeat_share, position, rater, seed) and (
        again := [
            item for item in candidates.repeats if item.swapped_before is not None and item.swapped_before != swapped
        ]
    ):
        return pick("repeat", again)
    if is_due("golden", settings.golden_share, position, rater, seed) and (
        golden := _able(candidates.golden, candidates)
    ):
        return pick("golden", golden)
    first = min(_rank(item) for item in open_items)
    urgent_items = [item for item in open_items if _rank(item) == first]
    its_turn = [item for item in urgent_items if _swapped_next(item, seed) == swapped]
    return pick("judge", its_turn or urgent_items)


def b_on_the_left(position: int, rater: int, seed: int) -> bool:
    """Whether b stands left in a rater's task at `position`, from 0: in one of every two in a row."""
    return (derive(seed, "side", rater, position // 2) + position) % 2 == 1


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


def _swapped_next(item: Candidate, seed: int) -> bool:
    """Which way the item's next vote should stand so that its votes take turns."""
    return (derive(seed, "item side", item.item_id) + item.missing) % 2 == 1
