"""What a rater judges next, and which response stands on the left.

A pure function of what the store gathered: the same candidates, settings and seed give the same task. In order:

1. what is left of an open calibration round, in an order of each rater's own;
2. disputes, for those who may settle them;
3. a hidden repeat or a golden item where one is due: one in every 1 / share tasks, at a random place among them;
4. an item that needs votes: those that need a skill of this rater before those that anybody can do, then those with
   the most votes already, so that items get done rather than begun, then by priority, then at random.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil, floor
from typing import Protocol

from keel.core.seed import derive
from keel.store.candidates import Candidate, Candidates, Choice, Past, Purpose

SETTLES = ("senior", "lead")
"""Roles that settle disputes."""
JUDGES = ("rater", "senior", "lead")
"""Roles that judge at all."""


class Rules(Protocol):
    """The settings of a project that assignment reads."""

    @property
    def overlap(self) -> int: ...
    @property
    def golden_share(self) -> float: ...
    @property
    def repeat_share(self) -> float: ...
    @property
    def repeat_after(self) -> int: ...
    @property
    def adjudicate(self) -> bool: ...


def choose(candidates: Candidates, settings: Rules, seed: int) -> Choice | None:
    """The next task; None when there is nothing this rater can do now."""
    if candidates.role not in JUDGES:
        return None
    if candidates.calibration:
        item = min(candidates.calibration, key=lambda item: _draw(seed, "calibration", item, candidates))
        return _choice(item, "calibration", candidates, seed)
    if not candidates.unlocked:
        return None
    if settings.adjudicate and candidates.role in SETTLES and (disputes := _able(candidates.disputes, candidates)):
        item = min(disputes, key=lambda item: (-item.priority, _draw(seed, "dispute", item, candidates)))
        return _choice(item, "adjudicate", candidates, seed)
    open_items = [item for item in _able(candidates.open, candidates) if item.votes < settings.overlap]
    if not open_items:
        return None  # without work among which to hide, golden items and repeats would show what they are
    if is_due(candidates, "repeat", settings.repeat_share, seed) and (past := _repeat(candidates, settings, seed)):
        return Choice(item_id=past.item_id, purpose="repeat", swapped=not past.swapped)
    if is_due(candidates, "golden", settings.golden_share, seed) and (golden := _able(candidates.golden, candidates)):
        item = min(golden, key=lambda item: _draw(seed, "golden", item, candidates))
        return _choice(item, "golden", candidates, seed)
    item = min(
        open_items,
        key=lambda item: (not item.skills, -item.votes, -item.priority, _draw(seed, "judge", item, candidates)),
    )
    return _choice(item, "judge", candidates, seed)


def is_due(candidates: Candidates, purpose: Purpose, share: float, seed: int) -> bool:
    """Whether a task of this purpose should come now so that it makes up `share` of the rater's tasks.

    The tasks of a rater are cut into blocks of 1 / share, and the seed draws one place in each. What could not be given
    at its place is due for the rest of its block, and then lost: a rater never meets a run of them.
    """
    if share <= 0:
        return False
    position = candidates.given
    block = floor(position * share + 1e-9)
    start, end = ceil(block / share - 1e-9), ceil((block + 1) / share - 1e-9)
    place = start + derive(seed, purpose, candidates.user_id, block) % max(1, end - start)
    if position < place:
        return False
    in_block = position - start
    if in_block > len(candidates.history):
        return position == place
    return all(past.purpose != purpose for past in candidates.history[:in_block])


def short_of_raters(
    needed: Iterable[Sequence[str]], raters: Sequence[Sequence[str]], overlap: int
) -> dict[tuple[str, ...], int]:
    """Sets of skills that items need and fewer than `overlap` raters have, with how many do.

    `needed` has the skills of each unfinished item, `raters` those of each active rater. Such items never get done.
    """
    held = [set(skills) for skills in raters]
    kinds = Counter(tuple(sorted(set(skills))) for skills in needed)
    able = {kind: sum(set(kind) <= skills for skills in held) for kind in sorted(kinds)}
    return {kind: number for kind, number in able.items() if number < overlap}


def _able(items: Iterable[Candidate], candidates: Candidates) -> list[Candidate]:
    """The items whose every skill the rater has."""
    skills = set(candidates.skills)
    return [item for item in items if skills.issuperset(item.skills)]


def _repeat(candidates: Candidates, settings: Rules, seed: int) -> Past | None:
    """An item that the rater judged long enough ago, once only, and whose other side keeps left and right balanced."""
    done = {past.item_id for past in candidates.history if past.purpose == "repeat"}
    lead = _lead(candidates)
    eligible = [
        past
        for past in candidates.history[settings.repeat_after :]
        if past.purpose == "judge"
        and past.repeatable
        and past.item_id not in done
        and (abs(lead) < 2 or past.swapped == (lead > 0))
    ]
    return min(eligible, key=lambda past: derive(seed, "repeat", past.item_id, candidates.user_id), default=None)


def _choice(item: Candidate, purpose: Purpose, candidates: Candidates, seed: int) -> Choice:
    """The task with its side: what balances this rater's sides, else the item's, else a coin of the seed."""
    lead = _lead(candidates)
    item_lead = 2 * item.swapped - item.votes
    if abs(lead) >= 2:
        swapped = lead < 0
    elif item_lead:
        swapped = item_lead < 0
    else:
        swapped = derive(seed, "side", item.item_id, candidates.user_id) % 2 == 1
    return Choice(item_id=item.item_id, purpose=purpose, swapped=swapped)


def _lead(candidates: Candidates) -> int:
    """How many more of the rater's tasks had b on the left than a."""
    return 2 * candidates.given_swapped - candidates.given


def _draw(seed: int, purpose: Purpose | str, item: Candidate, candidates: Candidates) -> int:
    return derive(seed, purpose, item.item_id, candidates.user_id)
